"""Sending orders: claim one of a lane, place it, book the outcome.

A lane is an (account, symbol). The partial unique index ``one_submission_per_lane`` lets one of its
orders be SUBMITTING at a time, across all workers: claiming is the lock, and a dead worker holds it
no longer than the lease.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Case, IntegerField, Value, When
from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.capabilities import Capabilities
from brokers.errors import BrokerError
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import CancelResult, Environment, ExecutionResult, OrderRef, Outcome
from execution import facts, fills, metrics
from execution.models import Order
from execution.orders import request_of
from execution.states import UNRESOLVED, OrderState
from execution.transitions import Event, move
from risk import breakers, switch
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

LEASE_SLACK = timedelta(seconds=3)
RETRY_SECONDS = 2
MAX_UNDER_WAY = 8
_EXITS_FIRST = Case(
    When(role=Order.Role.EXIT, then=Value(0)),
    When(role=Order.Role.STOP_LOSS, then=Value(1)),
    default=Value(2),
    output_field=IntegerField(),
)


class LaneTaken(Exception):
    """Another worker was faster: nothing of this claim may stand."""


def run_lane(account_id: int, symbol: str) -> list[Order]:
    """Send what the lane holds, one after the other; returns the orders that were handled.

    Stops when nothing may be sent now: the lane is empty, taken by another worker, pausing, blocked
    by an order whose outcome is unknown, its breaker is open, or the account has not been reconciled
    since the start.
    """
    handled = _end_expired(account_id, symbol)
    while _next(account_id, symbol) is not None:
        account = Account.objects.get(pk=account_id)
        if account.reconciled_at is None:
            break
        order = claim_next(account, symbol)
        if order is None:
            break
        if order.state == OrderState.SUBMITTING:
            place(order, account)
        handled.append(order)
    return handled


def _end_expired(account_id: int, symbol: str) -> list[Order]:
    """End what has become too old to be sent, also behind an open breaker or a blocked lane."""
    expired = Order.objects.filter(
        account_id=account_id,
        symbol=symbol,
        state=OrderState.PENDING,
        expires_at__lt=timezone.now(),
    )
    return [order for order in expired.order_by("id") if _end_unsent(order, _too_old())]


def _next(account_id: int, symbol: str) -> Order | None:
    """The order the lane sends next; ``None`` while that one must wait, and all behind it."""
    order: Order | None = _waiting(account_id, symbol).select_related("strategy").first()
    if order is None or order.next_check_at is None or order.next_check_at <= timezone.now():
        return order
    return None


def _waiting(account_id: int, symbol: str) -> Any:
    """The lane's orders that wait to be sent, in sending order."""
    lane = Order.objects.filter(account_id=account_id, symbol=symbol)
    waiting = lane.filter(state=OrderState.PENDING)
    unresolved = lane.filter(state__in=UNRESOLVED)
    if unresolved.exclude(role=Order.Role.ENTRY).exists():
        # A second exit on top of one that may be filling could turn the position over.
        return waiting.none()
    if unresolved.exists():
        waiting = waiting.exclude(role=Order.Role.ENTRY)
    return waiting.order_by(_EXITS_FIRST, "id")


def claim_next(account: Account, symbol: str) -> Order | None:
    """Take the next order of the lane: SUBMITTING and committed, or ended for a reason of ours.

    ``None`` when there is nothing to take, the breaker is open, or another worker holds the lane.
    """
    capabilities = _capabilities(account)
    try:
        with transaction.atomic():
            switch.fence()
            order = _next(account.pk, symbol)
            if order is None:
                return None
            reason = _reason_not_to_send(order, account)
            if isinstance(capabilities, Refusal):
                reason = reason or capabilities
            if reason is not None:
                return order if _end_unsent(order, reason) else None
            if isinstance(capabilities, Refusal) or _is_crowded(account.pk):
                return None
            if not breakers.admits(account.pk):
                return None
            _claim(order, capabilities)
            return order
    except (IntegrityError, LaneTaken):
        return None


def _is_crowded(account_id: int) -> bool:
    """Whether the account has its share of placements under way: a venue that hangs must not hold
    every thread of the workers. Claims of one moment may pass together; a few more do no harm."""
    under_way = Order.objects.filter(account_id=account_id, state=OrderState.SUBMITTING)
    return under_way.count() >= MAX_UNDER_WAY


