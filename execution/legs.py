"""The legs of an alert: the accounts it goes to, and what each one's venue says of its symbol.

The venues of several accounts are asked beside each other. One that takes long, or holds its share of
threads already, is late: its leg is decided later, and delays no other account's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import replace
from uuid import UUID

from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db import connection
from django.db.models import OuterRef, QuerySet, Value
from django.utils import timezone

from brokers.aliases import aliases_of, known_shares, of_earlier_days, suggestions, symbol_for
from brokers.errors import BrokerError, QueryFailedError, UnknownSymbolError
from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.sessions import ready_plugin
from brokers.types import Environment
from execution import bulkheads, facts
from execution.alerts import Action, Alert
from execution.bulkheads import Crowded
from execution.contracts import contract_of
from execution.facts import Leg
from execution.models import Order, Route, RoutingDecision, Signal
from execution.states import HELD
from execution.under_way import LONG, has_to_wait, reduces
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds an account waits for the venues of the others, once one has answered."""


def open_legs(signal: Signal, alert: Alert) -> list[Leg]:
    """A leg for each account whose part is not decided yet, with what its venue says.

    Raises Crowded when the only one's venue holds its share of threads already.
    """
    return legs_on(routes_of(signal, alert), signal, alert)


def legs_on(routes: Sequence[Route], signal: Signal, alert: Alert) -> list[Leg]:
    """As ``open_legs``, for some of the routes. No venue is asked for a leg that has to wait."""
    if alert.action is Action.CANCEL:
        return [read_leg(route, alert) for route in routes]
    if len(routes) > 1:
        done = accounts_done(orders_from(signal.pk))
        routes = [route for route in routes if route.account_id not in done]
    # Threads would not see what a transaction of ours has done so far.
    if len(routes) > 1 and not connection.in_atomic_block:
        return _beside_each_other(routes, alert)
    accounts = [route.account_id for route in routes]
    with bulkheads.place(accounts, is_exit=_leaves(alert)):
        return [read_leg(route, alert, may_wait=True) for route in routes]


def all_legs(signal: Signal, alert: Alert) -> list[Leg]:
    """A leg for each account, one after the other, however long that takes."""
    return [read_leg(route, alert) for route in routes_of(signal, alert)]


def leg_on(account: Account, signal: Signal, alert: Alert, *, needs_route: bool = True) -> Leg:
    """The leg of one account, with what its venue says now. Raises Crowded like ``open_legs``.

    An exit that has begun goes on without its route (not ``needs_route``).
    """
    routes = routes_of(signal, alert)
    route = next((one for one in routes if one.account_id == account.pk), None)
    if route is None:
        route = Route(strategy=signal.strategy, account=account)
        if needs_route:
            return Leg(route, alert.symbol, refusal=no_route())
    with bulkheads.place([account.pk], is_exit=_leaves(alert)):
        return read_leg(route, alert)


def lane_legs(signal: Signal, alert: Alert) -> list[Leg]:
    """A leg for each account, by our own tables alone."""
    return [_late(route, alert) for route in routes_of(signal, alert)]


def routes_of(signal: Signal, alert: Alert) -> list[Route]:
    """Where the alert goes; one by hand names its account itself. Of a group that has been routed only
    the accounts that take it, with their parts; of one that has not, all.
    """
    strategy = signal.strategy
    if alert.account:
        named = Account.objects.filter(name=alert.account)
        return [Route(strategy=strategy, account=account) for account in named]
    routes = _routes(strategy=strategy.pk)
    if alert.action is Action.CANCEL or not any(route.group for route in routes):
        return routes
    return routed(routes, RoutingDecision.objects.filter(signal_id=signal.pk))


def routed(routes: Iterable[Route], decisions: Iterable[RoutingDecision]) -> list[Route]:
    """Those of ``routes`` that take the alert by ``decisions``, with their parts."""
    parts = {decision.group: decision.parts for decision in decisions}
    found = []
    for route in routes:
        if route.group in parts:
            route.part = parts[route.group].get(str(route.account_id))
        if route.part is not None or route.group not in parts:
            found.append(route)
    return found


@Prepared
def _routes() -> QuerySet[Route]:
    routes = Route.objects.filter(strategy=given("strategy"), is_enabled=True)
    return routes.select_related("account", "strategy").order_by("account_id")


def no_route() -> Refusal:
    return Refusal(ReasonCode.NO_ROUTE, "the strategy has no enabled route to an account")


def own_orders(signal_id: UUID | OuterRef | Value) -> QuerySet[Order]:
    """The orders a signal asked for; their slices, and the stops that guard what they opened, are not
    its outcome.
    """
    mine = Order.objects.filter(signal_id=signal_id, parent__isnull=True)
    mine = mine.exclude(role=Order.Role.STOP_LOSS)
    return mine.defer(*LONG)


def orders_from(signal_id: UUID) -> list[Order]:
    """``own_orders`` at this moment."""
    return _orders_from(signal=signal_id)


_orders_from = Prepared(lambda: own_orders(given("signal")))


def accounts_done(orders: Iterable[Order]) -> set[int]:
    """Accounts with all of a signal's ``orders``; the first half of a reversal is not all."""
    return {
        order.account_id for order in orders if order.role == Order.Role.ENTRY or not order.reverses
    }


def accounts_settled(orders: Sequence[Order]) -> set[int]:
    """Accounts whose part is decided, or waits for a person to agree."""
    return accounts_done(orders) | {one.account_id for one in orders if one.state in HELD}


