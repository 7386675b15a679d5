"""Stops the venue refused: whether another try is due."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.utils import timezone

from execution.models import Order, Protection, Strategy
from execution.states import OrderState
from risk.types import ReasonCode

MAX_REFUSALS = 5
LONGEST_PAUSE = 60  # seconds
OF_THE_ACCOUNT = (
    ReasonCode.LOGIN_NEEDED,
    ReasonCode.CREDENTIALS_REFUSED,
    ReasonCode.ACCOUNT_MISCONFIGURED,
)
DAYTIME = timedelta(minutes=10)
"""A stop that has rested so long before it expired was taken, not refused."""


def may_place(plan: Protection, stop: Decimal | None) -> bool:
    """Whether a try at the price ``stop`` is due: refusals in a row are counted, with growing pauses.
    Those of another price, or of the account, lengthen the pause, and say nothing of this one.
    """
    if not plan.account.is_active:
        return False
    tries = _in_a_row(plan)
    if not tries:
        return True
    policy = plan.entry.strategy.on_naked if plan.entry.strategy else Strategy.OnNaked.REPLACE
    most = 1 if policy == Strategy.OnNaked.ALARM else MAX_REFUSALS
    if sum(one.stop_price == stop and not _is_of_the_account(one) for one in tries) >= most:
        return False
    last = tries[0].finished_at
    pause = timedelta(seconds=min(2 ** len(tries), LONGEST_PAUSE))
    # Far ahead counts as long ago: the clock was set back.
    return last is None or abs(timezone.now() - last) > pause


def _in_a_row(plan: Protection) -> list[Order]:
    """The latest stops of the plan's entry, newest first, as far back as the venue took none and
    refused no more than count.
    """
    stops = Order.objects.filter(
        role=Order.Role.STOP_LOSS,
        account=plan.account,
        symbol=plan.symbol,
        signal=plan.entry.signal_id,
    )
    if plan.guard_again_at is not None:
        stops = stops.filter(created_at__gt=plan.guard_again_at)
    tries: list[Order] = []
    refusals = 0
    for stop in stops.order_by("-id")[: 2 * MAX_REFUSALS]:
        if refusals == MAX_REFUSALS or not _was_refused(stop):
            break
        refusals += not _is_of_the_account(stop)
        tries.append(stop)
    return tries


def _is_of_the_account(stop: Order) -> bool:
    """Whether nothing could leave by the account, its log-in or its key, whatever it was: the stop may
    be taken once that is mended."""
    return stop.reason in OF_THE_ACCOUNT


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
