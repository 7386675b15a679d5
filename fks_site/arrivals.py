"""The alerts of the last day: how many came in each half hour, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, DateTimeField, Func, Min, Q, Value

from brokers import access
from execution.ids import first_id_at
from execution.models import Signal
from execution.states import SignalState

SPAN, SLOT = timedelta(hours=24), timedelta(minutes=30)
CELLS = SPAN // SLOT
REFUSED = (SignalState.DENIED, SignalState.EXPIRED, SignalState.FAILED)


@dataclass(frozen=True, slots=True)
class Cell:
    """Half an hour."""

    began: datetime
    came: int
    refused: int

    @property
    def tone(self) -> str:
        if not self.came:
            return "default"
        if not self.refused:
            return "success"
        return "danger" if self.refused == self.came else "warning"

    @property
    def text(self) -> str:
        ended = self.began + SLOT
        when = f"{self.began.astimezone(UTC):%H:%M} to {ended.astimezone(UTC):%H:%M} UTC"
        return f"{when}: {self.came} came, {self.refused} refused"


def groups(now: datetime, reach: access.Reach | None = None) -> Sequence[Mapping[str, Any]]:
    """Counts by state, reason and half hour of the last day, and of whatever still waits, as far as it
    may be seen within ``reach``. One query.
    """
    recent = Q(pk__gte=first_id_at(now - SPAN))
    slot = Func(
        Value(SLOT), "received_at", Value(now, DateTimeField()), function="date_bin",
        output_field=DateTimeField(),
    )  # fmt: skip
    return list(
        access.within(reach, Signal.objects.all())
        .filter(recent | Q(state=SignalState.RECEIVED))
        .order_by()
        .annotate(slot=slot)
        .values("state", "reason", "slot")
        .annotate(count=Count("pk"), oldest=Min("received_at"))
    )


def cells(counted: Iterable[Mapping[str, Any]], now: datetime) -> list[Cell]:
    """The day's half hours, the oldest first; what waits for longer is in none of them."""
    came, refused = [0] * CELLS, [0] * CELLS
    for row in counted:
        place = CELLS + (row["slot"] - now) // SLOT
        if 0 <= place < CELLS:
            came[place] += row["count"]
            refused[place] += row["count"] if row["state"] in REFUSED else 0
    start = now - SPAN
    return [Cell(start + place * SLOT, came[place], refused[place]) for place in range(CELLS)]
