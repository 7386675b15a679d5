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
from execution.states import AT_VENUE, TERMINAL, OrderState
from execution.transitions import Event, reported_state, target

LOOKS_NEEDED = 2
"""Answers "no such order", a settle window apart, that prove it."""
GIVE_UP_AFTER = timedelta(minutes=5)
NOBODY_ASKED = timedelta(minutes=1)
"""A question overdue for longer had nobody to put it; on a busy machine it may well be late."""
MAX_ATTEMPTS = 3
LINGERS = timedelta(seconds=30)
"""A venue shows an order that has ended no longer than this as one that works."""

_REPORTED: dict[VenueStatus, Event] = {
    VenueStatus.OPEN: Event.ACKNOWLEDGE,
    VenueStatus.PARTIALLY_FILLED: Event.FILL_PARTLY,
    VenueStatus.FILLED: Event.FILL,
    VenueStatus.CANCELED: Event.CANCEL,
    VenueStatus.EXPIRED: Event.EXPIRE,
    VenueStatus.REJECTED: Event.REJECT,
}
_WORKING = (VenueStatus.OPEN, VenueStatus.PARTIALLY_FILLED)


class Case(Protocol):
    """What the decisions need to know of an order."""

    @property
    def state(self) -> str: ...
    @property
    def looks(self) -> int: ...
    @property
    def settle_at(self) -> datetime | None: ...
    @property
    def unknown_since(self) -> datetime | None: ...
    @property
    def unanswered_since(self) -> datetime | None: ...
    @property
    def next_check_at(self) -> datetime | None: ...
    @property
    def is_immediate(self) -> bool: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def finished_at(self) -> datetime | None: ...
    @property
    def broker_order_id(self) -> str: ...


class Look(Enum):
    """What the answer "no such order" is worth."""

    TOO_EARLY = "too early"
    COUNTS = "counts"
    PROVES = "proves"


def of_refusal(sendings: int) -> Event:
    """Not to be sent any more. Denied is for good: not after ``sendings``, which may yet turn up,
    whatever was told of them. A terminal may act on an order it seemed never to take.
    """
    return Event.DROP_UNSENT if sendings else Event.DENY


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


def hides_fills(report: OrderReport, filled: Decimal) -> bool:
    """Whether the venue speaks of more than it has shown trades for, given the fills on record."""
    return filled < report.filled_quantity or (report.status is VenueStatus.FILLED and not filled)


def is_half(report: OrderReport, filled: Decimal) -> bool:
    """Whether the venue says that the order has ended, and not by which trades."""
    return report.status not in _WORKING and hides_fills(report, filled)


def of_report(report: OrderReport, filled: Decimal, quantity: Decimal) -> Event:
    """The venue's word, given the fills on record: an end is believed once they are all here."""
    incomplete = hides_fills(report, filled)
    if not incomplete and report.status not in _WORKING:
        return _REPORTED[report.status]
    if not incomplete and filled >= quantity:
        return Event.FILL
    return Event.FILL_PARTLY if filled else Event.ACKNOWLEDGE


def news(
    case: Case, event: Event, new_fills: int, *, is_half: bool = False, is_newer: bool = False
) -> Event | None:
    """The event to book for the venue's word ``event``; ``None`` when it changes nothing.

    A terminal state of an order the venue knew is not reopened by an older report, only by one that
    surely ``is_newer``; new fills count.
    An end told by half (``is_half``: without its fills) does not take an order from its operator.
    Raises IllegalMove when the word contradicts what is known for sure.
    """
    state = OrderState(case.state)
    if state is OrderState.NEEDS_OPERATOR and is_half and not new_fills:
        return None
    if state not in TERMINAL:
        return event if new_fills or target(state, event)[0] != state else None
    reopens = event in (Event.ACKNOWLEDGE, Event.FILL_PARTLY)
    is_old_news = reopens and bool(case.broker_order_id) and not is_newer
    if reported_state(event) == state or is_old_news:
        return Event.LATE_FILL if new_fills else None
    return event


def is_newer(case: Case, asked_at: datetime | None) -> bool:
    """Whether the answer to a question asked at ``asked_at`` is newer than the order's end: a venue's
    list may still show what has just ended."""
    if asked_at is None or case.finished_at is None:
        return False
    return asked_at - case.finished_at > LINGERS


def hidden_since(case: Case, now: datetime, new_fills: int) -> datetime:
    """Since when the venue has hidden fills of an order, if it does ``now``: while it shows further
    ones, it is only slow.
    """
    if new_fills:
        return now
    was_asked = case.state in AT_VENUE | {OrderState.NEEDS_OPERATOR}
    return (case.unknown_since if was_asked else None) or now


def of_half(case: Case, report: OrderReport, now: datetime) -> Event | None:
    """An end without its fills: nothing, until that has lasted too long."""
    has_ended = report.status not in _WORKING
    lasting = has_ended and _lasts(case.unknown_since, now)
    return Event.GIVE_UP if case.state in AT_VENUE and lasting else None


def of_silence(case: Case, now: datetime, compared_at: datetime | None = None) -> Event | None:
    """A question without an answer: nothing, until that has lasted too long.

    One the venue has acknowledged is still where it was, as far as anybody knows, and what waits for
    it would be decided by less than that: it keeps its state while the venue is away. Where the venue
    has answered everything else since, at ``compared_at``, a person has to find out about an order
    that should have ended long ago; one that rests is left to rest.
    """
    since = silent_since(case, now)
    if not _lasts(since, now):
        return None
    if case.state == OrderState.UNKNOWN:
        return Event.GIVE_UP
    ends = case.state == OrderState.CANCELING or (case.state in AT_VENUE and case.is_immediate)
    is_alone = compared_at is not None and compared_at > since
    return Event.GIVE_UP if ends and is_alone else None


def silent_since(case: Case, now: datetime) -> datetime:
    """Since when the venue has not answered about an order, if it does not ``now``. Time in which
    nobody asked, because the machine slept or FKS was down, is no silence; one that began in the
    future, before the clock was set back, begins now.
    """
    since, due_at = case.unanswered_since, case.next_check_at
    if since is None or since > now:
        return now
    missed = now - (due_at or now)
    return since + missed if missed > NOBODY_ASKED else since


def _lasts(since: datetime | None, now: datetime) -> bool:
    return since is not None and now - since > GIVE_UP_AFTER


def look(case: Case, asked_at: datetime) -> Look:
    """What "no such order" says of an unresolved order: nothing if asked before it had settled."""
    if case.settle_at is not None and asked_at < case.settle_at:
        return Look.TOO_EARLY
    return Look.PROVES if case.looks + 1 >= LOOKS_NEEDED else Look.COUNTS


def of_absence(case: Case, now: datetime, lost: int) -> Event:
    """Proven absent: sent again while it is fresh and not ``lost`` too often, else it ends, named."""
    fresh = case.expires_at is None or case.expires_at > now
    if case.state == OrderState.UNKNOWN and fresh and lost < MAX_ATTEMPTS:
        return Event.SEND_AGAIN
    return Event.PROVE_ABSENT


def of_vanishing(case: Case) -> Event | None:
    """Acknowledged once, and now the venue knows nothing of it: no state of ours explains that."""
    return Event.GIVE_UP if case.looks + 1 > LOOKS_NEEDED * 2 else None
