"""What people are told about orders. The event is the order's move; the words are made only when
somebody listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers.decimals import decimal_text
from execution.models import Order
from execution.states import OrderState
from risk import notices
from risk.channels import Event

_STATES = {
    OrderState.AWAITING_APPROVAL: Event.APPROVAL_WANTED,
    OrderState.OPEN: Event.ORDER_ACCEPTED,
    OrderState.PARTIALLY_FILLED: Event.ORDER_PARTLY_FILLED,
    OrderState.FILLED: Event.ORDER_FILLED,
    OrderState.DENIED: Event.ORDER_DENIED,
    OrderState.REJECTED: Event.ORDER_REJECTED,
    OrderState.CANCELED: Event.ORDER_ENDED,
    OrderState.EXPIRED: Event.ORDER_ENDED,
    OrderState.NOT_PLACED: Event.ORDER_ENDED,
    OrderState.UNKNOWN: Event.ORDER_UNKNOWN,
    OrderState.NEEDS_OPERATOR: Event.ORDER_NEEDS_OPERATOR,
}


def tell(order: Order, state: OrderState, detail: str, changes: Mapping[str, Any]) -> None:
    """Tell that ``order`` has come to ``state``; call inside the transaction that moved it.

    ``changes`` are the columns written with the move: ``order`` may not carry them yet.
    """
    event = _STATES.get(state)
    if event is not None:
        notices.tell(event, lambda: _news(order, state, detail, changes))


def _news(order: Order, state: OrderState, detail: str, changes: Mapping[str, Any]) -> notices.News:
    reason = changes.get("reason", order.reason)
    said = ": ".join(part for part in (reason, detail) if part)
    if state is OrderState.AWAITING_APPROVAL and order.approve_by is not None:
        said = _asked_for(order, order.approve_by)
    return notices.News(
        f"{state.label.capitalize()}: {order}",
        " · ".join(part for part in (_traded(order, changes), said, f"order {order.pk}") if part),
        account=order.account.name,
        strategy=order.strategy.slug if order.strategy else "",
        symbol=order.symbol,
    )


def _asked_for(order: Order, until: datetime) -> str:
    who = order.strategy.slug if order.strategy else "somebody"
    worth = f"{decimal_text(order.reserved_value)} {order.account.quote_currency}"
    return f"{who} asks for it, worth {worth}: approve or reject it by {until:%H:%M:%S} UTC"


def _traded(order: Order, changes: Mapping[str, Any]) -> str:
    filled: Decimal = changes.get("filled_quantity", order.filled_quantity)
    average: Decimal | None = changes.get("average_price", order.average_price)
    if not filled or average is None:
        return ""
    whole = decimal_text(order.quantity)
    return f"{decimal_text(filled)} of {whole} at {decimal_text(average)}"
