"""Takes a safeguard out of the product, to prove that the run would notice its absence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from brokers.capabilities import Capabilities
from execution import decisions, dispatch, fills, lanes, reconcile, transitions
from execution.models import Order

DISABLED = ("settle-window", "conditional-move")


def disable(safeguard: str) -> None:
    """Patch ``safeguard`` away in this process; an empty name leaves everything in place."""
    if safeguard == "settle-window":
        _let_looks_count_at_once()
    elif safeguard == "conditional-move":
        _let_every_move_win()


def _let_looks_count_at_once() -> None:
    """The first "not found" proves absence, however young the order is."""
    not_found = reconcile._not_found

    def at_once(order: Order, asked_at: datetime, capabilities: Capabilities) -> None:
        order.settle_at = None
        not_found(order, asked_at, replace(capabilities, settle_window=0))

    decisions.LOOKS_NEEDED = 1
    reconcile._not_found = at_once


def _let_every_move_win() -> None:
    """A caller's idea of the order overwrites what another has made of it."""
    move = transitions.move

    def unconditional(order: Order, event: transitions.Event, **changes: Any) -> bool:
        wanted, attempt = order.state, order.attempt
        Order.objects.filter(pk=order.pk).update(state=wanted, attempt=attempt)
        return move(order, event, **changes)

    for module in (dispatch, fills, lanes, reconcile, transitions):
        module.move = unconditional  # type: ignore[attr-defined]
