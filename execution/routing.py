"""Smart order routing: which account of a group of routes takes an alert.

What opens or adds goes to the account with the best price after fees. What takes off goes where the
position is, whatever the prices are. The decision is a row, made once: whoever decides the alert again
keeps it, so that no second account is ever chosen for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import groupby

from django.utils import timezone

from brokers.errors import UnknownSymbolError
from brokers.types import Side
from execution import allocation, amending, legs, quotes
from execution.aims import names_target
from execution.alerts import Action, Alert
from execution.facts import Leg
from execution.legs import symbol_on
from execution.models import Order, Route, RoutingDecision, Signal
from execution.queues import closes_everything
from execution.quotes import Candidate
from execution.states import OrderState
from execution.under_way import alive_in, held_in, moving, rests
from risk.types import ReasonCode, Refusal

Read = dict[int, Leg]
"""Legs that were read for a comparison, by account."""


def open_legs(signal: Signal, alert: Alert) -> list[Leg]:
    """As ``legs.open_legs``, once each group of routes has been decided on and that is committed."""
    routes, decisions, read = _decided(signal, alert, keep=True)
    if not decisions:
        return legs.legs_on(routes, signal, alert)
    refused = _refused(decisions)
    done = legs.accounts_done(legs.orders_from(signal.pk))
    known = [one for one in _known(routes, alert, refused, read) if one.account.pk not in done]
    accounts = {leg.account.pk for leg in known} | done
    rest = [route for route in routes if route.account_id not in accounts]
    return known + (legs.legs_on(rest, signal, alert) if rest else [])


def all_legs(signal: Signal, alert: Alert) -> tuple[list[Leg], list[RoutingDecision]]:
    """As ``legs.all_legs`` for a dry run, with the decisions that would be made; none is kept."""
    routes, decisions, read = _decided(signal, alert, keep=False)
    known = _known(routes, alert, _refused(decisions), read)
    accounts = {leg.account.pk for leg in known}
    rest = [route for route in routes if route.account_id not in accounts]
    return known + [legs.read_leg(route, alert) for route in rest], decisions


def _decided(
    signal: Signal, alert: Alert, *, keep: bool
) -> tuple[list[Route], list[RoutingDecision], Read]:
    """The routes that take the alert, by the decisions of their groups."""
    routes = legs.routes_of(signal, alert)
    groups = _groups(routes, alert)
    if not groups:
        return routes, [], {}
    made = {one.group: one for one in RoutingDecision.objects.filter(signal_id=signal.pk)}
    read: Read = {}
    for group, members in groups.items():
        if group not in made:
            decision, legs_read = _decide(signal, alert, group, members)
            made[group] = _kept(decision) if keep else decision
            read |= legs_read
    return legs.routed(routes, made.values()), list(made.values()), read


def _groups(routes: Sequence[Route], alert: Alert) -> dict[str, list[Route]]:
    if alert.action is Action.CANCEL:
        return {}
    grouped = sorted((route for route in routes if route.group), key=lambda route: route.group)
    return {name: list(members) for name, members in groupby(grouped, lambda route: route.group)}


def _kept(decision: RoutingDecision) -> RoutingDecision:
    """The decision as it stands: ours, or the one somebody else made for the alert meanwhile."""
    columns = ("parts", "candidates", "reason", "detail", "at")
    kept, _ = RoutingDecision.objects.get_or_create(
        signal_id=decision.signal_id,
        group=decision.group,
        defaults={name: getattr(decision, name) for name in columns},
    )
    return kept


def _refused(decisions: Sequence[RoutingDecision]) -> dict[int, Refusal]:
    """Why nobody of a group takes the alert, on the account that stands for it."""
    return {
        int(account): Refusal(ReasonCode(decision.reason), decision.detail)
        for decision in decisions
        if decision.reason
        for account in decision.parts
    }


def _known(
    routes: Sequence[Route], alert: Alert, refused: Mapping[int, Refusal], read: Read
) -> list[Leg]:
    """The legs nobody needs to be asked about any more."""
    found = []
    for route in routes:
        if route.account_id in refused:
            refusal = refused[route.account_id]
            found.append(Leg(route, _symbol(route, alert) or alert.symbol, refusal=refusal))
        elif route.account_id in read:
            found.append(read[route.account_id])
    return found


def _decide(
    signal: Signal, alert: Alert, group: str, routes: Sequence[Route]
) -> tuple[RoutingDecision, Read]:
    symbols = {route.account_id: _symbol(route, alert) for route in routes}
    by_target = all(route.sizing == Route.Sizing.FIXED_QUANTITY for route in routes)
    is_target = by_target and names_target(alert)
    held = allocation.in_order(_expected(routes, symbols, is_target=is_target))
    made = RoutingDecision(signal_id=signal.pk, group=group, at=timezone.now())
    if allocation.is_priced(alert, held, by_target=by_target):
        return _by_price(made, signal, alert, routes, held, by_target=by_target)
    parts = allocation.parts(alert, held, by_target=by_target) if held else {}
    if closes_everything(alert) or not parts:
        for account in _with_orders(routes, symbols):
            parts.setdefault(account, allocation.AS_IT_IS)
    if not parts:
        parts = {_first(routes).account_id: allocation.AS_IT_IS}
    names = [route.account.name for route in routes if route.account_id in parts]
    made.parts = {str(account): dict(part) for account, part in parts.items()}
    made.detail = f"it goes where the position is: {', '.join(names)}"
    return made, {}


def _by_price(
    made: RoutingDecision,
    signal: Signal,
    alert: Alert,
    routes: Sequence[Route],
    held: allocation.Held,
    *,
    by_target: bool,
) -> tuple[RoutingDecision, Read]:
    for route in routes:
        route.part = allocation.part_of_addition(alert, held, route.account_id, by_target=by_target)
    asked = quotes.compare(signal, alert, routes)
    best = asked[0]
    made.candidates = [candidate.to_json(best) for candidate in asked]
    for route in routes:
        part, route.part = route.part, None
        if route is best.route:
            made.parts = {str(route.account_id): dict(part or {})}
    if best.refusal is None:
        made.detail = f"{best.route.account.name} has the best price after fees"
        return made, {best.route.account_id: best.leg} if best.leg else {}
    made.parts = {str(_first(routes).account_id): {}}
    made.reason, made.detail = _nobody(asked)
    return made, {}


def _nobody(asked: Sequence[Candidate]) -> tuple[str, str]:
    """Why none of them takes it: their own reason where they share it."""
    codes = {one.refusal.code for one in asked if one.refusal}
    code = codes.pop() if len(codes) == 1 else ReasonCode.NO_VENUE_FITS
    # Which accounts there are is not for everybody who may see the order.
    return code.value, f"none of {len(asked)} in the group can take it; the comparison says why"


def _first(routes: Sequence[Route]) -> Route:
    return min(routes, key=lambda route: route.account.name)


def _symbol(route: Route, alert: Alert) -> str | None:
    try:
        return symbol_on(route, alert)
    except UnknownSymbolError:
        return None


def _expected(
    routes: Sequence[Route], symbols: Mapping[int, str | None], *, is_target: bool
) -> dict[int, Decimal]:
    """What each account holds once what is under way has traded: slices as the whole they are of, and
    no stops, which are nobody's intention. Toward a target, the strategy's entries that rest as well:
    they go on at an account that does not take the alert.
    """
    found: dict[int, Decimal] = {}
    for route in routes:
        symbol = symbols[route.account_id]
        if symbol is None:
            continue
        held, lane = _held_and_alive(Leg(route, symbol))
        counted = moving(lane) + [one for one in lane if one.state == OrderState.SLICING]
        if is_target:
            resting = [one for one in lane if one.role == Order.Role.ENTRY and rests(one)]
            counted += amending.asked_for_by(route.strategy_id, resting)
        found[route.account_id] = held + sum(
            (
                order.remaining * Side(order.side).sign
                for order in counted
                if order.role != Order.Role.STOP_LOSS and order.parent_id is None
            ),
            Decimal(0),
        )
    return found


def _held_and_alive(leg: Leg) -> tuple[Decimal, list[Order]]:
    """Both as of one moment: what fills between two questions would count twice, or not at all."""
    held = held_in(leg.account, leg.symbol)
    while True:
        before, lane = held, alive_in(leg)
        held = held_in(leg.account, leg.symbol)
        if held == before:
            return held, lane


def _with_orders(routes: Sequence[Route], symbols: Mapping[int, str | None]) -> list[int]:
    """Accounts with something under way in the symbol."""
    return [
        route.account_id
        for route in routes
        if (symbol := symbols[route.account_id]) and alive_in(Leg(route, symbol))
    ]
