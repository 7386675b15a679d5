"""Orders in slices, as tests look at them."""

from __future__ import annotations

import time_machine

from execution import periodic_tasks
from execution.models import Order


def slices() -> list[Order]:
    return list(Order.objects.filter(parent__isnull=False).order_by("slice_number"))


def quantities() -> list[str]:
    return [f"{one.quantity:f}" for one in slices()]


def later(clock: time_machine.Coordinates, seconds: float) -> None:
    clock.shift(seconds)
    periodic_tasks.sweep()


def stands(order: Order) -> tuple[str, str]:
    order.refresh_from_db()
    return order.state, order.reason
