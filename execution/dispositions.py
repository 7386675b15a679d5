"""What became of a signal, told by its orders."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.utils import timezone

from brokers.prepared_writes import change
from execution.legs import orders_from
from execution.models import Order, Signal
from execution.states import TERMINAL, OrderState, SignalState
from risk.types import ReasonCode


def settle(signal_id: UUID) -> SignalState | None:
    """Bring a decided signal's disposition in line with its orders; ``None`` if nothing changed."""
    orders = orders_from(signal_id)
    if not orders:
        return None
    state, reason, detail = disposition(orders)
    finished = None if state is SignalState.WORKING else timezone.now()
    differs = {"pk": signal_id, "state__not_in": [SignalState.RECEIVED, state]}
    changes = {"state": state, "reason": reason, "detail": detail, "finished_at": finished}
    return state if change(Signal, differs, changes) else None


def disposition(orders: Sequence[Order]) -> tuple[SignalState, str, str]:
    """A signal's state, reason and detail from its orders: the worst news first, fills before all."""
    by_state = {OrderState(order.state): order for order in reversed(orders)}
    if any(state not in TERMINAL for state in by_state):
        return SignalState.WORKING, "", ""
    if any(order.filled_quantity > 0 for order in orders):
        return SignalState.EXECUTED, "", ""
    for state, disposition in (
        (OrderState.REJECTED, SignalState.FAILED),
        (OrderState.NOT_PLACED, SignalState.FAILED),
        (OrderState.EXPIRED, SignalState.EXPIRED),
        (OrderState.CANCELED, SignalState.IGNORED),
        (OrderState.DENIED, SignalState.DENIED),
    ):
        if state in by_state:
            order = by_state[state]
            return _softened(disposition, order), order.reason, order.detail
    raise AssertionError("an order is in no known state")


def _softened(disposition: SignalState, order: Order) -> SignalState:
    """Nothing to do is no denial: the sender asked for what is already so."""
    if order.reason in (ReasonCode.NOTHING_TO_CLOSE, ReasonCode.ALREADY_AT_TARGET):
        return SignalState.IGNORED
    return disposition
