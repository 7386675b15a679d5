"""What of a position neither a stop at the venue nor an exit under way takes care of."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db.models import F, Max, QuerySet, Sum

from brokers.capabilities import Capabilities
from brokers.models import Instrument
from brokers.types import Side
from execution.closable import CLOSING
from execution.models import IMMEDIATE, Order, Position, Protection
from execution.slicing import least_order
from execution.states import AT_VENUE, HELD, TERMINAL, OrderState
from risk.arithmetic import floor_to

ZERO = Decimal(0)


def kept_by_exits(account_id: int, symbol: str, offers: Capabilities) -> Decimal:
    """What exits under way are to close and no stop may be placed for."""
    exits = _keeping(account_id, symbol, offers)
    return _left_of(exits.exclude(state__in=TERMINAL | HELD | {OrderState.SLICING}))


def _keeping(account_id: int, symbol: str, offers: Capabilities) -> QuerySet[Order]:
    """Exits that stops make way for: of all of them the venue sets the coins aside, or those that
    fill at once could turn the position over together with a stop."""
    exits = Order.objects.filter(account=account_id, symbol=symbol, role__in=CLOSING)
    if not offers.stops_go_first(is_immediate=True):
        return exits.none()
    return exits if offers.stops_go_first(is_immediate=False) else exits.filter(IMMEDIATE)


def exposed_since(plan: Protection, offers: Capabilities, most: Decimal | None) -> datetime | None:
    """Since when more of the position, ``most`` of it where the venue is known to hold less, has had no
    stop than exits keep; ``None`` while it has. What an exit kept until it ended has had none only
    since then, nor has what came while one rests. Where stops stay beside exits none is an excuse.
    """
    here = {"account": plan.account_id, "symbol": plan.symbol}
    known, position = Instrument.objects.filter(**here).first(), Position.objects.get(**here)
    if known is None:
        return plan.naked_since
    rules = known.rules().of_exits
    kept = kept_by_exits(plan.account_id, plan.symbol, offers)
    side = Side.SELL if position.quantity > 0 else Side.BUY
    stops = Order.objects.filter(
        **here, role=Order.Role.STOP_LOSS, side=side.value, state__in=AT_VENUE
    )
    held = floor_to(abs(position.quantity) if most is None else most, rules.quantity_step)
    if held - _left_of(stops) - kept < least_order(rules, plan.stop_price or ZERO):
        return None
    rested = _keeping(plan.account_id, plan.symbol, offers).filter(acknowledged_at__isnull=False)
    moments = [plan.naked_since, rested.aggregate(last=Max("finished_at"))["last"]]
    if kept:
        moments.append(position.updated_at)
    return max((moment for moment in moments if moment is not None), default=None)


def _left_of(orders: QuerySet[Order]) -> Decimal:
    left: Decimal | None = orders.aggregate(left=Sum(F("quantity") - F("filled_quantity")))["left"]
    return left or ZERO
