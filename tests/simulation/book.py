"""The rows of a simulated product. A move is conditional, and journalled, as in the database."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers.types import OrderReport
from execution import decisions
from execution.states import OrderState
from execution.transitions import Event, bookkeeping, target
from tests.simulation.venue import WHOLE

Journal = list[tuple[Event, str, str, int]]
"""Event, state before, state after, attempt."""


@dataclass
class Row:
    """An order's row."""

    number: int
    expires_at: datetime | None = None
    state: str = OrderState.PENDING
    attempt: int = 0
    looks: int = 0
    settle_at: datetime | None = None
    lease_until: datetime | None = None
    next_check_at: datetime | None = None
    unknown_since: datetime | None = None
    unanswered_since: datetime | None = None
    is_immediate: bool = False
    finished_at: datetime | None = None
    broker_order_id: str = ""
    reason: str = ""
    detail: str = ""
    fills: dict[str, Decimal] = field(default_factory=dict)
    journal: Journal = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        return sum(self.fills.values(), Decimal(0))

    @property
    def times_lost(self) -> int:
        return sum(line[0] is Event.LOSE_SIGHT for line in self.journal)


class Book:
    """Every order's row. ``conditional`` off takes the guard of a move away."""

    def __init__(self, conditional: bool) -> None:
        self.conditional = conditional
        self.rows: list[Row] = []

    def read(self, number: int) -> Row:
        """The row as it is now; what becomes of it later does not show."""
        return copy(self.rows[number])

    def move(self, seen: Row, event: Event, now: datetime, **changes: Any) -> bool:
        """Move the row that was read as ``seen``, unless it has changed since."""
        row = self.rows[seen.number]
        if not self.conditional:
            row.state, row.attempt = seen.state, seen.attempt
        after, _ = target(OrderState(seen.state), event)
        if (row.state, row.attempt) != (seen.state, seen.attempt):
            return False
        changes |= bookkeeping(seen, after, now, "")
        for name, value in changes.items():
            setattr(row, name, value)
        row.journal.append((event, row.state, after, row.attempt))
        row.state = after
        return True

    def apply(self, number: int, report: OrderReport, now: datetime) -> None:
        """Book the venue's word on the row as it is now, as ``fills.apply_report`` does."""
        row = self.rows[number]
        new = {
            fill.trade_id: fill.quantity for fill in report.fills if fill.trade_id not in row.fills
        }
        row.fills |= new
        event = decisions.of_report(report, row.filled, WHOLE)
        is_half = decisions.is_half(report, row.filled)
        news = decisions.news(row, event, len(new), is_half=is_half)
        hidden = decisions.hides_fills(report, row.filled)
        since = decisions.hidden_since(row, now, len(new)) if hidden else None
        row.unanswered_since = None
        if news is None:
            row.looks, row.unknown_since = 0, since
            return
        self.move(
            self.read(number),
            news,
            now,
            broker_order_id=report.broker_order_id or row.broker_order_id,
            unknown_since=since,
            looks=0,
            next_check_at=now,
        )

    def note_silence(self, seen: Row, now: datetime, **changes: Any) -> None:
        """Note that the venue has not answered, unless the row was moved since ``seen`` was read."""
        row = self.rows[seen.number]
        if row.state == seen.state:
            changes |= {"unanswered_since": decisions.silent_since(seen, now)}
            for name, value in changes.items():
                setattr(row, name, value)

    def count_look(self, seen: Row, **changes: Any) -> bool:
        """Note a look unless another has been noted since ``seen`` was read."""
        row = self.rows[seen.number]
        if (row.state, row.attempt, row.looks) != (seen.state, seen.attempt, seen.looks):
            return False
        row.looks += 1
        row.unanswered_since = None
        for name, value in changes.items():
            setattr(row, name, value)
        return True
