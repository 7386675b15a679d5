"""Which contract an alert goes into, of those its alias means today and meant on earlier days."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from execution.aims import only_exits
from execution.alerts import Action, Alert
from execution.amending import asked_for_by
from execution.book import Owner, counts_as, owner_of
from execution.facts import Leg
from execution.models import Order, Route, Strategy
from execution.states import HELD, OrderState
from execution.under_way import RESTING, alive_in, held_in, is_target, moving, takes_off


def contract_of(alert: Alert, route: Route, contracts: Sequence[str]) -> str | None:
    """The first of ``contracts``, today's before the latest of the earlier ones, in which the strategy
    has something of its own that the alert ends or counts; where it has nothing in any of them, what
    an operator traded, or nobody. ``None`` for what opens or adds.
    """
    legs = [Leg(route, symbol) for symbol in contracts]
    if alert.action is Action.CANCEL:
        return next((leg.symbol for leg in legs if _under_way(leg)), None)
    owners = {leg.symbol: _owner(leg) for leg in legs if _is_meant(leg, alert)}
    own = (
        leg.symbol for leg in legs if owners.get(leg.symbol) is Owner.OWN or _ends_first(leg, alert)
    )
    nobodys = (symbol for symbol, owner in owners.items() if owner is Owner.NOBODY)
    coming = (leg.symbol for leg in legs if only_exits(alert) and _under_way(leg))
    return next(chain(own, nobodys, coming), None)


def _under_way(leg: Leg) -> list[Order]:
    """The lane's orders that may be the strategy's own."""
    mine = counts_as(leg.route.strategy)
    return [
        order
        for order in alive_in(leg)
        if order.role != Order.Role.STOP_LOSS
        and (leg.route.strategy.is_manual or order.strategy_id in mine)
    ]


def _is_meant(leg: Leg, alert: Alert) -> bool:
    """Whether the alert takes off what is held, or counts it."""
    held = held_in(leg.account, leg.symbol)
    return held != 0 and (is_target(leg, alert) or takes_off(leg, alert, held))


def _owner(leg: Leg) -> Owner:
    held = held_in(leg.account, leg.symbol)
    return owner_of(held, leg.account, leg.symbol, leg.route.strategy)


def _ends_first(leg: Leg, alert: Alert) -> bool:
    """Whether the alert is one that asks for a certain position, and waits for orders here to end, or
    cancels them, before it is decided. What only a person can end holds it up nowhere.
    """
    if not (alert.wants_flat or is_target(leg, alert)):
        return False
    lane = _under_way(leg)
    meant = lane if alert.wants_flat else asked_for_by(leg.route.strategy_id, lane)
    return bool(moving(lane)) or any(_gives_way(one, leg.route.strategy, alert) for one in meant)


def _gives_way(order: Order, strategy: Strategy, alert: Alert) -> bool:
    """Whether ``order`` is an entry that the alert cancels before anybody has to agree. Before an exit
    that waits for a person only a close cancels, and only what waits as well.
    """
    if order.role != Order.Role.ENTRY:
        return False
    if order.state in HELD:
        return alert.wants_flat
    goes_as_exit = alert.wants_flat or order.side != alert.action.value
    waits = strategy.needs_approval and (strategy.exits_need_approval or not goes_as_exit)
    return not waits and order.state in (OrderState.SLICING, *RESTING)
