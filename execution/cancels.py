"""Cancels somebody asked for: noted on the order's row first, repeated until the venue has answered.

A message or a worker may be lost on the way: the sweep finds the note. An order whose fate is unknown
keeps it, is never sent (again) while it stands, and is cancelled as soon as it is found.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import QuerySet
from django.utils import timezone

from execution.models import Order, Signal
from execution.states import AT_VENUE, TERMINAL, UNSENT, OrderState
from risk.types import ReasonCode

_CANCELABLE = (*UNSENT, OrderState.SLICING, OrderState.OPEN, OrderState.PARTIALLY_FILLED)


def want(orders: QuerySet[Order], reason: ReasonCode, who: str) -> int:
    """Note on each of ``orders`` that has not ended that ``who`` wants it gone; returns how many."""
    return orders.exclude(state__in=TERMINAL).update(
        cancel_reason=reason.value, cancel_asked_by=who, updated_at=timezone.now()
    )


def by_alert(signal: Signal) -> str:
    """Who wants a cancel that ``signal`` asks for."""
    return f"alert {signal.pk}"


def left() -> QuerySet[Order]:
    """Orders that are to be cancelled and have not ended."""
    return Order.objects.exclude(cancel_reason="").exclude(state__in=TERMINAL)


def due(account_id: int) -> Iterator[Order]:
    """The account's orders whose cancel has to be sent, those at the venue first: the others, of which
    there may be thousands, are read once these have been dealt with.

    One that is CANCELING is asked about, and its cancel repeated, like any working order.
    """
    orders = left().filter(account_id=account_id, state__in=_CANCELABLE).select_related("account")
    yield from orders.filter(state__in=AT_VENUE).order_by("id")
    yield from orders.filter(state__in=(*UNSENT, OrderState.SLICING)).order_by("id")


def due_accounts() -> list[int]:
    """Accounts with something ``due``."""
    rows = left().filter(state__in=_CANCELABLE)
    return list(rows.order_by().values_list("account_id", flat=True).distinct())
