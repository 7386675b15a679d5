"""The states of signals and orders, and how pages colour them."""

from __future__ import annotations

from django.db import models


class SignalState(models.TextChoices):
    """What became of an alert. ``received`` until it is decided; the rest are its disposition."""

    RECEIVED = "received", "received"
    WORKING = "working", "working"
    EXECUTED = "executed", "executed"
    DENIED = "denied", "denied"
    IGNORED = "ignored", "ignored"
    EXPIRED = "expired", "expired"
    FAILED = "failed", "failed"


class OrderState(models.TextChoices):
    """The life of an order. ``denied``: our risk or a person said no; ``rejected``: the venue did.
    ``approved``: a person agreed, and a worker is about to judge it anew. ``slicing``: it is never
    sent itself; its slices are, one after the other.
    """

    AWAITING_APPROVAL = "awaiting_approval", "awaiting approval"
    APPROVED = "approved", "approved"
    PENDING = "pending", "pending"
    SLICING = "slicing", "slicing"
    DENIED = "denied", "denied"
    SUBMITTING = "submitting", "submitting"
    OPEN = "open", "open"
    PARTIALLY_FILLED = "partially_filled", "partially filled"
    CANCELING = "canceling", "canceling"
    FILLED = "filled", "filled"
    CANCELED = "canceled", "canceled"
    REJECTED = "rejected", "rejected"
    EXPIRED = "expired", "expired"
    UNKNOWN = "unknown", "unknown"
    NOT_PLACED = "not_placed", "not placed"
    NEEDS_OPERATOR = "needs_operator", "needs operator"


TERMINAL = frozenset(
    {
        OrderState.DENIED,
        OrderState.FILLED,
        OrderState.CANCELED,
        OrderState.REJECTED,
        OrderState.EXPIRED,
        OrderState.NOT_PLACED,
    }
)
HELD = frozenset({OrderState.AWAITING_APPROVAL, OrderState.APPROVED})
"""Decided, reserved, and in nobody's way: not sent before a person agreed and risk looked again."""
UNSENT = HELD | {OrderState.PENDING}
UNRESOLVED = frozenset({OrderState.UNKNOWN, OrderState.NEEDS_OPERATOR})
AT_VENUE = frozenset({OrderState.OPEN, OrderState.PARTIALLY_FILLED, OrderState.CANCELING})
WORKING = frozenset(set(OrderState) - TERMINAL)
"""Every state in which the order may still trade: all of them count against limits."""

GUARD_COLORS = {
    "guarded": "success",
    "watched": "warning",
    "unguarded": "danger",
    "ended": "default",
}
"""How a position is guarded: by a stop at the venue, by FKS watching the price, not, or no longer."""

ORDER_COLORS = {
    OrderState.AWAITING_APPROVAL: "info",
    OrderState.APPROVED: "info",
    OrderState.PENDING: "info",
    OrderState.SLICING: "info",
    OrderState.DENIED: "warning",
    OrderState.SUBMITTING: "info",
    OrderState.OPEN: "info",
    OrderState.PARTIALLY_FILLED: "info",
    OrderState.CANCELING: "info",
    OrderState.FILLED: "success",
    OrderState.CANCELED: "default",
    OrderState.REJECTED: "danger",
    OrderState.EXPIRED: "default",
    OrderState.UNKNOWN: "danger",
    OrderState.NOT_PLACED: "warning",
    OrderState.NEEDS_OPERATOR: "danger",
}
SIGNAL_COLORS = {
    SignalState.RECEIVED: "info",
    SignalState.WORKING: "info",
    SignalState.EXECUTED: "success",
    SignalState.DENIED: "warning",
    SignalState.IGNORED: "default",
    SignalState.EXPIRED: "default",
    SignalState.FAILED: "danger",
}