def _capabilities(account: Account) -> Capabilities | Refusal:
    """What the account's venue can do, or why nothing can be sent there."""
    try:
        return plugin_for(account).capabilities
    except BrokerError as error:
        return facts.refusal_of(error)


def _too_old() -> Refusal:
    return Refusal(
        ReasonCode.EXPIRED_BEFORE_SENDING, "the alert became too old before it could be sent"
    )


def _reason_not_to_send(order: Order, account: Account) -> Refusal | None:
    if order.expires_at is not None and order.expires_at < timezone.now():
        return _too_old()
    if not account.is_active:
        return Refusal(ReasonCode.ACCOUNT_INACTIVE, f"the account {account.name} is switched off")
    if account.environment == Environment.LIVE and not settings.FKS_LIVE_TRADING:
        return Refusal(ReasonCode.LIVE_TRADING_OFF, "FKS_LIVE_TRADING is off")
    if order.role == Order.Role.STOP_LOSS:
        # A halt must not leave positions without the stop they were opened with.
        return None
    try:
        switch.refuse_if_switched_off(
            account=account.name,
            strategy=order.strategy.slug if order.strategy else "",
            is_exit=order.is_exit,
        )
    except Refusal as refusal:
        return refusal
    return None


def _end_unsent(order: Order, reason: Refusal) -> bool:
    expired = reason.code is ReasonCode.EXPIRED_BEFORE_SENDING
    event = Event.EXPIRE_UNSENT if expired else Event.DENY
    code = order.reason if expired and order.reason else reason.code.value
    return move(
        order,
        event,
        detail=reason.detail,
        evidence=dict(reason.numbers),
        reason=code,
    )


def _claim(order: Order, capabilities: Capabilities) -> None:
    """Take the lane for ``order``. Raises IntegrityError or LaneTaken when another worker has it."""
    now = timezone.now()
    won = move(
        order,
        Event.CLAIM,
        attempt=order.attempt + 1,
        lease_until=now + timedelta(seconds=capabilities.submit_timeout) + LEASE_SLACK,
        submitted_at=now,
        settle_at=now + timedelta(seconds=capabilities.settle_window),
        next_check_at=None,
        looks=0,
    )
    # What held the lane until this moment may have ended UNKNOWN, and then it blocks this order.
    if not won or _is_blocked(order):
        raise LaneTaken


def _is_blocked(order: Order) -> bool:
    unresolved = Order.objects.filter(
        account_id=order.account_id, symbol=order.symbol, state__in=UNRESOLVED
    )
    if order.is_exit:
        unresolved = unresolved.exclude(role=Order.Role.ENTRY)
    return unresolved.exists()


def place(order: Order, account: Account) -> None:
    """Send a claimed order and book how it went."""
    sent_at = timezone.now()
    try:
        plugin = plugin_for(account)
        result = plugin.execute_order(request_of(order))
    except Exception as error:
        # The boundary to foreign code: whatever went wrong, the order may be at the venue.
        logger.exception("placing an order raised", extra={"order_id": order.pk})
        result = ExecutionResult(Outcome.UNKNOWN, code="PLUGIN_ERROR", detail=repr(error)[:500])
    metrics.stage_seconds["ack"].observe((timezone.now() - sent_at).total_seconds())
    metrics.stage_seconds["submit"].observe((sent_at - order.created_at).total_seconds())
    metrics.order_executions.labels(account.venue, result.outcome.value).inc()
    book(order, result)


def book(order: Order, result: ExecutionResult) -> None:
    """Book the outcome of a placement; the breaker learns whether the venue worked."""
    match result.outcome:
        case Outcome.ACCEPTED:
            breakers.succeeded(order.account_id)
            _book_accepted(order, result)
        case Outcome.REJECTED:
            breakers.succeeded(order.account_id)
            move(
                order,
                Event.REJECT,
                detail=result.detail,
                evidence=_evidence(result),
                reason=result.code or ReasonCode.VENUE_REJECTED.value,
                broker_order_id=result.broker_order_id,
            )
        case Outcome.NOT_SENT:
            _book_not_sent(order, result)
        case Outcome.UNKNOWN:
            breakers.failed(order.account_id, result.detail or result.code)
            move(
                order,
                Event.LOSE_SIGHT,
                detail=result.detail,
                evidence=_evidence(result),
                next_check_at=timezone.now() + timedelta(seconds=1),
                reason=result.code,
            )


