"""From a leg to a row: what is written down, and how the request to the venue looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from brokers.models import Account
from brokers.order_form import check_form
from brokers.types import OrderRequest, OrderType, Side, TimeInForce
from execution import judging, pipeline
from execution.models import Order, Route, Signal
from execution.states import OrderState
from risk.types import ReasonCode
from tests.brokers.scripted import Script, script_of
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db
LANE = "BTC/USDT"
D = Decimal


@pytest.fixture
def route(scripted: Callable[..., Account]) -> Route:
    allow_trading()
    return RouteFactory.create(account=scripted())


@pytest.fixture
def script(route: Route) -> Script:
    return script_of(route.account)


def order_for(route: Route, **alert: Any) -> Order:
    fields = {"symbol": LANE, "action": "buy", "quantity": "0.01"} | alert
    given = {name: value for name, value in fields.items() if value is not None}
    signal = SignalFactory.create(strategy=route.strategy, alert=given, action=fields["action"])
    pipeline.decide(Signal.objects.select_related("strategy").get(pk=signal.pk))
    return Order.objects.get(signal=signal)


@pytest.mark.parametrize(
    ("alert", "price", "stop_price"),
    [
        ({"order_type": "limit", "price": "59000.123"}, "59000.12", None),
        ({"order_type": "limit", "price": "59000.123", "action": "sell"}, "59000.13", None),
        ({"order_type": "stop", "stop_price": "61000.123"}, None, "61000.12"),
        ({"price": "59000.123"}, None, None),
    ],
)
def test_prices_are_on_the_venues_grid_on_the_safe_side(
    route: Route, alert: dict[str, str], price: str | None, stop_price: str | None
) -> None:
    order = order_for(route, **alert)
    assert order.price == (None if price is None else D(price))
    assert order.stop_price == (None if stop_price is None else D(stop_price))


def test_what_an_alert_says_about_execution_is_kept(route: Route) -> None:
    order = order_for(route, order_type="limit", price="59000", time_in_force="ioc", post_only=True)
    assert (order.type, order.time_in_force, order.post_only) == ("limit", "ioc", True)
    assert order.signal is not None
    assert order.strategy == route.strategy


@pytest.mark.parametrize("able", [True, False])
def test_an_exit_is_reduce_only_where_the_venue_can(
    route: Route, script: Script, able: bool
) -> None:
    script.capabilities = replace(script.capabilities, reduce_only=able)
    PositionFactory.create(account=route.account)
    assert order_for(route, action="close", quantity=None).reduce_only is able
    assert order_for(route, symbol="ETH/USDT", quantity="1").reduce_only is False


GTC, IOC, DAY = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.DAY
EVERYTHING, GTC_ONLY, DAY_ONLY = frozenset(TimeInForce), frozenset({GTC}), frozenset({DAY})
CLOSE: dict[str, Any] = {"action": "close", "quantity": None}
LIMIT = {"action": "sell", "quantity": "0.01", "order_type": "limit", "price": "61000"}
STOP = {"action": "sell", "quantity": "0.01", "order_type": "stop", "stop_price": "59000"}


@pytest.mark.parametrize(
    ("alert", "times", "rests", "sent"),
    [
        (CLOSE | {"post_only": True}, EVERYTHING, True, (GTC, False)),
        (CLOSE | {"time_in_force": "fok"}, EVERYTHING, True, (GTC, False)),
        (CLOSE | {"time_in_force": "day"}, GTC_ONLY, True, (GTC, False)),
        (CLOSE, DAY_ONLY, True, (DAY, False)),
        ({"action": "sell", "post_only": True}, EVERYTHING, True, (GTC, False)),
        ({"action": "sell", "reduce_only": True, "time_in_force": "day"}, GTC_ONLY, True, (GTC, False)),
        ({"market_position": "flat", "post_only": True}, EVERYTHING, False, (GTC, False)),
        (LIMIT | {"post_only": True}, EVERYTHING, True, (GTC, True)),
        (LIMIT | {"post_only": True}, EVERYTHING, False, (GTC, False)),
        (LIMIT | {"post_only": True, "time_in_force": "ioc"}, EVERYTHING, True, (IOC, False)),
        (LIMIT | {"time_in_force": "fok"}, GTC_ONLY, True, (GTC, False)),
        (LIMIT | {"time_in_force": "day"}, EVERYTHING, True, (DAY, False)),
        (STOP | {"time_in_force": "ioc", "post_only": True}, EVERYTHING, True, (GTC, False)),
    ],
)  # fmt: skip
def test_an_exit_leaves_without_what_its_venue_does_not_have_or_nobody_could(
    route: Route,
    script: Script,
    alert: dict[str, Any],
    times: frozenset[TimeInForce],
    rests: bool,
    sent: tuple[TimeInForce, bool],
) -> None:
    script.capabilities = replace(script.capabilities, time_in_force=times, post_only=rests)
    PositionFactory.create(account=route.account)

    order = order_for(route, **alert)

    assert (order.state, order.role) == (OrderState.PENDING, Order.Role.EXIT), order.detail
    request = judging.request_of(order)
    assert (request.time_in_force, request.post_only) == sent
    check_form(request, script.capabilities, "the venue")


@pytest.mark.parametrize("asked", [{"post_only": True}, {"time_in_force": "day"}])
def test_an_entry_is_not_sent_in_another_way_than_asked(
    route: Route, script: Script, asked: dict[str, Any]
) -> None:
    times = frozenset({GTC})
    script.capabilities = replace(script.capabilities, time_in_force=times, post_only=False)
    order = order_for(route, order_type="limit", price="59000", **asked)
    assert (order.state, order.reason) == (OrderState.DENIED, ReasonCode.NOT_SUPPORTED)


def test_a_denied_order_keeps_the_arithmetic_done_so_far(route: Route) -> None:
    allow_trading(max_order_value="1")
    order = order_for(route)
    assert (order.state, order.quantity, order.price) == (OrderState.DENIED, D("0.01"), None)
    assert [step["result"] for step in order.sizing] == ["0.01"]
    failed = [one["code"] for one in order.verdicts if not one["passed"]]
    assert failed == ["MAX_ORDER_VALUE"]


def test_an_order_that_could_not_even_be_sized_is_a_row_too(route: Route, script: Script) -> None:
    script.price = D("0.0000001")
    order = order_for(route, quantity="1E-17")
    assert (order.state, order.quantity) == (OrderState.DENIED, 0)
    assert order.reason == ReasonCode.SIZE_TOO_SMALL
    assert order.verdicts[0]["numbers"]["min_quantity"] == "0.00001"


def test_every_limit_that_fails_is_shown(route: Route) -> None:
    allow_trading(max_order_value="1", max_position_value="2")
    failed = {one["code"] for one in order_for(route).verdicts if not one["passed"]}
    assert failed == {"MAX_ORDER_VALUE", "MAX_POSITION_VALUE"}


def test_a_stop_loss_the_venue_cannot_hold_is_refused(route: Route, script: Script) -> None:
    script.capabilities = replace(
        script.capabilities,
        order_types=frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT}),
    )
    order = order_for(route, stop_loss="50000")
    assert (order.state, order.reason) == (OrderState.DENIED, ReasonCode.NOT_SUPPORTED)
    assert "no stop-market orders" in order.verdicts[-1]["detail"]


def test_a_position_that_will_be_guarded_says_so(route: Route) -> None:
    order = order_for(route, stop_loss="50000", take_profit=[{"price": "70000", "percent": "100"}])
    note = next(one for one in order.verdicts if one["rule"] == "protection")
    assert "the stop loss is placed at the venue" in note["detail"]
    assert "watches the take profit" in note["detail"]


def test_an_order_as_a_plugin_gets_it() -> None:
    order = OrderFactory.build(
        account=None,
        type="stop_limit",
        side="sell",
        price=D(59000),
        stop_price=D(59500),
        time_in_force="gtc",
        reduce_only=True,
    )
    assert judging.request_of(order) == OrderRequest(
        identity=order.id.hex,
        symbol=LANE,
        side=Side.SELL,
        type=OrderType.STOP_LIMIT,
        quantity=D("0.01"),
        price=D(59000),
        stop_price=D(59500),
        time_in_force=TimeInForce.GTC,
        reduce_only=True,
        reference_price=D(60000),
    )
    order.attempt = 2
    assert judging.request_of(order).attempt == 2
