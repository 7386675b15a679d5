"""What the kill switch does beyond forbidding: cancel every working order of a scope."""

from __future__ import annotations

from execution import dispatch
from execution.models import Order
from execution.reconcile import check_order
from execution.states import TERMINAL, WORKING
from risk.models import TradingState
from risk.types import ReasonCode


def cancel_all(scope: TradingState.Scope, key: str) -> list[Order]:
    """Cancel the scope's working orders here and now; returns those that are still working.

    Stop losses stay: without them the positions that remain would be unguarded. Works without queue
    and workers. What is left keeps being asked about by the sweep.
    """
    orders = Order.objects.filter(state__in=WORKING).exclude(role=Order.Role.STOP_LOSS)
    orders = orders.select_related("account").order_by("id")
    if scope == TradingState.Scope.ACCOUNT:
        orders = orders.filter(account__name=key)
    elif scope == TradingState.Scope.STRATEGY:
        orders = orders.filter(strategy__slug=key)
    left = []
    for order in orders:
        dispatch.cancel(
            order, reason=ReasonCode.CANCELED_BY_OPERATOR, detail="cancelled by the kill switch"
        )
        order.refresh_from_db()
        if order.state not in TERMINAL:
            check_order(order)
            order.refresh_from_db()
        if order.state not in TERMINAL:
            left.append(order)
    return left
