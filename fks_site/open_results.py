"""What open positions have gained, by the fills of each strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import Case, F, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Coalesce, Concat

from brokers.fields import MoneyField
from execution.fee_values import OF_THE_COINS, quotes_of
from execution.marks import marks_of
from execution.models import SIGNED, Fill, Position
from fks_site import carried_out
from fks_site.trade_filter import TradeFilter

NOT_OURS = "no fill of ours"
"""What an operator adopted, and so belongs to nobody's fills."""
ZERO = Decimal(0)
NOTHING = Decimal("1E-9")
"""Less is what rounding left."""


@dataclass(frozen=True, slots=True)
class OpenResult:
    """One strategy's part of one position. ``unrealised`` is in the quote asset, ``None`` while no
    price of the last minutes is known.
    """

    account_id: int
    account: str
    strategy: str
    symbol: str
    quantity: Decimal
    unrealised: Decimal | None
    currency: str


class _Booked(NamedTuple):
    """The fills of one strategy in one lane, added up."""

    account_id: int
    symbol: str
    strategy: str | None
    bought: Decimal
    spent: Decimal
    realised: Decimal

    def gain(self, price: Decimal) -> Decimal:
        """What it is worth at ``price``, less what it cost, less what of that is realised already: so
        the parts of a position add up to its whole, however its strategies traded against each other.
        """
        return self.bought * price - self.spent - self.realised


def of_positions(form: TradeFilter, now: datetime) -> list[OpenResult]:
    """Every open position the form's user sees and asks for. Three queries, however many, and one for
    symbols that do not say what they are priced in.
    """
    positions = _positions(form)
    marks = marks_of([(one.account_id, one.symbol) for one in positions], now)
    prices = {place: mark.price for place, mark in marks.items() if mark.is_fresh}
    names = {one.account_id: one.account.name for one in positions}
    quotes = quotes_of((one.account.name, one.symbol) for one in positions)
    left = {(one.account_id, one.symbol): one.quantity for one in positions}
    found = []
    for booked in _booked(form, positions):
        place = booked.account_id, booked.symbol
        left[place] -= booked.bought
        price = prices.get(place)
        gain = None if price is None and booked.bought else booked.gain(price or ZERO)
        if booked.bought or (gain is not None and abs(gain) > NOTHING):
            strategy = booked.strategy or carried_out.BY_HAND
            account = names[booked.account_id]
            row = (booked.account_id, account, strategy, booked.symbol, booked.bought, gain)
            found.append(OpenResult(*row, quotes[account, booked.symbol]))
    if not form.cleaned_data["strategy"]:
        found += [
            OpenResult(pk, names[pk], NOT_OURS, symbol, quantity, None, quotes[names[pk], symbol])
            for (pk, symbol), quantity in left.items()
            if abs(quantity) > NOTHING
        ]
    return sorted(found, key=lambda one: (one.strategy, one.symbol, one.account))


def _positions(form: TradeFilter) -> list[Position]:
    symbol = form.cleaned_data["symbol"].strip().upper()
    rows = Position.objects.filter(account__in=form.accounts()).exclude(quantity=0)
    rows = rows.filter(symbol=symbol) if symbol else rows
    return list(rows.select_related("account"))


def _booked(form: TradeFilter, positions: Sequence[Position]) -> list[_Booked]:
    """The fills since each position was flat: before that they added up to nothing."""
    if not positions:
        return []
    since_flat = Q()
    for one in positions:
        begun = {"account": one.account_id, "symbol": one.symbol, "pk__gte": one.first_fill_id or 0}
        since_flat |= Q(**begun)
    fills = form.chosen(Fill.objects.filter(since_flat), "order__strategy")
    return [_Booked(*row) for row in _added_up(fills)]


def _added_up(fills: QuerySet[Fill]) -> QuerySet[Fill, tuple[Any, ...]]:
    """Fees taken from the coins are coins parted with; those in the quote asset, and what others count
    for, are spent.
    """
    in_quote = Q(symbol__endswith=Concat(Value("/"), F("fee_currency"))) | Q(
        symbol__contains=Concat(Value("/"), F("fee_currency"), Value(":"))
    )
    none = Value(ZERO, output_field=MoneyField())
    coin_fee = Case(When(OF_THE_COINS, then=F("fee")), default=none)
    quote_fee = Case(When(~Q(fee_currency="") & in_quote, then=F("fee")), default=none)
    third = Coalesce(F("fee_value"), none)
    return (
        fills.order_by()
        .values_list("account_id", "symbol", "order__strategy__slug")
        .annotate(
            bought=Sum(SIGNED - coin_fee, output_field=MoneyField()),
            spent=Sum(SIGNED * F("price") + quote_fee + third, output_field=MoneyField()),
            realised=Sum("realised_pnl"),
        )
    )
