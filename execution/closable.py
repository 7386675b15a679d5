"""How much of a position an exit may still take off, so that nothing is sold twice."""

from __future__ import annotations

from decimal import Decimal

from django.db.models import F, Q, QuerySet, Sum

from brokers.models import Instrument
from brokers.prepared import Prepared, given
from brokers.types import OrderType, Side
from execution.models import SIGNED, Difference, Fill, Order, Position
from execution.states import HELD, TERMINAL, OrderState
from risk.arithmetic import floor_to

ZERO = Decimal(0)
CLOSING = (Order.Role.EXIT, Order.Role.FLATTEN)
"""What must not be larger than the position when it leaves. Resting stops are placed to follow it."""


def leaves_at_once(order: Order) -> bool:
    """Whether ``order`` closes as it is sent: an exit, or a watched stop that was passed."""
    is_watched_stop = order.role == Order.Role.STOP_LOSS and order.type == OrderType.MARKET
    return order.role in CLOSING or is_watched_stop


def held_against(order: Order) -> Decimal:
    """What is held on the side that ``order`` closes; a stop may have filled while it waited."""
    quantity = _held.first(account=order.account_id, symbol=order.symbol) or ZERO
    if not order.reduce_only:
        quantity = held_by_both(order.account_id, order.symbol, quantity)
    return max(quantity * -Side(order.side).sign, ZERO)


def held_by_both(account_id: int, symbol: str, quantity: Decimal) -> Decimal:
    """``quantity`` of our book, or less of it while the venue is known to hold less: what is not there
    cannot be sold, or is sold short. The venue's side is what it held when it was asked, and what has
    traded there since: a trade our book learned of later may have been in it already.

    Not for orders the venue lets only reduce: one comparison may be wrong, and they cannot be.
    """
    if not quantity:
        return ZERO
    differs = _differs.first(account=account_id, symbol=symbol)
    if differs is None:
        return quantity
    theirs = held_there(differs)
    return min(quantity, theirs, key=abs) if quantity * theirs > 0 else ZERO


@Prepared
def _differs() -> QuerySet[Difference]:
    here = Difference.objects.filter(account=given("account"), symbol=given("symbol"))
    return here.filter(kind=Difference.Kind.POSITION, state__in=Difference.BLOCKING)[:1]


def held_there(differs: Difference) -> Decimal:
    """What the venue holds by now: what it said, and what has traded there since; its clock may be
    slow, but what was sent since then has traded since then.
    """
    since = differs.last_seen_at
    fills = Fill.objects.filter(account=differs.account_id, symbol=differs.symbol)
    is_new = Q(at__gt=since) | Q(order__submitted_at__gt=since)
    new = fills.filter(is_new, recorded_at__gt=since).order_by()
    return Decimal(differs.theirs) + (new.aggregate(total=Sum(SIGNED))["total"] or ZERO)


@Prepared
def _held() -> QuerySet[Position, Decimal]:
    here = Position.objects.filter(account=given("account"), symbol=given("symbol"))
    return here.order_by().values_list("quantity", flat=True)


def left_for(order: Order) -> Decimal:
    """What is held and no other exit under way may take off; of an order in slices its slices are
    such exits. One that waits for its trigger takes nothing off before, and one that only a person
    can find out about nothing from an order its venue lets only reduce, as in its lane.
    """
    leaves_none = TERMINAL | HELD | {OrderState.SLICING}
    if order.reduce_only:
        leaves_none |= {OrderState.NEEDS_OPERATOR}
    others = Order.objects.filter(
        account=order.account_id,
        symbol=order.symbol,
        side=order.side,
        role__in=CLOSING,
        type__in=(OrderType.MARKET.value, OrderType.LIMIT.value),
    )
    others = others.exclude(pk=order.pk).exclude(state__in=leaves_none)
    # Asked before the position: what fills in between counts twice rather than not at all.
    leaving = others.aggregate(left=Sum(F("quantity") - F("filled_quantity")))["left"]
    return max(held_against(order) - (leaving or ZERO), ZERO)


def closable(order: Order) -> Decimal:
    """How much of ``order`` may leave now: all of it, or what is left of the position on the venue's
    grid. Several slices of one order may rest beside each other, and are counted together.
    """
    held = left_for(order) if order.parent_id else held_against(order)
    if held >= order.quantity:
        return order.quantity
    step = _step.first(account=order.account_id, symbol=order.symbol)
    return floor_to(held, step) if step else held


@Prepared
def _step() -> QuerySet[Instrument, Decimal]:
    here = Instrument.objects.filter(account=given("account"), symbol=given("symbol"))
    return here.order_by().values_list("quantity_step", flat=True)
