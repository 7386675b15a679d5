"""Amending an order: it is cancelled, seen cancelled, and only then placed anew with what is left. The
two never work at the same time.

The wish to cancel on the old order's row names the alert that amends it. Whoever else wants the order
gone, before or after, an operator, a close or another amend, leaves another name there: then nothing
takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from execution import cancels
from execution.alerts import Alert
from execution.models import Order, Signal
from execution.states import TERMINAL, OrderState
from risk.types import ReasonCode, Refusal


def end_old(signal: Signal, alert: Alert) -> tuple[UUID, ...]:
    """The order to cancel before ``alert`` can be decided, its wish noted; nothing once it has ended.

    Raises Refusal NOTHING_TO_CANCEL when it ended otherwise, or by somebody else's wish.
    """
    mine = cancels.by_alert(signal)
    unclaimed = Order.objects.filter(pk=alert.replaces, cancel_reason="")
    unclaimed = unclaimed.exclude(state=OrderState.CANCELING)
    cancels.want(unclaimed, ReasonCode.CANCELED_BY_SIGNAL, mine)
    old = Order.objects.get(pk=alert.replaces)
    ends_otherwise = old.state in TERMINAL and old.state != OrderState.CANCELED
    if old.cancel_asked_by != mine or ends_otherwise:
        raise _too_late(old)
    return () if old.state in TERMINAL else (old.pk,)


def rest_of(alert: Alert) -> Alert:
    """``alert`` less what the order it replaces has traded. Raises Refusal when nothing is left."""
    old = Order.objects.get(pk=alert.replaces)
    left = (alert.quantity or Decimal(0)) - old.filled_quantity
    if left <= 0:
        raise _too_late(old)
    return replace(alert, quantity=left)


def original_of(order: Order) -> Order:
    """The order that amends put ``order`` in the place of, or itself."""
    while order.signal is not None and (replaced := order.signal.alert.get("replaces")):
        order = Order.objects.select_related("signal").get(pk=replaced)
    return order


def asked_for_by(
    strategy_id: int, orders: Sequence[Order], *, but_not: UUID | None = None
) -> list[Order]:
    """Those of ``orders`` that the strategy asked for, also where an operator amended them; ``but_not``
    by this signal of it.
    """
    originals: dict[UUID, Order] = {}
    if by_others := [order.pk for order in orders if order.strategy_id != strategy_id]:
        amends = Order.objects.filter(pk__in=by_others, signal__alert__has_key="replaces")
        originals = {order.pk: original_of(order) for order in amends.select_related("signal")}
    asked = [(order, originals.get(order.pk, order)) for order in orders]
    return [
        order
        for order, original in asked
        if original.strategy_id == strategy_id
        and (but_not is None or original.signal_id != but_not)
    ]


def _too_late(old: Order) -> Refusal:
    detail = f"the order cannot be amended any more: {old.get_state_display()}"
    if old.cancel_asked_by:
        detail += f", and {old.cancel_asked_by} wants it cancelled"
    return Refusal(ReasonCode.NOTHING_TO_CANCEL, detail, {"filled": old.filled_quantity})
