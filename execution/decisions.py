"""What an order and a piece of evidence come to: an event, or nothing yet.

Pure functions, without database, clock or venue. The steps gather the evidence and book the event;
the simulation in ``tests/simulation`` runs the same functions against a lying venue.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Protocol

from brokers.types import ExecutionResult, OrderReport, Outcome, VenueStatus
from execution.states import TERMINAL, OrderState
from execution.transitions import Event, reported_state, target

LOOKS_NEEDED = 2
"""Answers "no such order", a settle window apart, that prove it."""
GIVE_UP_AFTER = timedelta(minutes=5)
MAX_ATTEMPTS = 3

_REPORTED: dict[VenueStatus, Event] = {
    VenueStatus.OPEN: Event.ACKNOWLEDGE,
    VenueStatus.PARTIALLY_FILLED: Event.FILL_PARTLY,
    VenueStatus.FILLED: Event.FILL,
    VenueStatus.CANCELED: Event.CANCEL,
    VenueStatus.EXPIRED: Event.EXPIRE,
    VenueStatus.REJECTED: Event.REJECT,
}


class Case(Protocol):
    """What the decisions need to know of an order."""

    @property
    def state(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def looks(self) -> int: ...
    @property
    def settle_at(self) -> datetime | None: ...
    @property
    def unknown_since(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def broker_order_id(self) -> str: ...


class Look(Enum):
    """What the answer "no such order" is worth."""

    TOO_EARLY = "too early"
    COUNTS = "counts"
    PROVES = "proves"


def of_placement(result: ExecutionResult) -> Event:
    """The end of a placement that came without a report."""
    match result.outcome:
        case Outcome.ACCEPTED:
            return Event.ACKNOWLEDGE
        case Outcome.REJECTED:
            return Event.REJECT
        case Outcome.NOT_SENT:
            return Event.DROP_UNSENT if result.retry_after is None else Event.RETURN_UNSENT
        case Outcome.UNKNOWN:
            return Event.LOSE_SIGHT


def of_report(report: OrderReport, filled: Decimal, quantity: Decimal) -> Event:
    """The venue's word, given the fills on record: an end is believed once they are all here."""
    claimed = report.filled_quantity
    incomplete = filled < claimed or (report.status is VenueStatus.FILLED and not filled)
    working = report.status in (VenueStatus.OPEN, VenueStatus.PARTIALLY_FILLED)
    if not incomplete and not working:
        return _REPORTED[report.status]
    if not incomplete and filled >= quantity:
        return Event.FILL
    return Event.FILL_PARTLY if filled else Event.ACKNOWLEDGE


def news(case: Case, event: Event, new_fills: int) -> Event | None:
    """The event to book for the venue's word ``event``; ``None`` when it changes nothing.

    A terminal state the venue itself confirmed is not reopened by an older report; new fills count.
    Raises IllegalMove when the word contradicts what is known for sure.
    """
    state = OrderState(case.state)
    if state not in TERMINAL:
        return event if new_fills or target(state, event)[0] != state else None
    reopens = event in (Event.ACKNOWLEDGE, Event.FILL_PARTLY)
    if reported_state(event) == state or (reopens and case.broker_order_id):
        return Event.LATE_FILL if new_fills else None
    return event


def of_silence(case: Case, now: datetime) -> Event | None:
    """A question without an answer: nothing, until that has lasted too long."""
    since = case.unknown_since
    lasting = since is not None and now - since > GIVE_UP_AFTER
    return Event.GIVE_UP if case.state == OrderState.UNKNOWN and lasting else None


def look(case: Case, asked_at: datetime) -> Look:
    """What "no such order" says of an unresolved order: nothing if asked before it had settled."""
    if case.settle_at is not None and asked_at < case.settle_at:
        return Look.TOO_EARLY
    return Look.PROVES if case.looks + 1 >= LOOKS_NEEDED else Look.COUNTS


def of_absence(case: Case, now: datetime) -> Event:
    """Proven absent: sent again while it is fresh, else it ends, named."""
    fresh = case.expires_at is None or case.expires_at > now
    if case.state == OrderState.UNKNOWN and fresh and case.attempt < MAX_ATTEMPTS:
        return Event.SEND_AGAIN
    return Event.PROVE_ABSENT


def of_vanishing(case: Case) -> Event | None:
    """Acknowledged once, and now the venue knows nothing of it: no state of ours explains that."""
    return Event.GIVE_UP if case.looks + 1 > LOOKS_NEEDED * 2 else None
