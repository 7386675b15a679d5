"""From a leg of a signal to an order row: judged, and written with its first state."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from django.db.models import Sum
from django.utils import timezone

from brokers.prepared_writes import insert
from brokers.types import OrderType, Side
from execution import algorithms, approvals, attached, news, slicing
from execution.alerts import Action, Alert, Algorithm
from execution.facts import Leg
from execution.ids import uuid7
from execution.judging import fill_in, verdict_json
from execution.models import SIGNED, Fill, Order, OrderEvent, Signal, SlicePlan
from execution.states import OrderState
from risk.types import Refusal, Verdict


def create_order(signal: Signal, alert: Alert, leg: Leg, *, exited: Decimal | None = None) -> Order:
    """One row for one leg, PENDING, AWAITING_APPROVAL or DENIED, with its arithmetic and verdicts,
    journalled. ``exited`` is what was closed for a reversal: this is its second half.
    """
    order = blank(signal, alert, leg)
    plan = None
    try:
        fill_in(order, signal, alert, leg, exited)
        leaves = alert.reduce_only if alert.replaces else order.is_exit
        if approvals.is_wanted(signal, is_exit=leaves):
            order.state = OrderState.AWAITING_APPROVAL
            order.approve_by = approvals.deadline(order, signal.strategy)
        elif plan := plan_for(order, alert, leg):
            order.state, order.detail = OrderState.SLICING, str(plan)
    except Refusal as refusal:
        order.state = OrderState.DENIED
        order.reason, order.detail = refusal.code.value, refusal.detail
        order.finished_at = order.created_at
        if not order.verdicts:
            order.verdicts = [verdict_json(_refused(refusal))]
    line = OrderEvent(
        order=order,
        at=order.created_at,
        event="create",
        to_state=order.state,
        actor=f"strategy {signal.strategy.slug}",
        detail=order.detail,
    )
    insert(order, along=line)
    if plan is not None:
        plan.save(force_insert=True)
    if order.state != OrderState.PENDING:
        news.tell(order, OrderState(order.state), order.detail, {})
    return order


def plan_for(order: Order, alert: Alert, leg: Leg) -> SlicePlan | None:
    """How a decided ``order`` is worked in slices, unsaved; ``None`` where it goes out whole.

    One in slices is shown as it was asked for: each slice is held to the collar of its own moment.
    """
    if order.strategy is None or leg.market is None:
        return None
    alert = alert.as_exit() if order.is_exit else alert
    choice = algorithms.chosen(order, alert, leg.route)
    plan = slicing.plan_of(order, choice.algorithm, order.strategy, leg.market.instrument)
    if plan is None and choice.algorithm is not Algorithm.WHOLE:
        _note(order, Algorithm.WHOLE, f"too small for two slices ({choice.why})")
    if plan is None and alert.divides_by(Algorithm.TWAP):
        plan = slicing.in_parts(order, leg.market.instrument)
        if plan is not None:
            _note(order, Algorithm.ICEBERG, "larger than the venue's largest order")
    if plan is not None:
        attached.detach(order)
    if plan is not None and alert.order_type is OrderType.MARKET:
        order.type, order.price = alert.order_type.value, None
        order.time_in_force = alert.time_in_force.value
    return plan


def _note(order: Order, algorithm: Algorithm, why: str) -> None:
    """Say among the verdicts how the order is sent, in place of what was said before."""
    others = [one for one in order.verdicts if one["rule"] != algorithms.RULE]
    order.verdicts = [*others, *map(verdict_json, algorithms.Choice(algorithm, why).notes)]


def blank(signal: Signal, alert: Alert, leg: Leg, *, identity: UUID | None = None) -> Order:
    """A new row for one leg, unsaved, with nothing decided yet."""
    now = timezone.now()
    order = Order(
        id=identity or uuid7(),
        signal=signal,
        strategy=signal.strategy,
        account=leg.account,
        symbol=leg.symbol,
        side=Side.SELL.value if alert.action is Action.SELL else Side.BUY.value,
        type=alert.order_type.value,
        role=Order.Role.ENTRY,
        time_in_force=alert.time_in_force.value,
        post_only=alert.post_only,
        created_at=now,
        updated_at=now,
    )
    order.client_order_id = order.identity
    return order


def closed_since(first: Order) -> Decimal:
    """What was closed since the first half of a reversal was made, by it or by what was faster: its
    position's stop fills for it, and its own quantity is cut down by that.
    """
    lane = Fill.objects.filter(account=first.account_id, symbol=first.symbol)
    new = lane.filter(recorded_at__gte=first.created_at).order_by()
    traded = new.aggregate(total=Sum(SIGNED))["total"] or Decimal(0)
    return max(first.filled_quantity, traded * Side(first.side).sign)


def _refused(refusal: Refusal) -> Verdict:
    return Verdict(
        rule=refusal.code.value.lower(),
        passed=False,
        detail=refusal.detail,
        code=refusal.code,
        numbers=refusal.numbers,
    )
