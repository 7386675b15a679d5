"""Approval mode: orders of a strategy that asks for it wait for a person before they may be sent.

Such an order is decided like any other and keeps its reservation, but stands in no lane. One person's
word moves it: to ``approved``, whereupon ``releasing`` judges it anew and lets it into its lane; or to
its end. Nobody's word in time ends it too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from execution.models import Order, Signal, Strategy
from execution.states import OrderState
from execution.transitions import Event, move
from execution.watching import OWN_ALERT
from risk import audit
from risk.models import AuditEvent
from risk.types import ReasonCode

RIGHT = "execution.approve_order"
REQUESTED = "order.requested"
"""The audit event of an order somebody placed by hand."""
LET_IN = "quarantine.accepted"
"""The audit event of an alert somebody took out of quarantine."""


class NotDecided(Exception):
    """An order that cannot be decided on so; ``code`` and the message say why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def is_wanted(signal: Signal, *, is_exit: bool) -> bool:
    """Whether an order of ``signal`` has to wait. Targets and stops FKS watches never do: who
    approved the entry agreed to them.
    """
    strategy = signal.strategy
    if not strategy.needs_approval or signal.auth == OWN_ALERT:
        return False
    return strategy.exits_need_approval or not is_exit


def deadline(order: Order, strategy: Strategy) -> datetime:
    """Until when ``order`` waits: an entry no longer than it may be sent at all."""
    end = order.created_at + timedelta(seconds=strategy.approval_seconds)
    return end if order.expires_at is None else min(end, order.expires_at)


def approve(order: Order, user: User, note: str) -> None:
    """Let a worker judge ``order`` anew and send it. Raises NotDecided; of two persons one wins."""
    _decide(order, user, Event.APPROVE, note)


def reject(order: Order, user: User, note: str) -> None:
    """End ``order`` as DENIED with APPROVAL_REJECTED. Raises NotDecided; of two persons one wins."""
    _decide(order, user, Event.DENY, note, reason=ReasonCode.APPROVAL_REJECTED.value)


def _decide(order: Order, user: User, event: Event, note: str, **changes: Any) -> None:
    verb = "approved" if event is Event.APPROVE else "rejected"
    who = user.get_username()
    _refuse(order, user)
    with transaction.atomic():
        detail = f"{verb} by {who}" + (f": {note}" if note else "")
        if not move(order, event, detail=detail, **changes):
            raise _taken(order)
        _record(order, f"order.{verb}", note)


def _refuse(order: Order, user: User) -> None:
    if order.state != OrderState.AWAITING_APPROVAL:
        raise _taken(order)
    if order.approve_by is None or order.approve_by <= timezone.now():
        raise NotDecided("APPROVAL_EXPIRED", "nobody approved it in time")
    if _is_of(order, user):
        raise NotDecided("OWN_ORDER", "nobody decides on the order they placed")


def _is_of(order: Order, user: User) -> bool:
    """Whether ``user`` placed the order by hand, or posted its alert with a token of theirs. Of one
    that was in quarantine nobody knows whose token it came with: it is of who let it in.
    """
    signal = order.signal
    if signal and signal.alert.get("posted_by") == str(user.pk):
        return True
    theirs = Q(kind=REQUESTED)
    if signal and signal.strategy.auth == Strategy.Auth.JWT:
        theirs |= Q(kind=LET_IN, after__is_duplicate=False)
    said = AuditEvent.objects.filter(theirs, correlation_id=str(order.signal_id))
    return said.filter(actor=user.get_username()).exists()


def _taken(order: Order) -> NotDecided:
    return NotDecided("NOT_WAITING", f"it waits no longer: {order.get_state_display()}")


def expire() -> list[Order]:
    """End what nobody decided on in time."""
    late = Order.objects.filter(
        state=OrderState.AWAITING_APPROVAL, approve_by__lte=timezone.now()
    ).select_related("account", "strategy")
    return [order for order in late.order_by("approve_by") if _expired(order)]


def _expired(order: Order) -> bool:
    detail, code = "nobody approved it in time", ReasonCode.APPROVAL_EXPIRED.value
    with transaction.atomic():
        won = move(order, Event.EXPIRE_UNSENT, detail=detail, reason=code)
        if won:
            _record(order, "order.approval_expired", detail)
    return won


def _record(order: Order, kind: str, reason: str) -> None:
    audit.record(
        kind,
        f"order {order.pk}",
        before={"state": OrderState.AWAITING_APPROVAL.value},
        after={"state": str(order.state), "order": str(order)},
        reason=reason,
        correlation_id=str(order.signal_id or ""),
    )


def approved() -> list[UUID]:
    """Orders a person has agreed to that no worker has let go yet."""
    rows = Order.objects.filter(state=OrderState.APPROVED).order_by("id")
    return list(rows.values_list("pk", flat=True))
