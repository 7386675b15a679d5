"""What must hold in every story, at every moment or once all is quiet."""

from __future__ import annotations

from execution.states import AT_VENUE, TERMINAL, OrderState
from execution.transitions import Event, IllegalMove, target
from tests.simulation.book import Row
from tests.simulation.venue import WHOLE, Accepted
from tests.simulation.world import World

SENT_AGAIN_AFTER = {Event.SEND_AGAIN, Event.RETURN_UNSENT}
"""The only evidence after which an order may be claimed once more."""
NEVER_THERE = TERMINAL - {OrderState.FILLED}


class Violation(Exception):
    """A promise was broken."""


def always(world: World) -> None:
    """At every moment: nothing twice at the venue, no more filled than ordered. Raises Violation."""
    taken = [row.order for row in world.venue.ledger]
    for row in world.book.rows:
        if taken.count(row.number) > 1:
            raise Violation(f"doubled: the venue took order {row.number} twice")
        if row.filled > WHOLE:
            raise Violation(f"order {row.number} is filled beyond its quantity")


def when_quiet(world: World) -> None:
    """At the end: every order in a named state that is the venue's. Raises Violation."""
    always(world)
    for row in world.book.rows:
        there = [entry for entry in world.venue.ledger if entry.order == row.number]
        _journal(row)
        if row.state == OrderState.DENIED and row.attempt:
            raise Violation(f"order {row.number} was sent, and denied for good")
        if row.state == OrderState.DENIED and there:
            raise Violation(f"order {row.number} is denied, the venue has it")
        if row.state not in TERMINAL | AT_VENUE:
            raise Violation(f"unknown left: order {row.number} is {row.state}")
        if there:
            _agrees(row, there[0])
        elif row.state not in NEVER_THERE or row.filled:
            raise Violation(f"order {row.number} is {row.state}, the venue has none")


def _agrees(row: Row, there: Accepted) -> None:
    if row.broker_order_id != there.id:
        raise Violation(f"lost: order {row.number} is {row.state}, the venue: {there.status}")
    if row.state != there.status.value:
        raise Violation(f"order {row.number} is {row.state}, the venue: {there.status}")
    if row.fills != {trade.trade_id: trade.quantity for trade in there.trades}:
        raise Violation(f"order {row.number} has other fills than the venue has trades")


def _journal(row: Row) -> None:
    """A chain the table allows, in which nothing is claimed again without evidence."""
    state, last = str(OrderState.PENDING), Event.SEND_AGAIN
    for event, before, after, _ in row.journal:
        try:
            legal = before == state and target(OrderState(before), event)[0] == after
        except IllegalMove:
            legal = False
        if not legal or (event is Event.CLAIM and last not in SENT_AGAIN_AFTER):
            raise Violation(f"order {row.number}: {event} from {before} to {after} after {last}")
        state, last = after, event
    if state != row.state:
        raise Violation(f"order {row.number} is {row.state}, its journal ends {state}")
