"""What is under way in a lane, by our own tables, and whether an alert has to wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.db.models import QuerySet

from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.types import Side
from execution.aims import (
    change_toward,
    depends_on_position,
    is_plain,
    is_sized,
    names_target,
    only_exits,
    target_of,
)
from execution.alerts import Action, Alert
from execution.allocation import applied
from execution.facts import Leg
from execution.models import Order, Position, Route
from execution.states import AT_VENUE, HELD, TERMINAL, UNRESOLVED, OrderState
from risk import breakers

LONG = ("verdicts", "sizing")
"""Columns of an order that are long, and only for people."""
IN_FLIGHT = (OrderState.PENDING, OrderState.SUBMITTING, OrderState.UNKNOWN, OrderState.CANCELING)
RESTING = (OrderState.OPEN, OrderState.PARTIALLY_FILLED)


def alive_in(leg: Leg) -> list[Order]:
    """The lane's orders that have not ended, all as of one moment: of two questions each could miss
    an order that is between their states."""
    return _alive(account=leg.account.pk, symbol=leg.symbol)


@Prepared
def _alive() -> QuerySet[Order]:
    lane = Order.objects.filter(account=given("account"), symbol=given("symbol")).defer(*LONG)
    return lane.exclude(state__in=TERMINAL).order_by("id")


def reduces(leg: Leg, alert: Alert, *, coming: Decimal = Decimal(0)) -> bool:
    """Whether the alert makes the leg's position smaller, with what is ``coming`` (signed) in it."""
    if only_exits(alert):
        return True
    return takes_off(leg, alert, held_in(leg.account, leg.symbol) + coming)


def takes_off(leg: Leg, alert: Alert, held: Decimal) -> bool:
    """Whether something of what is ``held`` is traded away."""
    return held * heading(leg, alert, held) < 0


def heading(leg: Leg, alert: Alert, held: Decimal) -> Decimal:
    """Which way the leg trades where ``held`` is held: above zero it buys. To a target goes the
    difference, which after a lost alert is another way than the sender's last trade; zero once there.
    """
    alert = applied(alert, leg.route.part)
    if alert.wants_flat:
        return -held
    if is_target(leg, alert):
        return change_toward(target_of(alert), held)
    return Decimal(side_of(alert).sign)


def is_target(leg: Leg, alert: Alert) -> bool:
    """Whether what the leg trades is the difference between what is held and a target."""
    return names_target(alert) and leg.route.sizing == Route.Sizing.FIXED_QUANTITY


def trades_against(held: Decimal, action: str) -> bool:
    """Whether an alert's ``action`` is the one that makes a position of ``held`` smaller."""
    return held != 0 and action == (Action.SELL if held > 0 else Action.BUY)


def held_in(account: Account, symbol: str) -> Decimal:
    """The position's signed quantity by our book."""
    return _held.first(account=account.pk, symbol=symbol) or Decimal(0)


@Prepared
def _held() -> QuerySet[Position, Decimal]:
    here = Position.objects.filter(account=given("account"), symbol=given("symbol"))
    return here.order_by().values_list("quantity", flat=True)


def is_covered(leg: Leg, action: Action, quantity: Decimal, lane: Sequence[Order]) -> bool:
    """Whether the position holds what exits ask for, whatever becomes of entries under way."""
    side = Side.BUY if action is Action.BUY else Side.SELL
    held = held_in(leg.account, leg.symbol) * -side.sign
    whole = {order.pk for order in lane}
    leaving = (
        order.quantity - order.filled_quantity
        for order in lane
        if order.side == side.value
        and order.role != Order.Role.STOP_LOSS
        and order.parent_id not in whole
    )
    return held >= quantity + sum(leaving, Decimal(0))


def must_wait(leg: Leg, alert: Alert, lane: Sequence[Order]) -> bool:
    """Whether the leg's size depends on orders still under way: decide it when the lane is quiet."""
    under_way = [order for order in moving(lane) if not _may_stay(order, leg)]
    if not under_way:
        return False
    if depends_on_position(alert):
        return True
    if is_plain(alert) and is_sized(alert):
        quantity = alert.quantity or Decimal(0)
        if is_covered(leg, alert.action, quantity, lane):
            return False
    other_side = side_of(alert).opposite.value
    leaving = (Order.Role.EXIT, Order.Role.FLATTEN)
    return any(order.side == other_side or order.role in leaving for order in under_way)


def has_to_wait(leg: Leg, alert: Alert) -> bool:
    """Whether nothing can be decided before what is under way has ended, whatever the venue says.

    Only of an alert before which nothing is cancelled: one of a plain quantity, in a lane without
    orders that wait for a person or are worked in slices. A decision's locks would change nothing.
    """
    if not (is_plain(alert) and is_sized(alert)):
        return False
    lane = alive_in(leg)
    if any(order.state in HELD or order.state == OrderState.SLICING for order in lane):
        return False
    return must_wait(leg, alert, [one for one in lane if one.role != Order.Role.STOP_LOSS])


def moving(lane: Sequence[Order]) -> list[Order]:
    """Orders that may change the position at any moment."""
    return [
        order
        for order in lane
        if order.state in IN_FLIGHT or (order.state in AT_VENUE and order.is_immediate)
    ]


def _may_stay(order: Order, leg: Leg) -> bool:
    """Whether ``order`` is a stop beside which any exit may leave: it is waited for no more while it is
    being cancelled than while it rests.
    """
    is_leaving_stop = order.role == Order.Role.STOP_LOSS and order.state == OrderState.CANCELING
    return is_leaving_stop and leg.market is not None and leg.market.plugin.capabilities.stops_stay


def rests(order: Order) -> bool:
    """Whether ``order`` waits at the venue for its price, however long that takes; a stop is no order
    somebody asked for.
    """
    was_asked_for = order.role in (Order.Role.ENTRY, Order.Role.EXIT)
    return was_asked_for and order.state in RESTING and not order.is_immediate


def side_of(alert: Alert) -> Side:
    return Side.BUY if alert.action is Action.BUY else Side.SELL


def is_open(account: Account) -> bool:
    """Whether the account's orders leave at once, as far as its venue goes."""
    return account.reconciled_at is not None and breakers.are_closed(account)


def lets_exits_leave(account: Account, symbol: str, *, reduce_only: bool) -> bool:
    """Whether an exit would leave at once: no stop is taken off for one that would wait in its lane.
    Beside an order that only a person can clear up goes one that its venue lets only reduce.
    """
    waited_for = {OrderState.UNKNOWN} if reduce_only else UNRESOLVED
    lane = Order.objects.filter(account=account, symbol=symbol, state__in=waited_for)
    return is_open(account) and not lane.exclude(role=Order.Role.ENTRY).exists()
