"""How an order is divided into slices: how large the next one is, and when it may start.

Pure. The slices of one order add up to exactly the whole, and none is below the venue's minimum: what
would be left over goes into the last. Who was late catches up a little with each slice, never in one
burst: no slice is larger than twice an equal part and what would be too small to be left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal, localcontext

from brokers.types import Instrument, Side
from execution.alerts import Algorithm
from execution.models import Order, SlicePlan, Strategy
from risk.arithmetic import ARITHMETIC, ceil_to, floor_to, shown
from risk.types import Intent, Size

HUNDRED = Decimal(100)
CATCH_UP = 2
"""A late slice is at most so many equal parts."""
TWAP, ICEBERG, LADDER = Algorithm.TWAP, Algorithm.ICEBERG, Algorithm.LADDER
_ROUNDING = timedelta(milliseconds=1)
"""An interval is cut to whole microseconds: without this the last slices would be one too many."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of a plan: ``count`` slices from ``begins_at`` on, spread over ``length``."""

    begins_at: datetime
    length: timedelta
    count: int

    @property
    def interval(self) -> timedelta:
        return self.length / self.count

    @property
    def gives_up_at(self) -> datetime:
        """What has not started by then no longer does: the time over again, to catch up in."""
        return self.begins_at + self.length * 2

    def slots_left(self, now: datetime) -> int:
        """How many slices the rest is divided into at ``now``, that one included; at least one."""
        left = self.begins_at + self.length - now - _ROUNDING
        return max(-(-left // self.interval), 1)

    def next_at(self, due: datetime, now: datetime) -> datetime:
        """When the slice after the one due at ``due`` may start, which started ``now``: on the grid
        where it was in time, else a whole interval later, so that two never start together."""
        late = now - due > self.interval / 2
        return (now if late else due) + self.interval


def pace_of(plan: SlicePlan) -> Pace:
    return Pace(plan.begins_at, timedelta(seconds=plan.seconds), plan.slices)


def plan_of(
    order: Order, algorithm: Algorithm, strategy: Strategy, rules: Instrument
) -> SlicePlan | None:
    """How ``order`` is worked by ``algorithm``, with its strategy's numbers, unsaved; ``None`` where it
    goes out whole: it was meant to, or is too small for two slices.
    """
    if algorithm is Algorithm.WHOLE:
        return None
    price = order.reference_price or Decimal(0)
    if algorithm is LADDER and order.side == Side.BUY:
        price = rung_price(price, Side.BUY, strategy.ladder_percent, strategy.slices)
    part = _part(order.quantity, algorithm, strategy, rules, price)
    count = int(order.quantity // part)
    if count < 2:
        return None
    return SlicePlan(
        order=order,
        algorithm=algorithm.value,
        slices=count if algorithm is ICEBERG else min(count, strategy.slices),
        seconds=strategy.slicing_seconds if algorithm is TWAP else 0,
        ladder_percent=strategy.ladder_percent if algorithm is LADDER else Decimal(0),
        slice_quantity=part,
        begins_at=order.created_at,
        next_at=order.created_at,
    )


def in_parts(order: Order, rules: Instrument) -> SlicePlan | None:
    """How an exit larger than the venue's largest order goes out all the same: in equal parts, one
    after the other. Unsaved; ``None`` where it fits into one order.
    """
    most = rules.max_quantity
    if not order.is_exit or most is None or order.quantity <= most:
        return None
    parts = equal_parts(order.quantity, most, rules.quantity_step)
    return SlicePlan(
        order=order,
        algorithm=ICEBERG.value,
        slices=len(parts),
        seconds=0,
        slice_quantity=parts[0],
        begins_at=order.created_at,
        next_at=order.created_at,
    )


def equal_parts(quantity: Decimal, most: Decimal, step: Decimal) -> list[Decimal]:
    """``quantity`` as the fewest parts of at most ``most``, all on the grid of ``step``; the last one
    may be smaller than the others.
    """
    largest = max(floor_to(most, step), step)
    with localcontext(ARITHMETIC):
        count = ceil_to(shown(quantity / largest), Decimal(1))
        part = ceil_to(shown(quantity / count), step)
        whole, rest = divmod(quantity, part)
    return [part] * int(whole) + [rest] * bool(rest)


def rung_price(first: Decimal, side: Side, percent: Decimal, number: int) -> Decimal:
    """The limit of rung ``number`` (from 1 on): lower and lower for a buy, higher and higher for a
    sell."""
    with localcontext(ARITHMETIC):
        return shown(first * (1 - side.sign * (number - 1) * percent / HUNDRED))


def judged_as(intent: Intent, algorithm: Algorithm, strategy: Strategy) -> Intent:
    """``intent`` at the price the whole is sized and judged by: of a ladder the dearest rung, which for
    a buy is the first one."""
    if intent.is_exit or algorithm is not LADDER:
        return intent
    return dearest(intent, strategy.ladder_percent, strategy.slices)


def dearest(intent: Intent, percent: Decimal, rungs: int) -> Intent:
    """``intent`` at the dearest rung of its ladder."""
    if intent.side is Side.BUY or intent.price is None:
        return intent
    return replace(intent, price=rung_price(intent.price, intent.side, percent, rungs))


def part_of(whole: Size, algorithm: Algorithm, strategy: Strategy, rules: Instrument) -> Decimal:
    """How much of ``whole`` its venue would see at a time."""
    if algorithm is Algorithm.WHOLE:
        return whole.quantity
    part = _part(whole.quantity, algorithm, strategy, rules, whole.reference_price)
    return min(part, whole.quantity)


def _part(
    whole: Decimal,
    algorithm: Algorithm,
    strategy: Strategy,
    rules: Instrument,
    price: Decimal,
) -> Decimal:
    """An equal part of ``whole``, or what an iceberg shows: on the grid, and large enough."""
    with localcontext(ARITHMETIC):
        part = shown(whole / strategy.slices)
    if algorithm is ICEBERG and strategy.slice_quantity is not None:
        part = strategy.slice_quantity
    return max(floor_to(part, rules.quantity_step), least_order(rules, price))


def least_order(rules: Instrument, price: Decimal) -> Decimal:
    """The smallest quantity the venue takes at ``price``, on its grid."""
    step = rules.quantity_step
    least = max(rules.min_quantity or step, step)
    if rules.min_value is not None and price > 0:
        with localcontext(ARITHMETIC):
            least = max(least, rules.min_value / price)
    return ceil_to(least, step)


def next_quantity(
    plan: SlicePlan, left: Decimal, now: datetime, *, step: Decimal, least: Decimal
) -> Decimal:
    """How much of ``left`` the next slice is; nothing where the venue takes no order that small."""
    if left < least:
        return Decimal(0)
    if plan.algorithm == LADDER and plan.started + 1 >= plan.slices:
        return left
    share = plan.slice_quantity
    if plan.algorithm == TWAP:
        with localcontext(ARITHMETIC):
            equal = shown(left / pace_of(plan).slots_left(now))
        share = min(floor_to(equal, step), plan.slice_quantity * CATCH_UP)
    share = max(share, least)
    return left if left - share < least else share
