"""What fees are worth in the quote asset, and which of them are taken from a position.

One in a third coin, as BNB on BTC/USDT, is valued by the last price FKS saw of that coin. Without one
it is not counted, and pages say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from django.db.models import F, Q, Value
from django.db.models.functions import Concat

from brokers.decimals import decimal_text
from brokers.models import Account, Instrument
from brokers.types import FillReport
from execution.models import Fill
from execution.positions import QUANTUM

ZERO = Decimal(0)
COINS = "spot"
"""The market whose trades move coins; of every other a position is a contract or a share."""
Place = tuple[str, str]
"""An account's name and a symbol."""
FEE_COLUMNS = ("symbol", "price", "fee", "fee_currency", "fee_value")
OF_THE_COINS = Q(symbol__startswith=Concat(F("fee_currency"), Value("/"))) & Q(fee_value=None)
"""Of fills: see ``Fee.is_of_the_coins``."""


class Fee(NamedTuple):
    """A fill's columns that say what its fee was. ``value`` is set where it came neither out of the
    coins that were traded nor out of the quote asset the symbol names.
    """

    symbol: str
    price: Decimal
    fee: Decimal
    coin: str
    value: Decimal | None

    @property
    def counted(self) -> Decimal | None:
        """In the quote asset; ``None`` where it could not be valued."""
        _, quote = assets(self.symbol)
        if not self.fee:
            return ZERO
        if self.is_of_the_coins:
            return self.fee * self.price
        return self.fee if quote and self.coin == quote else self.value

    @property
    def is_of_the_coins(self) -> bool:
        """Whether the position is smaller by it."""
        return self.value is None and self.coin == assets(self.symbol)[0]


class Split(NamedTuple):
    """How a fee is booked: ``coins`` a position loses, ``money`` of the quote asset, and the fill's
    ``fee_value``.
    """

    coins: Decimal
    money: Decimal
    value: Decimal | None


def split(account: Account, symbol: str, report: FillReport) -> Split:
    """A fee in the base asset is taken from the position only where trades move coins: a forex or
    contract position stays whole, and the account's money pays.
    """
    base, quote = assets(symbol)
    fee, coin = report.fee, report.fee_currency
    if not fee or (quote and coin == quote):
        return Split(ZERO, fee, None)
    if coin != base:
        value = in_quote(account, symbol, fee, coin)
    elif _moves_coins(account, symbol):
        return Split(fee, ZERO, None)
    else:
        value = (fee * report.price).quantize(QUANTUM)
    return Split(ZERO, value or ZERO, value)


def _moves_coins(account: Account, symbol: str) -> bool:
    known = Instrument.objects.filter(account=account, symbol=symbol).exclude(market_type=COINS)
    return ":" not in symbol and not known.exists()


def assets(symbol: str) -> tuple[str, str]:
    """The base and the quote asset of ``symbol``."""
    base, _, rest = symbol.partition("/")
    return base, rest.partition(":")[0]


def quotes_of(places: Iterable[Place]) -> dict[Place, str]:
    """What each place is priced in: a future's name does not say it, its instrument does. One query
    where there is one of those.
    """
    found = {place: assets(place[1])[1] for place in set(places)}
    unnamed = {symbol for _, symbol in found if "/" not in symbol}
    if unnamed:
        rows = Instrument.objects.filter(symbol__in=unnamed)
        for account, symbol, quote in rows.values_list("account__name", "symbol", "quote"):
            if (account, symbol) in found:
                found[account, symbol] = quote
    return found


def in_quote(account: Account, symbol: str, fee: Decimal, coin: str) -> Decimal | None:
    """``fee``, in a coin that is not the base of ``symbol``, in the quote asset of ``symbol``.

    By the account's own last price of the coin, else by the newest one of another account in the same
    environment; ``None`` where none was ever seen.
    """
    [quote] = quotes_of([(account.name, symbol)]).values()
    if coin and coin == quote:
        return fee
    priced = Instrument.objects.filter(
        Q(base=coin, quote=quote) | Q(base=quote, quote=coin),
        account__environment=account.environment,
        last_price__gt=ZERO,
        last_price_at__isnull=False,
    )
    rows = sorted(priced, key=lambda one: (one.account_id == account.pk, one.last_price_at))
    if not coin or not rows:
        return None
    price = rows[-1].last_price or ZERO
    return (fee * price if rows[-1].base == coin else fee / price).quantize(QUANTUM)


def not_counted(fees: Iterable[Fee]) -> Mapping[str, Decimal]:
    """What could not be valued, by coin."""
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in fees:
        if one.counted is None:
            totals[one.coin or "of a coin the venue did not name"] += one.fee
    return totals


def shown(fill: Fill) -> str:
    """A fill's fee as it was taken, and what it counts for where that is another amount."""
    fee = Fee(*(getattr(fill, name) for name in FEE_COLUMNS))
    taken = f"{decimal_text(fill.fee)} {fill.fee_currency}".strip()
    if fee.counted is None:
        return f"{taken} (not counted)"
    if fill.fee_value is None or fill.fee_value == fill.fee:
        return taken
    value = f"{decimal_text(fill.fee_value)} {assets(fill.symbol)[1]}".strip()
    return f"{taken} ({value})"


def in_words(amounts: Mapping[str, Decimal]) -> str:
    """E.g. ``0.01 BNB, 3 KCS``; empty for nothing."""
    return ", ".join(f"{decimal_text(amounts[coin])} {coin}" for coin in sorted(amounts))
