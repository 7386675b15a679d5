"""The order state machine: one table, and ``move``, the only way a state changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from django.db import transaction
from django.utils import timezone

from brokers.prepared_writes import change
from execution import news
from execution.models import Order, OrderEvent
from execution.states import HELD, TERMINAL, UNRESOLVED, UNSENT, OrderState
from risk import audit

logger = logging.getLogger(__name__)


class Event(StrEnum):
    """What happened to an order."""

    # ours, before a byte has left
    APPROVE = "approve"
    RELEASE = "release"
    SLICE = "slice"
    DENY = "deny"
    EXPIRE_UNSENT = "expire_unsent"
    CANCEL_UNSENT = "cancel_unsent"
    CLAIM = "claim"
    # the end of a placement
    ACKNOWLEDGE = "acknowledge"
    REJECT = "reject"
    RETURN_UNSENT = "return_unsent"
    DROP_UNSENT = "drop_unsent"
    LOSE_SIGHT = "lose_sight"
    # what the venue reports later
    FILL_PARTLY = "fill_partly"
    FILL = "fill"
    REQUEST_CANCEL = "request_cancel"
    CANCEL = "cancel"
    EXPIRE = "expire"
    LATE_FILL = "late_fill"
    # looking for an order whose outcome is unknown
    PROVE_ABSENT = "prove_absent"
    SEND_AGAIN = "send_again"
    GIVE_UP = "give_up"


_S, _E = OrderState, Event

_REPORTED: dict[Event, OrderState] = {
    _E.ACKNOWLEDGE: _S.OPEN,
    _E.FILL_PARTLY: _S.PARTIALLY_FILLED,
    _E.FILL: _S.FILLED,
    _E.CANCEL: _S.CANCELED,
    _E.EXPIRE: _S.EXPIRED,
    _E.REJECT: _S.REJECTED,
}
"""Where a venue's word leads, from any state in which the order may be at the venue."""

TABLE: dict[tuple[OrderState, Event], OrderState] = {
    (_S.AWAITING_APPROVAL, _E.APPROVE): _S.APPROVED,
    (_S.APPROVED, _E.RELEASE): _S.PENDING,
    (_S.APPROVED, _E.SLICE): _S.SLICING,
    # What its slices came to; it is at no venue itself.
    (_S.SLICING, _E.FILL_PARTLY): _S.SLICING,
    (_S.SLICING, _E.FILL): _S.FILLED,
    (_S.SLICING, _E.CANCEL): _S.CANCELED,
    (_S.SLICING, _E.EXPIRE): _S.EXPIRED,
    (_S.SLICING, _E.REJECT): _S.REJECTED,
    (_S.PENDING, _E.DROP_UNSENT): _S.NOT_PLACED,
    (_S.PENDING, _E.CLAIM): _S.SUBMITTING,
    (_S.SUBMITTING, _E.RETURN_UNSENT): _S.PENDING,
    (_S.SUBMITTING, _E.DROP_UNSENT): _S.NOT_PLACED,
    (_S.SUBMITTING, _E.LOSE_SIGHT): _S.UNKNOWN,
    (_S.UNKNOWN, _E.PROVE_ABSENT): _S.NOT_PLACED,
    (_S.UNKNOWN, _E.SEND_AGAIN): _S.PENDING,
    (_S.UNKNOWN, _E.GIVE_UP): _S.NEEDS_OPERATOR,
    (_S.NEEDS_OPERATOR, _E.PROVE_ABSENT): _S.NOT_PLACED,
    (_S.OPEN, _E.REQUEST_CANCEL): _S.CANCELING,
    (_S.PARTIALLY_FILLED, _E.REQUEST_CANCEL): _S.CANCELING,
    (_S.OPEN, _E.GIVE_UP): _S.NEEDS_OPERATOR,
    (_S.PARTIALLY_FILLED, _E.GIVE_UP): _S.NEEDS_OPERATOR,
    (_S.CANCELING, _E.GIVE_UP): _S.NEEDS_OPERATOR,
}
for _state in UNSENT:
    TABLE |= {
        (_state, _E.DENY): _S.DENIED,
        (_state, _E.EXPIRE_UNSENT): _S.EXPIRED,
        (_state, _E.CANCEL_UNSENT): _S.CANCELED,
    }
for _state in HELD:
    # After a restore: it may have been approved and sent since the backup.
    TABLE |= {(_state, _E.LOSE_SIGHT): _S.UNKNOWN}
for _state in (_S.SUBMITTING, _S.UNKNOWN, _S.NEEDS_OPERATOR, _S.OPEN, _S.PARTIALLY_FILLED):
    TABLE |= {(_state, event): target for event, target in _REPORTED.items()}
