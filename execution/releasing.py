"""Letting an approved order go: judged anew by today's market, limits and switches, then PENDING.

The order is made once more from its alert, as if the alert came now, and never larger than what was
approved. What the person was not shown (another side, an entry that was an exit) is not sent.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from brokers.models import Account
from execution import amending, clearing, judging, legs, orders, timeliness, under_way
from execution.alerts import Alert
from execution.models import Order, Signal, SlicePlan
from execution.precedence import announce_exit, let_exits_pass
from execution.states import OrderState, SignalState
from execution.transitions import Event, move
from risk.limits import take_turns
from risk.types import ReasonCode, Refusal

_JUDGED = (
    "type",
    "quantity",
    "price",
    "stop_price",
    "attached_stop",
    "attached_client_id",
    "trailing_percent",
    "time_in_force",
    "post_only",
    "reduce_only",
    "reference_price",
    "reserved_value",
    "expires_at",
)
_TOLD = ("verdicts", "sizing")


def release(order: Order) -> tuple[UUID, ...]:
    """Judge an approved ``order`` anew and let it into its lane, or end it with the reason.

    Returns orders that have to be cancelled first; it stays approved meanwhile, while its size depends
    on orders under way, while its stop is kept, and while nobody says what the venue of an exit can
    do. Raises Crowded when the venue holds its share of threads already.
    """
    signal = Signal.objects.select_related("strategy").get(orders=order.pk)
    alert = Alert.from_json(signal.alert)
    if order.is_exit:  # it leaves what the person was shown, whatever its alias means by now
        alert = replace(alert, symbol=order.symbol)
    leg = legs.leg_on(order.account, signal, alert)
    if leg.is_late:
        return ()
    if not order.is_exit:
        let_exits_pass([order.account_id])
    with transaction.atomic():
        if order.is_exit:
            announce_exit([order.account_id])
        take_turns(signal.strategy_id)
        list(Account.objects.select_for_update(no_key=True).filter(pk=order.account_id))
        order.refresh_from_db()
        if order.state != OrderState.APPROVED:
            return ()
        draft = orders.blank(signal, alert, leg, identity=order.id)
        try:
            _refuse_outdated(order, signal, alert)
            if alert.replaces:
                if old := amending.end_old(signal, alert):
                    return old
                alert = amending.rest_of(alert)
            lane = [other for other in under_way.alive_in(leg) if other.pk != order.pk]
            first = clearing.in_the_way(signal, leg, alert, lane, is_agreed=True)
            if first or under_way.must_wait(leg, alert, lane):
                return first.orders
            judging.fill_in(draft, signal, alert, leg, _exited(order, signal), approved=order)
        except Refusal as refusal:
            _end(order, draft, refusal)
            return ()
        _let_go(order, draft, signal, orders.plan_for(draft, alert, leg))
    return ()


def _refuse_outdated(order: Order, signal: Signal, alert: Alert) -> None:
    """An exit stays an exit however long a person took; an entry does not."""
    if order.is_exit:
        timeliness.refuse_disabled(signal)
    else:
        timeliness.refuse_signal(signal, alert)


def _exited(order: Order, signal: Signal) -> Decimal | None:
    """What was closed for a reversal, if ``order`` is its second half."""
    if order.is_exit:
        return None
    halves = legs.own_orders(signal.pk).filter(account_id=order.account_id, reverses=True)
    first = halves.exclude(pk=order.pk).first()
    return None if first is None else orders.closed_since(first)


def _let_go(order: Order, draft: Order, signal: Signal, plan: SlicePlan | None) -> None:
    columns = {name: getattr(draft, name) for name in (*_JUDGED, *_TOLD)}
    if not move(order, Event.SLICE if plan else Event.RELEASE, **columns):
        return
    if plan is not None:
        plan.save(force_insert=True)
    if order.reverses:
        # The other side is decided once this half has ended: the alert is not done.
        Signal.objects.filter(pk=signal.pk, state=SignalState.WORKING).update(
            state=SignalState.RECEIVED
        )


def _end(order: Order, draft: Order, refusal: Refusal) -> None:
    is_stale = refusal.code is ReasonCode.STALE
    told = {name: getattr(draft, name) for name in _TOLD if getattr(draft, name)}
    move(
        order,
        Event.EXPIRE_UNSENT if is_stale else Event.DENY,
        detail=refusal.detail,
        evidence={name: str(value) for name, value in refusal.numbers.items()},
        reason=refusal.code.value,
        **told,
    )


def give_up(order: Order, error: Exception) -> None:
    """End an approved order that could not be judged for a defect of ours."""
    order.refresh_from_db()
    if order.state != OrderState.APPROVED:
        return
    detail = f"FKS could not judge this: {type(error).__name__}"
    move(order, Event.DENY, detail=detail, reason=ReasonCode.INTERNAL_ERROR.value)