def _book_accepted(order: Order, result: ExecutionResult) -> None:
    now = timezone.now()
    if result.report is not None:
        fills.apply_report(
            order, result.report, source="answer to the placement", evidence=_evidence(result)
        )
        order.refresh_from_db()
        return
    move(
        order,
        Event.ACKNOWLEDGE,
        detail="the venue accepted it",
        evidence=_evidence(result),
        broker_order_id=result.broker_order_id,
        acknowledged_at=now,
        next_check_at=now + timedelta(seconds=0.1),
    )


def _book_not_sent(order: Order, result: ExecutionResult) -> None:
    """Proven not to be at the venue: back in the lane after a pause, or ended if trying is
    pointless.
    """
    code = result.code or ReasonCode.NOT_PLACED.value
    if result.retry_after is None:
        move(
            order,
            Event.DROP_UNSENT,
            detail=result.detail,
            evidence=_evidence(result),
            reason=code,
        )
        return
    breakers.failed(order.account_id, result.detail or code)
    pause = timedelta(seconds=max(result.retry_after, RETRY_SECONDS))
    move(
        order,
        Event.RETURN_UNSENT,
        detail=result.detail,
        evidence=_evidence(result),
        reason=code,
        next_check_at=timezone.now() + pause,
    )


def _evidence(result: ExecutionResult | CancelResult) -> Mapping[str, Any]:
    return {**result.evidence, "outcome": result.outcome.value, "code": result.code}


def ref_of(order: Order) -> OrderRef:
    return OrderRef(order.identity, order.symbol, order.broker_order_id, order.submitted_at)


def cancel(order: Order, *, reason: ReasonCode, detail: str) -> None:
    """Cancel ``order``: at once while it is unsent, else by asking the venue.

    The venue's answer proves nothing by itself: the order stays CANCELING until it is read back.
    """
    if order.state == OrderState.PENDING and move(
        order, Event.CANCEL_UNSENT, detail=detail, reason=reason.value
    ):
        return
    if order.state in (OrderState.OPEN, OrderState.PARTIALLY_FILLED):
        move(order, Event.REQUEST_CANCEL, detail=detail, reason=reason.value)
    if order.state == OrderState.CANCELING:
        send_cancel(order)


def send_cancel(order: Order) -> None:
    """Ask the venue to cancel a CANCELING order; may be repeated until the venue has complied."""
    account = order.account
    soon = timezone.now() + timedelta(seconds=0.2)
    try:
        plugin: ExecutionPlugin = plugin_for(account)
        result = plugin.cancel_order(ref_of(order))
    except BrokerError as error:
        result = CancelResult(Outcome.NOT_SENT, code=error.code, detail=str(error))
    except Exception as error:
        # The boundary to foreign code, as in ``place``.
        logger.exception("cancelling an order raised", extra={"order_id": order.pk})
        result = CancelResult(Outcome.UNKNOWN, code="PLUGIN_ERROR", detail=repr(error)[:500])
    Order.objects.filter(pk=order.pk, state=OrderState.CANCELING).update(next_check_at=soon)
    order.journal.create(
        at=timezone.now(),
        event="cancel_sent",
        from_state=order.state,
        to_state=order.state,
        attempt=order.attempt,
        actor="system",
        detail=result.detail or result.outcome.value,
        evidence=dict(_evidence(result)),
    )


def lease_ended_before(moment: datetime) -> list[Order]:
    """Orders whose worker has not answered within its lease: it died, or hangs beyond reason."""
    return list(Order.objects.filter(state=OrderState.SUBMITTING, lease_until__lt=moment)[:200])


def lose_sight(order: Order) -> None:
    """A placement whose worker vanished: it may be at the venue."""
    move(
        order,
        Event.LOSE_SIGHT,
        detail="the worker that sent it did not answer within its lease",
        reason=ReasonCode.VENUE_UNREACHABLE.value,
        next_check_at=timezone.now(),
    )
