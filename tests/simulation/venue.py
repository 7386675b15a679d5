"""A venue that loses requests and answers, accepts late, shows late, repeats and leaves out, but
never shows an order later than its settle window, and never forgets one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum

from brokers.types import (
    ExecutionResult,
    FillReport,
    OrderReport,
    Outcome,
    Side,
    VenueStatus,
)
from tests.simulation.choices import Choices

TIMEOUT_S = 5
SETTLE_S = 15
START = datetime(2026, 1, 1, tzinfo=UTC)
HALF, WHOLE = Decimal(1), Decimal(2)
_WORKING = (VenueStatus.OPEN, VenueStatus.PARTIALLY_FILLED)


class Fate(IntEnum):
    """What becomes of a placement."""

    ANSWERED = 0
    ACKNOWLEDGED_ONLY = 1
    ANSWER_LOST = 2
    REQUEST_LOST = 3
    REFUSED = 4
    LATE = 5
    HELD_BACK = 6
    DROPPED = 7


@dataclass
class Accepted:
    """An order in the venue's ledger. It trades from ``at`` and is shown from ``shown_at``."""

    id: str
    order: int
    at: datetime
    shown_at: datetime
    resting: bool
    status: VenueStatus = VenueStatus.OPEN
    trades: list[FillReport] = field(default_factory=list)

    def trade(self, quantity: Decimal, now: datetime) -> None:
        """Fill ``quantity`` or what is left of the order."""
        quantity = min(quantity, WHOLE - self.filled)
        if self.status not in _WORKING or not quantity:
            return
        name = f"{self.id}-{len(self.trades) + 1}"
        self.trades.append(FillReport(name, quantity, Decimal(100), Decimal(0), "", now))
        done = self.filled == WHOLE
        self.status = VenueStatus.FILLED if done else VenueStatus.PARTIALLY_FILLED

    @property
    def filled(self) -> Decimal:
        return sum((trade.quantity for trade in self.trades), Decimal(0))

    def report(self, fills: tuple[FillReport, ...]) -> OrderReport:
        average = Decimal(100) if self.trades else None
        return OrderReport(
            self.id, f"c{self.order}", "BTC/USDT", Side.BUY, self.status, WHOLE, self.filled,
            average, fills,
        )  # fmt: skip


class Silence(Exception):
    """A question without an answer."""


class Venue:
    """Takes every placement it hears of, as one that does not know client ids; lies by choice."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.truthful = False
        self.ledger: list[Accepted] = []
        self.said: list[str] = []

    def place(self, order: int, now: datetime) -> ExecutionResult:
        """Take the order or not, and answer or not."""
        fate = Fate(self._choose(len(Fate)))
        self.said.append(f"placement of {order}: {fate.name.lower().replace('_', ' ')}")
        if fate is Fate.REQUEST_LOST:
            return ExecutionResult(Outcome.UNKNOWN, code="TIMEOUT")
        if fate is Fate.REFUSED:
            return ExecutionResult(Outcome.REJECTED, code="REFUSED")
        if fate is Fate.HELD_BACK:
            return ExecutionResult(Outcome.NOT_SENT, code="BUSY", retry_after=1)
        if fate is Fate.DROPPED:
            return ExecutionResult(Outcome.NOT_SENT, code="BAD_VALUE")
        late = SETTLE_S - 1 if fate is Fate.LATE else 0
        accepted = self._accept(order, now, late)
        if fate in (Fate.ANSWER_LOST, Fate.LATE):
            return ExecutionResult(Outcome.UNKNOWN, code="TIMEOUT")
        report = self._report(accepted) if fate is Fate.ANSWERED else None
        return ExecutionResult(Outcome.ACCEPTED, accepted.id, report)

    def ask(self, order: int, now: datetime) -> OrderReport | None:
        """The order as it is shown now; ``None`` if it is not. Raises Silence."""
        if self._choose(4) == 3:
            raise Silence
        shown = [row for row in self.ledger if row.order == order and row.shown_at <= now]
        return self._report(shown[0]) if shown else None

    def cancel(self, order: int, now: datetime) -> None:
        """End the working order unless the request is lost."""
        if self._choose(3) == 2:
            return
        for row in self.ledger:
            if row.order == order and row.at <= now and row.status in _WORKING:
                row.status = VenueStatus.CANCELED

    def trade(self, order: int, now: datetime) -> None:
        """Fill half of what rests."""
        for row in self.ledger:
            if row.order == order and row.at <= now:
                row.trade(HALF, now)

    def _accept(self, order: int, now: datetime, late: int) -> Accepted:
        hidden = (0, 1, SETTLE_S)[self._choose(3)]
        at = now + timedelta(seconds=late)
        shown_at = now + timedelta(seconds=min(late + hidden, SETTLE_S))
        resting = self._choose(2) == 1
        row = Accepted(f"v{len(self.ledger) + 1}", order, at, shown_at, resting)
        self.ledger.append(row)
        if not resting:
            row.trade(WHOLE, at)
        return row

    def _report(self, row: Accepted) -> OrderReport:
        """Its state with all its fills, with some left out, or with each twice."""
        fills = tuple(row.trades)
        return row.report((fills, fills[:1], fills[:0], fills + fills)[self._choose(4)])

    def _choose(self, kinds: int) -> int:
        return 0 if self.truthful else self.choices.draw(kinds)
