"""Whether a lane is ready for an alert: what must be known first, and what is cancelled for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from brokers.types import Side
from execution import amending, approvals, cancels, protect
from execution.aims import only_exits, turns_over
from execution.alerts import Action, Alert, MarketPosition
from execution.facts import Leg
from execution.judging import quantity_of
from execution.models import Order, Route, Signal
from execution.states import HELD, OrderState
from execution.under_way import (
    RESTING,
    heading,
    held_in,
    is_target,
    lets_exits_leave,
    must_wait,
    reduces,
    rests,
    side_of,
)
from risk import switch
from risk.models import TradingState
from risk.types import QuantityType, ReasonCode

SENDABLE = (
    OrderState.PENDING,
    OrderState.SLICING,
    OrderState.OPEN,
    OrderState.PARTIALLY_FILLED,
)


class InTheWay(NamedTuple):
    """``orders`` to cancel before an alert can be decided; ``keeps_stop`` where the exit could not
    leave now: then the stop in its way stays, and it is decided once it can.
    """

    orders: tuple[UUID, ...] = ()
    keeps_stop: bool = False

    def __bool__(self) -> bool:
        return bool(self.orders) or self.keeps_stop


def in_the_way(
    signal: Signal, leg: Leg, alert: Alert, lane: Sequence[Order], *, is_agreed: bool = False
) -> InTheWay:
    """What has to be gone before an exit can be decided: entries that could open again what is being
    closed, resting exits that would sell it twice, and stops that hold the coins it needs or would
    sell them as well.

    Of an exit that waits for a person (not ``is_agreed`` yet), only the entries that wait for one as
    well.
    """
    is_exit = reduces(leg, alert)
    opposed = [
        order
        for order in _worked_on(signal, leg, alert, lane)
        if (is_agreed or _may_go(order, signal, alert, is_exit=is_exit))
        and _is_opposed(order, leg, alert)
    ]
    if leg.is_late or not (is_exit or opposed) or _is_halted(leg):
        return InTheWay()
    overtaken = [order for order in lane if _is_overtaken(order, signal, alert)]
    want_gone(signal, overtaken + opposed)
    found = [one.pk for one in overtaken + opposed if one.state != OrderState.CANCELING]
    waits_for_person = not is_agreed and approvals.is_wanted(signal, is_exit=True)
    if waits_for_person or not is_exit:
        return InTheWay(tuple(found))
    if alert.wants_flat:
        closes_all = alert.quantity is None or alert.market_position is MarketPosition.FLAT
        sliced = [order for order in lane if closes_all and _leaves_in_slices(order)]
        want_gone(signal, [order for order in lane if order.role == Order.Role.ENTRY] + sliced)
        for order in lane:
            entry = order.role == Order.Role.ENTRY and order.state in SENDABLE
            exits = order.role == Order.Role.EXIT and order.state in RESTING
            if entry or order in sliced or (closes_all and exits and not order.is_immediate):
                found.append(order.pk)
    others = [order for order in lane if order.role != Order.Role.STOP_LOSS]
    waits = bool(found) or must_wait(leg, alert, others)
    offers = leg.market.plugin.capabilities if leg.market else None
    if waits or offers is None or not offers.stops_go_first(is_immediate=alert.is_immediate):
        return InTheWay(tuple(found))
    if len(others) < len(lane) and not lets_exits_leave(
        leg.account, leg.symbol, reduce_only=offers.reduce_only
    ):
        return InTheWay(keeps_stop=True)
    return InTheWay(protect.suspend(leg.account, leg.symbol))


def _may_go(order: Order, signal: Signal, alert: Alert, *, is_exit: bool) -> bool:
    """Whether ``order`` may give way before a person has agreed to what comes in its place: to an exit
    that needs nobody, or as an entry the alert trades against, which goes as an exit does.
    """
    takes_back = order.role == Order.Role.ENTRY and order.side != alert.action.value
    return not approvals.is_wanted(signal, is_exit=is_exit or takes_back)


def _is_overtaken(order: Order, signal: Signal, alert: Alert) -> bool:
    """Whether ``order`` is an entry that waits for a person while its exit has come: what they agree to
    then would be left open. An exit of one side overtakes its own strategy's entries, a close all.
    """
    if order.role != Order.Role.ENTRY or order.state not in HELD:
        return False
    other_side = order.strategy_id == signal.strategy_id and order.side != alert.action.value
    return alert.wants_flat or (only_exits(alert) and other_side)


def _worked_on(signal: Signal, leg: Leg, alert: Alert, lane: Sequence[Order]) -> list[Order]:
    """What the strategy works in slices, and where the alert is a target, what of it rests, or is
    being cancelled: an amend would take its place. The first half of the alert's own reversal is what
    it waits for.
    """
    rest_counts = is_target(leg, alert)
    found = [
        order
        for order in lane
        if order.state == OrderState.SLICING
        or (rest_counts and (rests(order) or _is_leaving(order)))
    ]
    return amending.asked_for_by(signal.strategy_id, found, but_not=signal.pk)


def _is_leaving(order: Order) -> bool:
    asked_for = order.role in (Order.Role.ENTRY, Order.Role.EXIT)
    return asked_for and order.state == OrderState.CANCELING


def _is_opposed(order: Order, leg: Leg, alert: Alert) -> bool:
    """Whether ``order`` is worked in slices, and the alert trades the other way, or says anew what is
    to be closed; or it rests: beside the difference to a target, an entry would trade too much, and
    so would an exit to the same side.
    """
    if order.state != OrderState.SLICING:
        return order.role == Order.Role.ENTRY or _goes_with(order, leg, alert)
    if order.is_exit:
        return _says_anew(leg, alert, Side(order.side))
    other_side = alert.action is not Action.CLOSE and order.side != alert.action.value
    return other_side or is_target(leg, alert)


def _goes_with(order: Order, leg: Leg, alert: Alert) -> bool:
    """Whether the alert trades to the side of ``order``; a sized close goes beside it."""
    way = heading(leg, alert, held_in(leg.account, leg.symbol))
    return not alert.wants_flat and way * Side(order.side).sign > 0


def _leaves_in_slices(order: Order) -> bool:
    return order.role == Order.Role.EXIT and order.state == OrderState.SLICING


def _says_anew(leg: Leg, alert: Alert, side: Side) -> bool:
    """Whether the alert decides about all that is held, so that an exit in slices on ``side`` hands
    over what is left of it: a target, a share of the position, more than is held. A close of
    everything takes it over whoever asked for it (``in_the_way``); a sized one goes beside it, and
    what has no market is refused.
    """
    if alert.quantity_type is QuantityType.PERCENT_OF_POSITION or is_target(leg, alert):
        return True
    if only_exits(alert) or side_of(alert) is not side or leg.market is None:
        return False
    quantity = quantity_of(alert, leg.route, leg.market)
    if alert.quantity is None and leg.route.sizing == Route.Sizing.FIXED_QUANTITY:
        quantity = leg.route.quantity
    held = abs(held_in(leg.account, leg.symbol))
    return turns_over(alert) or quantity is None or quantity > held


def _is_halted(leg: Leg) -> bool:
    """Whether an exit will be denied, so that nothing may be cancelled for it."""
    standing = switch.standing(
        account=leg.account.name,
        venue=leg.account.venue,
        symbol=leg.symbol,
        strategy=leg.route.strategy.slug,
    )
    return standing is not None and standing.state == TradingState.State.HALTED


def want_gone(signal: Signal, orders: Sequence[Order]) -> None:
    """Note on the rows that the alert cancels them, also those of unknown fate: whatever turns up of
    them is cancelled then, and no amend takes their place.
    """
    mine = cancels.by_alert(signal)
    new = [order.pk for order in orders if order.cancel_asked_by != mine]
    if new:
        cancels.want(Order.objects.filter(pk__in=new), ReasonCode.CANCELED_BY_SIGNAL, mine)