def _leaves(alert: Alert) -> bool:
    return alert.wants_flat or alert.reduce_only


def _beside_each_other(routes: Sequence[Route], alert: Alert) -> list[Leg]:
    pool = ThreadPoolExecutor(len(routes), thread_name_prefix="leg")
    asked = [pool.submit(copy_context().run, _read, route, alert) for route in routes]
    pool.shutdown(wait=False)
    wait(asked, return_when=FIRST_COMPLETED)
    wait(asked, timeout=PATIENCE)
    return [_known(route, alert, leg) for route, leg in zip(routes, asked, strict=True)]


def _known(route: Route, alert: Alert, leg: Future[Leg]) -> Leg:
    return leg.result() if leg.done() else _late(route, alert)


def _read(route: Route, alert: Alert) -> Leg:
    try:
        with bulkheads.place([route.account_id], is_exit=_leaves(alert)):
            return read_leg(route, alert, may_wait=True)
    except Crowded:
        return _late(route, alert)
    finally:
        connection.close()


def _late(route: Route, alert: Alert) -> Leg:
    try:
        return replace(_lane_of(route, alert), is_late=True)
    except UnknownSymbolError:
        return Leg(route, alert.symbol, is_late=True)


def symbol_on(route: Route, alert: Alert) -> str:
    """The alert's symbol as the route's account knows it: what its alias means today, or meant on an
    earlier day (``contract_of``). Where its plugin cannot be used, as our tables have it. Raises
    UnknownSymbolError.
    """
    return _lane_of(route, alert).symbol


def has_moved(leg: Leg, alert: Alert) -> bool:
    """Whether the alert goes into another contract by now than when its leg was read."""
    try:
        return leg.has_rolled and symbol_on(leg.route, alert) != leg.symbol
    except UnknownSymbolError:
        return True


def _lane_of(route: Route, alert: Alert) -> Leg:
    account, rows, today = route.account, aliases_of(route.account_id), timezone.now().date()
    earlier = of_earlier_days(alert.symbol, rows, today)
    delayed, shares = route.strategy.allows_delayed, known_shares(account)
    try:
        symbol = symbol_for(
            account, alert.symbol, today, allows_delayed=delayed, rows=rows, shares=shares
        )
    except UnknownSymbolError:
        if (left := contract_of(alert, route, earlier)) is None:
            raise
        return Leg(route, left, has_rolled=True)
    if earlier:
        symbol = contract_of(alert, route, [symbol, *earlier]) or symbol
    return Leg(route, symbol, has_rolled=bool(earlier))


def read_leg(route: Route, alert: Alert, *, may_wait: bool = False) -> Leg:
    """The leg of one route, with what its venue says now. One that ``may_wait`` for orders under way in
    its lane, and has to, is late instead, and so is an exit while nobody says what the venue can do.
    """
    account, leg = route.account, Leg(route, alert.symbol)
    try:
        leg = _lane_of(route, alert)
        if unusable := facts.no_plugin(account):
            return replace(leg, refusal=unusable, has_plugin=False)
        _refuse_account(account)
        return leg if alert.action is Action.CANCEL else _told(leg, alert, may_wait=may_wait)
    except Refusal as refusal:
        return replace(leg, refusal=refusal)
    except UnknownSymbolError as error:
        return replace(leg, refusal=_unknown(account, alert.symbol, error))
    except BrokerError as error:
        return replace(leg, refusal=facts.refusal_of(error))
    except DatabaseFailure:
        raise
    except Exception as error:
        # The boundary to foreign code: a defect of one plugin must not stop the other accounts.
        logger.exception("reading the market of %s failed", account.name)
        broken = f"the plugin of {account.name} failed: {type(error).__name__}"
        return replace(leg, refusal=Refusal(ReasonCode.INTERNAL_ERROR, broken))


def _told(leg: Leg, alert: Alert, *, may_wait: bool) -> Leg:
    account, late = leg.account, replace(leg, is_late=True)
    is_exit = reduces(late, alert)
    if not is_exit:
        facts.refuse_key(account)
    if (may_wait and has_to_wait(late, alert)) or (is_exit and _is_away(account)):
        return late
    market = facts.read_market(account, leg.symbol, alert, is_exit=is_exit)
    if leg.route.sizing == Route.Sizing.ATR:
        market = replace(market, atr=facts.average_range(market, alert))
    return replace(leg, market=market, reduces=is_exit)


def _unknown(account: Account, text: str, error: UnknownSymbolError) -> Refusal:
    refusal = facts.refusal_of(error)
    if alike := suggestions(account, text):
        refusal.detail += f"; did you mean {' or '.join(alike)}?"
    return refusal


def _is_away(account: Account) -> bool:
    """Whether nobody has said yet what the venue can do: its agent has been away since this process
    started. Any other exit waits in its lane meanwhile; this one has to wait before it.
    """
    try:
        ready_plugin(account)
    except QueryFailedError:
        return True
    return False


def _refuse_account(account: Account) -> None:
    if not account.is_active:
        raise Refusal(ReasonCode.ACCOUNT_INACTIVE, f"the account {account.name} is switched off")
    if account.environment == Environment.LIVE and not settings.FKS_LIVE_TRADING:
        raise Refusal(
            ReasonCode.LIVE_TRADING_OFF,
            f"{account.name} is a live account and FKS_LIVE_TRADING is off",
        )
