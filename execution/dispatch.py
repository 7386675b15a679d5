"""Sending orders: claim one of a lane, place it, book the outcome; and asking venues to cancel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.errors import BrokerError
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import CancelResult, ExecutionResult, OrderRef, Outcome, VenueStatus
from execution import decisions, draining, fills, lanes, metrics, standstill, tracing
from execution.judging import request_of
from execution.models import Order
from execution.states import UNSENT, OrderState
from execution.transitions import Event, move
from risk import breakers
from risk.types import ReasonCode

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2
LONGEST_PAUSE = 60
"""Seconds: a venue may ask for days, and what is found out meanwhile is worth another look. Nothing
leaves too early: the limiter keeps to what the venue asked for."""
ENTERED_BEFORE = timedelta(hours=1)
"""Orders submitted earlier than this before another cannot be taken for it."""


def run_lane(account_id: int, symbol: str) -> list[Order]:
    """Send what the lane holds, one after the other; returns the orders that were handled.

    Stops when nothing may be sent now: the lane is empty, taken by another worker, pausing, blocked
    by an order whose outcome is unknown, its breaker is open, the account has not been reconciled
    since the last standstill, or this process was told to stop. What an account that is switched off
    holds ends, whatever it waits for.
    """
    handled: list[Order] = []
    while not draining.has_begun():
        standstill.noticed()
        unsent = lanes.unsent(account_id, symbol)
        if unsent is None:
            break
        if unsent.is_late:
            handled += lanes.end_expired(account_id, symbol)
            continue
        account = unsent.account
        if (off := lanes.switched_off(account)) is not None:
            handled += lanes.end_all(account, symbol, off)
            continue
        if account.reconciled_at is None:
            break
        order = lanes.claim_next(account, symbol)
        if order is None:
            break
        order.account = account
        if order.state == OrderState.SUBMITTING:
            with tracing.step("place", order.signal_id, order=str(order.pk), symbol=symbol):
                place(order, account)
        handled.append(order)
    return handled


def place(order: Order, account: Account) -> None:
    """Send a claimed order and book how it went."""
    sent_at = timezone.now()
    try:
        plugin = plugin_for(account)
        with tracing.step("venue.execute_order", order.signal_id, venue=account.venue):
            result = plugin.execute_order(request_of(order))
    except Exception as error:
        # The boundary to foreign code: whatever went wrong, the order may be at the venue.
        logger.exception("placing an order raised", extra={"order_id": order.pk})
        result = ExecutionResult(Outcome.UNKNOWN, code="PLUGIN_ERROR", detail=repr(error)[:500])
    metrics.stage_seconds["ack"].observe((timezone.now() - sent_at).total_seconds())
    if order.approve_by is None:  # else it measures how long a person took
        metrics.stage_seconds["submit"].observe((sent_at - order.created_at).total_seconds())
    metrics.order_executions.labels(account.venue, result.outcome.value).inc()
    _book(order, account, result)


def _book(order: Order, account: Account, result: ExecutionResult) -> None:
    """Book the outcome of a placement; the breaker learns whether the venue worked."""
    event = decisions.of_placement(result)
    match result.outcome:
        case Outcome.ACCEPTED:
            breakers.succeeded(account)
            _book_accepted(order, result)
        case Outcome.REJECTED:
            breakers.succeeded(account)
            move(
                order,
                event,
                detail=result.detail,
                evidence=_evidence(result),
                reason=result.code or ReasonCode.VENUE_REJECTED.value,
                broker_order_id=result.broker_order_id,
            )
        case Outcome.NOT_SENT:
            _book_not_sent(order, account, result)
        case Outcome.UNKNOWN:
            breakers.failed(account, result.detail or result.code)
            move(
                order,
                event,
                detail=result.detail,
                evidence=_evidence(result),
                next_check_at=timezone.now() + _pause(result, 1),
                reason=result.code,
            )


def _book_accepted(order: Order, result: ExecutionResult) -> None:
    now = timezone.now()
    if result.report is not None:
        fills.apply_report(
            order, result.report, source="answer to the placement", evidence=_evidence(result)
        )
        return
    move(
        order,
        decisions.of_placement(result),
        detail="the venue accepted it",
        evidence=_evidence(result),
        broker_order_id=result.broker_order_id,
        acknowledged_at=now,
        next_check_at=now + timedelta(seconds=0.1),
    )


def _book_not_sent(order: Order, account: Account, result: ExecutionResult) -> None:
    """Proven not to be at the venue: back in the lane after a pause, or ended if trying is
    pointless.
    """
    code, event = result.code or ReasonCode.NOT_PLACED.value, decisions.of_placement(result)
    if result.retry_after is None:
        move(
            order,
            event,
            detail=result.detail,
            evidence=_evidence(result),
            reason=code,
        )
        return
    if not result.held_back:
        breakers.failed(account, result.detail or code)
    move(
        order,
        event,
        detail=result.detail,
        evidence={**_evidence(result), "held_back": result.held_back},
        reason=code,
        next_check_at=timezone.now() + _pause(result, RETRY_SECONDS),
    )


def _pause(result: ExecutionResult, least: float) -> timedelta:
    return timedelta(seconds=min(max(result.retry_after or 0, least), LONGEST_PAUSE))


def _evidence(result: ExecutionResult | CancelResult) -> Mapping[str, Any]:
    return {**result.evidence, "outcome": result.outcome.value, "code": result.code}


def ref_of(order: Order, plugin: ExecutionPlugin) -> OrderRef:
    """How ``plugin`` finds ``order``; among others of ours where the venue keeps no id of ours, and by
    the venue's id alone where an operator found it there.
    """
    if order.is_adopted:
        return OrderRef("", order.symbol, order.broker_order_id, order.submitted_at)
    ref = OrderRef(
        order.identity,
        order.symbol,
        order.broker_order_id,
        order.submitted_at,
        request_of(order),
    )
    if plugin.capabilities.keeps_our_id:
        return ref
    others = Order.objects.filter(account_id=order.account_id).exclude(pk=order.pk)
    if order.submitted_at is not None:
        others = others.filter(submitted_at__gt=order.submitted_at - ENTERED_BEFORE)
    taken = others.exclude(broker_order_id="").values_list("broker_order_id", flat=True)
    return replace(ref, taken=frozenset(taken))


def cancel(order: Order, *, reason: ReasonCode, detail: str) -> None:
    """Cancel ``order``: at once while it is unsent, else by asking the venue.

    The venue's answer proves nothing by itself: the order stays CANCELING until it is read back.
    """
    if order.state in UNSENT and move(
        order, Event.CANCEL_UNSENT, detail=detail, reason=reason.value
    ):
        return
    if order.state in (OrderState.OPEN, OrderState.PARTIALLY_FILLED):
        move(order, Event.REQUEST_CANCEL, detail=detail, reason=reason.value)
    if order.state == OrderState.CANCELING:
        send_cancel(order)


def send_cancel(order: Order, *, shown: VenueStatus | None = None) -> None:
    """Ask the venue to cancel a CANCELING order; may be repeated until the venue has complied.
    ``shown``: as what it has just shown it, which the journal keeps.
    """
    account = order.account
    soon = timezone.now() + timedelta(seconds=0.2)
    try:
        plugin: ExecutionPlugin = plugin_for(account)
        with tracing.step("venue.cancel_order", order.signal_id, venue=account.venue):
            result = plugin.cancel_order(ref_of(order, plugin))
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
        evidence={**_evidence(result), **({"shown": shown.value} if shown else {})},
    )
