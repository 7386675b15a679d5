"""What positions got and lost beside their fills: differences that were adopted or flattened."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from django.db.models import OuterRef, Subquery

from execution.models import Difference, Fill, Position
from execution.performance import Lane
from fks_site import carried_out
from fks_site.trade_filter import TradeFilter

State = Difference.State


class TakenOver(NamedTuple):
    """What our book got, or lost where it is negative, and what its position began with since."""

    account: str
    symbol: str
    quantity: Decimal
    at: datetime
    first_fill: int | None
    begun_at: datetime | None

    @property
    def lane(self) -> Lane:
        return self.account, self.symbol, carried_out.BY_HAND

    def is_held_before(self, fill: int) -> bool:
        """Whether it is part of the position that ``fill`` finds; not where that began later."""
        if self.first_fill is None or self.begun_at is None or self.first_fill >= fill:
            return True
        return self.begun_at <= self.at


def of_places(form: TradeFilter, places: Iterable[tuple[str, str]]) -> list[TakenOver]:
    """All that was ever taken over for these (account, symbol) pairs, oldest first."""
    wanted = set(places)
    here = Position.objects.filter(account=OuterRef("account"), symbol=OuterRef("symbol"))
    begun = Fill.objects.filter(pk=OuterRef("first_fill"))
    rows = form.chosen(
        Difference.objects.filter(
            kind=Difference.Kind.POSITION, state__in=(State.ADOPTED, State.FLATTENED)
        )
    ).annotate(first_fill=Subquery(here.values("first_fill_id")))
    told = rows.annotate(begun_at=Subquery(begun.values("recorded_at"))).order_by("resolved_at")
    columns = ("account__name", "symbol", "ours", "theirs", "resolved_at", "first_fill", "begun_at")
    return [
        TakenOver(account, symbol, Decimal(theirs) - Decimal(ours), *moments)
        for account, symbol, ours, theirs, *moments in told.values_list(*columns)
        if (account, symbol) in wanted
    ]
