"""A queue of alerts whose next one waits on some of its accounts goes on on the others.

On each account alerts are decided in the order in which they came: one is decided where everything
before it is settled, and waits where something is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from execution import arrivals
from execution.alerts import Action, Alert
from execution.legs import accounts_settled, lane_legs, legs_on, no_route, orders_from, routes_of
from execution.models import Order, Route, Signal
from execution.pipeline import Decision, Step, decide_announced, refuse_alone
from execution.queues import LOOKED_AT, Queue, closes_everything, undecided
from execution.timeliness import refuse_on_arrival
from execution.under_way import LONG
from risk.types import Refusal


def turns(queue: Queue) -> Iterator[tuple[Signal, set[int]]]:
    """What waits behind the first of ``queue``, in its order, with the accounts where its turn has
    come. What becomes of one counts for those behind it.
    """
    waiting = undecided(*queue).order_by("id").values_list("pk", flat=True)
    first = waiting.first()
    free = accounts_settled(orders_from(first)) if first else set()
    ids = list(waiting[:LOOKED_AT]) if free else []
    while free and ids:
        settled = _settled(ids)
        for signal_id in ids:
            if here := free - settled[signal_id]:
                yield Signal.objects.select_related("strategy").get(pk=signal_id), here
                settled[signal_id] = accounts_settled(orders_from(signal_id))
            free &= settled[signal_id]
        ids = list(waiting.filter(pk__gt=ids[-1])[:LOOKED_AT])


def _settled(signal_ids: Collection[UUID]) -> dict[UUID, set[int]]:
    orders = Order.objects.filter(signal__in=signal_ids, parent__isnull=True)
    found: defaultdict[UUID | None, list[Order]] = defaultdict(list)
    for order in orders.exclude(role=Order.Role.STOP_LOSS).defer(*LONG):
        found[order.signal_id].append(order)
    return {signal_id: accounts_settled(found[signal_id]) for signal_id in signal_ids}


def decide(signal: Signal, accounts: Collection[int]) -> Decision:
    """Decide ``signal`` on ``accounts`` alone, if all it does is trade on each of them. A cancel ends
    there what it is meant for, and keeps its turn. Safe to call twice and concurrently. Raises Crowded
    like any decision.
    """
    alert = Alert.from_json(signal.alert)
    try:
        refuse_on_arrival(signal, alert)
    except Refusal as refusal:
        return refuse_alone(signal, refusal)
    routes = routes_of(signal, alert)
    if not routes and not orders_from(signal.pk):
        return refuse_alone(signal, no_route())
    if _has_one_turn(signal, alert, routes):
        return Decision(Step.WAIT)
    legs = legs_on([route for route in routes if route.account_id in accounts], signal, alert)
    others = [leg for leg in lane_legs(signal, alert) if leg.account.pk not in accounts]
    return decide_announced(signal, alert, legs, others)


def _has_one_turn(signal: Signal, alert: Alert, routes: Sequence[Route]) -> bool:
    """Whether it does more than trade or cancel on each account, or may be refused on all at once."""
    if alert.action is Action.CANCEL:
        return False
    does_more = bool(alert.replaces) or closes_everything(alert)
    is_shared = any(route.group for route in routes)
    return does_more or is_shared or arrivals.over_limit(signal) is not None
