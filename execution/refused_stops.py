"""Stops the venue refused: whether another try is due."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.utils import timezone

from execution.models import Order, Protection, Strategy
from execution.states import OrderState

MAX_REFUSALS = 5
DAYTIME = timedelta(minutes=10)
"""A stop that has rested so long before it expired was taken, not refused."""


def may_place(plan: Protection, stop: Decimal | None) -> bool:
    """Whether a try at the price ``stop`` is due: refusals in a row are counted, with growing pauses.
    Those of another price lengthen the pause, and say nothing of this one.
    """
    if not plan.account.is_active:
        return False
    refused = _in_a_row(plan)
    if not refused:
        return True
    policy = plan.entry.strategy.on_naked if plan.entry.strategy else Strategy.OnNaked.REPLACE
    most = 1 if policy == Strategy.OnNaked.ALARM else MAX_REFUSALS
    if sum(one.stop_price == stop for one in refused) >= most:
        return False
    last = refused[0].finished_at
    return last is None or timezone.now() - last > timedelta(seconds=2 ** len(refused))


def _in_a_row(plan: Protection) -> list[Order]:
    """The latest stops of the plan's entry, newest first, as far back as the venue took none."""
    stops = Order.objects.filter(
        role=Order.Role.STOP_LOSS,
        account=plan.account,
        symbol=plan.symbol,
        signal=plan.entry.signal_id,
    )
    if plan.guard_again_at is not None:
        stops = stops.filter(created_at__gt=plan.guard_again_at)
    refused: list[Order] = []
    for stop in stops.order_by("-id")[:MAX_REFUSALS]:
        if not _was_refused(stop):
            break
        refused.append(stop)
    return refused


def _was_refused(stop: Order) -> bool:
    """Whether the venue did not take the stop, or ended it without a cancel of ours. One that left
    with its entry was no try of ours."""
    if stop.came_attached:
        return False
    if stop.state in (OrderState.REJECTED, OrderState.NOT_PLACED, OrderState.DENIED):
        return True
    ended = stop.state in (OrderState.CANCELED, OrderState.EXPIRED)
    return ended and not stop.filled_quantity and not stop.reason and not _had_its_day(stop)


def _had_its_day(stop: Order) -> bool:
    """Whether the stop ended with the day it was good for: venues take some stops only so."""
    if stop.state != OrderState.EXPIRED or stop.acknowledged_at is None or stop.finished_at is None:
        return False
    return stop.finished_at - stop.acknowledged_at >= DAYTIME
