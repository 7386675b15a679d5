"""What fees are worth in the quote asset.

One in a third coin, as BNB on BTC/USDT, is valued by the last price FKS saw of that coin. Without one
it is not counted, and pages say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from django.db.models import Q

from brokers.decimals import decimal_text
from brokers.models import Account, Instrument
from execution.models import Fill
from execution.positions import QUANTUM

ZERO = Decimal(0)
FEE_COLUMNS = ("symbol", "price", "fee", "fee_currency", "fee_value")


class Fee(NamedTuple):
    """A fill's columns that say what its fee was; ``value`` is that of a fee in a third coin."""

    symbol: str
    price: Decimal
    fee: Decimal
    coin: str
    value: Decimal | None

    @property
    def counted(self) -> Decimal | None:
        """In the quote asset; ``None`` where it could not be valued."""
        base, quote = assets(self.symbol)
        if not self.fee:
            return ZERO
        if self.coin == base:
            return self.fee * self.price
        return self.fee if self.coin == quote else self.value


def assets(symbol: str) -> tuple[str, str]:
    """The base and the quote asset of ``symbol``."""
    base, _, rest = symbol.partition("/")
    return base, rest.partition(":")[0]


def in_quote(account: Account, symbol: str, fee: Decimal, coin: str) -> Decimal | None:
    """``fee``, in a coin that is neither side of ``symbol``, in the quote asset of ``symbol``.

    By the account's own last price of the coin, else by the newest one of another account in the same
    environment; ``None`` where none was ever seen. One query.
    """
    _, quote = assets(symbol)
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
    """A fill's fee as it was taken, and what one in a third coin counts for."""
    fee = Fee(*(getattr(fill, name) for name in FEE_COLUMNS))
    taken = f"{decimal_text(fill.fee)} {fill.fee_currency}".strip()
    if fee.counted is None:
        return f"{taken} (not counted)"
    if fill.fee_value is None:
        return taken
    return f"{taken} ({decimal_text(fill.fee_value)} {assets(fill.symbol)[1]})"


def in_words(amounts: Mapping[str, Decimal]) -> str:
    """E.g. ``0.01 BNB, 3 KCS``; empty for nothing."""
    return ", ".join(f"{decimal_text(amounts[coin])} {coin}" for coin in sorted(amounts))
