"""``Prefer: wait=N``: hold the answer until the signal's disposition is known."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Any
from uuid import UUID

from django.db import Error as DatabaseFailure

from brokers.decimals import decimal_text
from execution.legs import own_orders
from execution.models import Order, Signal
from execution.states import AT_VENUE, TERMINAL, OrderState, SignalState

logger = logging.getLogger(__name__)

MAX_WAIT = 10.0
MAX_WAITERS = 4
_PREFERENCE = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,4})", re.ASCII | re.IGNORECASE)

# A waiting request holds a thread of the web process: a few may, the others are answered 202 at
# once.
_places = threading.BoundedSemaphore(MAX_WAITERS)


def seconds_preferred(header: str) -> float:
    """N of ``Prefer: wait=N``, at most 10; 0 without one."""
    match = _PREFERENCE.search(header)
    return min(float(match[1]), MAX_WAIT) if match else 0.0


def wait_for(signal_id: UUID, seconds: float) -> dict[str, Any] | None:
    """The signal's outcome once it is settled; ``None`` if that takes longer than ``seconds`` or the
    database does not answer: the signal is stored, and that much can still be said.
    """
    if not _places.acquire(blocking=False):
        return None
    try:
        deadline = time.monotonic() + seconds
        pause = 0.01
        while True:
            outcome = outcome_of(signal_id)
            if outcome is not None or time.monotonic() + pause > deadline:
                return outcome
            time.sleep(pause)
            pause = min(pause * 1.3, 0.1)
    except DatabaseFailure as error:
        logger.warning("waiting for signal %s ended early: %s", signal_id, error)
        return None
    finally:
        _places.release()


def outcome_of(signal_id: UUID) -> dict[str, Any] | None:
    """The settled outcome, or ``None`` while it is still moving."""
    signal = Signal.objects.get(pk=signal_id)
    if signal.state == SignalState.RECEIVED:
        return None
    orders = list(own_orders(signal_id).select_related("account").order_by("id"))
    settled = all(order.state in TERMINAL for order in orders)
    if any(_is_moving(order) for order in orders):
        return None
    if orders and settled and signal.state == SignalState.WORKING:
        return None
    return {
        "status": signal.state,
        "signal_id": str(signal.pk),
        "reason": signal.reason,
        "detail": signal.detail,
        "orders": [order_summary(order) for order in orders],
    }


def _is_moving(order: Order) -> bool:
    """Whether the sender would still see news shortly: a resting order is settled, one
    that never rests is not.
    """
    if order.state in (OrderState.PENDING, OrderState.SUBMITTING, OrderState.UNKNOWN):
        return True
    return order.state in AT_VENUE and order.is_immediate


def order_summary(order: Order) -> dict[str, Any]:
    """An order as answers show it; numbers are decimal strings."""
    return {
        "order_id": str(order.pk),
        "client_order_id": order.client_order_id,
        "broker_order_id": order.broker_order_id,
        "account": order.account.name,
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "quantity": decimal_text(order.quantity),
        "status": order.state,
        "filled_quantity": decimal_text(order.filled_quantity),
        "average_price": None if order.average_price is None else decimal_text(order.average_price),
        "reason": order.reason,
        "detail": order.detail,
    }
