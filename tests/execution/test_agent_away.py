"""Exits while a bridge agent has not said yet, in this process, what its terminal can do: they wait."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from brokers.errors import ConfigurationError, QueryFailedError
from brokers.models import Account
from execution import lanes, protect, tasks
from execution.models import Order, Protection, Route
from execution.states import OrderState, SignalState
from tests.brokers.scripted import Script, script_of
from tests.execution.trading import LANE, held, process, send
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    StrategyFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db
AWAY = QueryFailedError("the bridge agent: no connection: ConnectionRefusedError")


@pytest.fixture
def route(scripted: Callable[..., Account]) -> Route:
    """Holds 0.01 BTC, entered while the agent was there."""
    allow_trading()
    route: Route = RouteFactory.create(account=scripted(), strategy=StrategyFactory.create())
    assert process(send(route.strategy)).state == SignalState.EXECUTED
    return route


@pytest.fixture
def script(route: Route) -> Script:
    return script_of(route.account)


def go_away(script: Script) -> None:
    script.failure = script.capabilities_failure = AWAY


def come_back(script: Script) -> None:
    script.failure = script.capabilities_failure = None


@pytest.mark.parametrize("alert", [{"action": "close"}, {"action": "sell", "quantity": "0.01"}])
def test_an_exit_alert_waits_and_is_carried_out(
    route: Route, script: Script, eager: None, alert: dict[str, str]
) -> None:
    go_away(script)
    signal = send(route.strategy, **alert)
    for _ in range(5):
        process(signal)
    assert (signal.state, signal.tries) == (SignalState.RECEIVED, 0)
    assert not Order.objects.filter(signal=signal).exists()
    come_back(script)
    assert process(signal).state == SignalState.EXECUTED
    assert held(route.account) == 0


def test_an_entry_is_refused_as_at_any_venue_that_is_away(route: Route, script: Script) -> None:
    script.capabilities_failure = AWAY
    signal = process(send(route.strategy))
    assert (signal.state, signal.reason) == (SignalState.DENIED, "VENUE_UNREACHABLE")


@pytest.mark.parametrize("role", [Order.Role.EXIT, Order.Role.STOP_LOSS, Order.Role.FLATTEN])
def test_an_order_in_its_lane_stays_there(route: Route, script: Script, role: str) -> None:
    order = OrderFactory.create(
        account=route.account, strategy=route.strategy, role=role, side="sell"
    )
    go_away(script)
    tasks.run_lane(route.account_id, LANE)
    order.refresh_from_db()
    assert (order.state, order.attempt) == (OrderState.PENDING, 0)
    come_back(script)
    tasks.run_lane(route.account_id, LANE)
    order.refresh_from_db()
    assert order.state == OrderState.FILLED


def test_one_that_is_to_end_ends_all_the_same(route: Route, script: Script) -> None:
    late = OrderFactory.create(
        account=route.account, expires_at=timezone.now() - timedelta(seconds=1)
    )
    unwanted = OrderFactory.create(
        account=route.account, symbol="ETH/USDT", cancel_reason="CANCELED_BY_OPERATOR"
    )
    go_away(script)
    tasks.run_lane(route.account_id, LANE)
    tasks.run_lane(route.account_id, "ETH/USDT")
    late.refresh_from_db()
    unwanted.refresh_from_db()
    assert (late.state, late.reason) == (OrderState.EXPIRED, "EXPIRED_BEFORE_SENDING")
    assert (unwanted.state, unwanted.reason) == (OrderState.CANCELED, "CANCELED_BY_OPERATOR")


def test_what_an_operator_must_change_still_ends_it(route: Route, script: Script) -> None:
    order = OrderFactory.create(account=route.account)
    script.capabilities_failure = ConfigurationError("the terminal is on a demo account")
    lanes.claim_next(route.account, LANE)
    order.refresh_from_db()
    assert (order.state, order.reason) == (OrderState.DENIED, "ACCOUNT_MISCONFIGURED")


def test_an_approved_exit_stays_approved(scripted: Callable[..., Account]) -> None:
    allow_trading()
    strategy = StrategyFactory.create(
        needs_approval=True, exits_need_approval=True, approval_seconds=60
    )
    route = RouteFactory.create(account=scripted(), strategy=strategy)
    PositionFactory.create(account=route.account, symbol=LANE, quantity=Decimal("0.01"))
    signal = process(send(strategy, "close"))
    order = Order.objects.get(signal=signal)
    assert order.state == OrderState.AWAITING_APPROVAL
    Order.objects.filter(pk=order.pk).update(state=OrderState.APPROVED)
    go_away(script_of(route.account))
    tasks.release_order(str(order.pk))
    order.refresh_from_db()
    assert order.state == OrderState.APPROVED
    come_back(script_of(route.account))
    tasks.release_order(str(order.pk))
    order.refresh_from_db()
    assert order.state == OrderState.FILLED


def test_nobody_holds_the_lock_of_the_account_while_it_is_asked(
    route: Route, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Order.objects.get()
    Protection.objects.create(account=route.account, symbol=LANE, entry=entry, stop_price=58000)
    go_away(script)
    locks: list[object] = []
    monkeypatch.setattr(protect.transaction, "atomic", lambda *_: locks.append(1))
    with pytest.raises(QueryFailedError):
        protect.align(route.account, LANE)
    assert locks == []