# An order about to be sent again may turn up after all: then it must not go out a second time.
TABLE |= {(_S.PENDING, event): target for event, target in _REPORTED.items()}
# A cancel under way stays one until the venue says how the order ended.
TABLE |= {(_S.CANCELING, event): target for event, target in _REPORTED.items()}
TABLE |= {
    (_S.CANCELING, _E.ACKNOWLEDGE): _S.CANCELING,
    (_S.CANCELING, _E.FILL_PARTLY): _S.CANCELING,
    # Once something traded, "open" is old news.
    (_S.PARTIALLY_FILLED, _E.ACKNOWLEDGE): _S.PARTIALLY_FILLED,
}

_CORRECTIONS: dict[tuple[OrderState, Event], OrderState] = {
    (state, event): target
    for state in TERMINAL - {_S.DENIED}
    for event, target in _REPORTED.items()
    if target is not state
} | {(state, _E.LATE_FILL): state for state in TERMINAL - {_S.DENIED}}
"""A venue's word after a terminal state: the venue wins, and an operator is told."""


_AS_PLANNED = frozenset({_S.SUBMITTING, _S.OPEN, _S.PARTIALLY_FILLED, _S.FILLED})
"""States that need no reason: one from an earlier doubt or an overtaken cancel would mislead."""


class IllegalMove(Exception):
    """The table has no such move: a defect in the caller, never a venue's doing."""


def target(state: OrderState, event: Event) -> tuple[OrderState, bool]:
    """Where ``event`` leads from ``state``, and whether that corrects a terminal state.

    Raises IllegalMove.
    """
    if (state, event) in TABLE:
        return TABLE[state, event], False
    if (state, event) in _CORRECTIONS:
        return _CORRECTIONS[state, event], True
    raise IllegalMove(f"{event.value} is not possible from {state.value}")


def reported_state(event: Event) -> OrderState | None:
    """The state a venue's word stands for."""
    return _REPORTED.get(event)


def move(
    order: Order,
    event: Event,
    *,
    detail: str = "",
    evidence: Mapping[str, Any] | None = None,
    **changes: Any,
) -> bool:
    """Move ``order`` by ``event`` and journal it, in one transaction.

    The UPDATE is conditional on the state and attempt ``order`` was read in: of two racing callers
    one wins, and its line of the journal is written by the same statement. Returns False, and
    refreshes ``order``, when it lost; the caller then decides from the truth. ``changes`` are further
    columns of the same UPDATE; ``detail`` stays on the row as well where there is something to explain.
    """
    before = OrderState(order.state)
    after, corrects = target(before, event)
    now = timezone.now()
    changes |= bookkeeping(order, after, now, detail)
    with transaction.atomic(savepoint=False):
        line = OrderEvent(
            order=order,
            at=now,
            event=event.value,
            from_state=before,
            to_state=after,
            attempt=changes.get("attempt", order.attempt),
            actor=audit.current_actor().name,
            detail=detail,
            evidence=dict(evidence or {}),
        )
        read_as = {"pk": order.pk, "state": before, "attempt": order.attempt}
        moved = {"state": after, "updated_at": now, **changes}
        if not change(Order, read_as, moved, along=line):
            order.refresh_from_db()
            return False
        if after is not before or event is Event.FILL_PARTLY:
            news.tell(order, after, detail, changes)
        if corrects:
            audit.record(
                "order.corrected",
                f"order {order.pk}",
                before={"state": before.value},
                after={"state": after.value},
                reason=detail,
                correlation_id=str(order.signal_id or ""),
            )
    transaction.on_commit(partial(_tell, order, before, after, event))
    order.state = after
    for name, value in changes.items():
        setattr(order, name, value)
    return True


def _tell(order: Order, before: OrderState, after: OrderState, event: Event) -> None:
    logger.info(
        "order %s → %s (%s)",
        before.value,
        after.value,
        event.value,
        extra={"signal_id": order.signal_id or "", "order_id": order.pk, "symbol": order.symbol},
    )


class Dated(Protocol):
    """What the bookkeeping needs to know of an order."""

    @property
    def finished_at(self) -> datetime | None: ...
    @property
    def unknown_since(self) -> datetime | None: ...


def bookkeeping(order: Dated, after: OrderState, now: datetime, detail: str) -> dict[str, Any]:
    """Columns that follow from the new state alone."""
    columns: dict[str, Any] = {"detail": detail}
    if after in _AS_PLANNED:
        columns = {"reason": "", "detail": ""}
    if after in TERMINAL:
        columns |= {"finished_at": now, "next_check_at": None, "lease_until": None}
    elif order.finished_at is not None:
        columns["finished_at"] = None
    if after is not OrderState.SUBMITTING:
        columns["lease_until"] = None
    if after in UNRESOLVED:
        columns["unknown_since"] = order.unknown_since or now
    return columns
