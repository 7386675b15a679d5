"""Limits in the path of real signals: what is denied, what is kept of it, and what halts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from brokers.models import Account
from brokers.types import Candle, ExecutionResult, OrderType, Outcome, TimeInForce
from execution import dispatch, pipeline
from execution.models import Order, Route, Signal
from execution.states import OrderState
from risk import hits, switch
from risk.limits import set_limit
from risk.models import AuditEvent, LimitHit, TradingState
from risk.types import LimitMode, ReasonCode, Verdict
from tests.brokers.scripted import Script, script_of
from tests.factories import OrderFactory, RouteFactory, SignalFactory, allow_trading
from tests.threads import beside, wait_for_a_blocked_backend

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


def put(rule: str, value: str, mode: LimitMode = LimitMode.ENFORCE, **parameters: str) -> None:
    set_limit(rule, D(value), mode=mode, parameters=parameters, reason="test")


def order_for(route: Route, **alert: Any) -> Order:
    given = {"symbol": LANE, "action": "buy", "quantity": "0.01"} | alert
    fields = {name: value for name, value in given.items() if value is not None}
    signal = SignalFactory.create(strategy=route.strategy, alert=fields, action=fields["action"])
    pipeline.decide(Signal.objects.select_related("strategy").get(pk=signal.pk))
    return Order.objects.get(signal=signal)


def outcome(order: Order) -> tuple[str, str]:
    return order.state, order.reason


# --- the collar -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "price"), [("buy", "63000"), ("sell", "57000")])
def test_a_market_order_goes_out_as_a_limit_at_the_collar(
    route: Route, action: str, price: str
) -> None:
    put("price_collar", "0.1")
    set_limit("price_collar", D("0.05"), account=route.account, reason="tighter")
    order = order_for(route, action=action)
    assert (order.type, order.time_in_force, order.price) == ("limit", "ioc", D(price))
    assert order.reference_price == 60000


def test_an_observed_collar_changes_nothing(route: Route) -> None:
    put("price_collar", "0.05", LimitMode.OBSERVE)
    assert order_for(route).type == "market"


def test_an_exit_is_not_held_to_the_collar(route: Route) -> None:
    from tests.factories import PositionFactory

    put("price_collar", "0.05")
    PositionFactory.create(account=route.account)
    signal = SignalFactory.create(
        strategy=route.strategy, action="close", alert={"symbol": LANE, "action": "close"}
    )
    pipeline.decide(signal)
    assert Order.objects.get().type == "market"


def test_where_the_venue_takes_no_such_limit_the_parameter_decides(
    route: Route, script: Script
) -> None:
    script.capabilities = replace(script.capabilities, time_in_force=frozenset({TimeInForce.GTC}))
    put("price_collar", "0.05")
    assert order_for(route).type == "market"
    put("price_collar", "0.05", market_orders="deny")
    assert outcome(order_for(route)) == (OrderState.DENIED, ReasonCode.PRICE_COLLAR)
    assert OrderType.LIMIT in script.capabilities.order_types


def test_a_limit_beyond_the_collar_is_denied(route: Route) -> None:
    put("price_collar", "0.05")
    denied = order_for(route, order_type="limit", price="63000.01")
    assert outcome(denied) == (OrderState.DENIED, ReasonCode.PRICE_COLLAR)
    assert order_for(route, order_type="limit", price="63000").state == OrderState.PENDING


# --- what is kept ---------------------------------------------------------------------------------


def test_denials_observations_and_warnings_are_kept_and_counted(route: Route) -> None:
    put("max_order_value", "700")
    put("max_open_orders", "1", LimitMode.OBSERVE)
    order_for(route)
    order_for(route)
    denied = order_for(route, quantity="0.02")
    kept = LimitHit.objects.order_by("pk").values_list("kind", "rule", "strategy", "symbol")
    assert list(kept) == [
        ("warned", "max_open_orders", route.strategy.slug, LANE),
        ("warned", "max_order_value", route.strategy.slug, LANE),
        ("observed", "max_open_orders", route.strategy.slug, LANE),
        ("warned", "max_order_value", route.strategy.slug, LANE),
        ("observed", "max_open_orders", route.strategy.slug, LANE),
        ("denied", "max_order_value", route.strategy.slug, LANE),
    ]
    last = LimitHit.objects.first()
    assert last is not None
    assert (last.order_id, last.account) == (denied.pk, route.account)
    assert last.detail == "order value 1200 is above the limit of 700 (everything)"
    assert hits.today() == {
        ("max_order_value", "everything"): {"warned": 2, "denied": 1},
        ("max_open_orders", "everything"): {"warned": 1, "observed": 2},
    }


# --- limits that look beyond the account ----------------------------------------------------------


def test_a_gross_limit_counts_every_account(route: Route, scripted: Callable[..., Account]) -> None:
    put("max_gross_exposure", "1800")
    put("max_account_exposure", "1200")
    other = RouteFactory.create(account=scripted())
    assert order_for(route).state == OrderState.PENDING
    assert order_for(route).state == OrderState.PENDING
    assert outcome(order_for(route)) == (OrderState.DENIED, ReasonCode.MAX_ACCOUNT_EXPOSURE)
    assert order_for(other).state == OrderState.PENDING
    assert outcome(order_for(other)) == (OrderState.DENIED, ReasonCode.MAX_GROSS_EXPOSURE)


def test_an_order_of_ours_in_the_way_denies(route: Route) -> None:
    put("self_match", "1")
    OrderFactory.create(
        account=route.account, side="sell", type="limit", price="59999", state="open"
    )
    assert outcome(order_for(route)) == (OrderState.DENIED, ReasonCode.SELF_MATCH)


def test_the_same_order_under_another_id_is_a_duplicate(route: Route) -> None:
    put("price_collar", "0.05")
    put("duplicate_order", "5")
    assert order_for(route, idempotency_key="one").state == OrderState.PENDING
    again = order_for(route, idempotency_key="two")
    assert outcome(again) == (OrderState.DENIED, ReasonCode.DUPLICATE_ORDER)
    assert order_for(route, quantity="0.011").state == OrderState.PENDING


@pytest.mark.parametrize("rule", [("duplicate_order", "60"), ("repeated_execution", "1")])
def test_an_entry_held_back_and_then_halted_does_not_count(
    route: Route, script: Script, rule: tuple[str, str]
) -> None:
    put(*rule)
    script.outcomes.append(
        ExecutionResult(Outcome.NOT_SENT, code="RATE_LIMITED", retry_after=1, held_back=True)
    )
    order = order_for(route, idempotency_key="one")
    dispatch.run_lane(route.account.pk, LANE)
    Order.objects.update(next_check_at=None)
    switch.change(TradingState.State.HALTED, reason="test")
    dispatch.run_lane(route.account.pk, LANE)
    order.refresh_from_db()
    assert (*outcome(order), order.attempt) == (OrderState.DENIED, ReasonCode.TRADING_HALTED, 1)
    switch.change(TradingState.State.ACTIVE, reason="test")
    assert order_for(route, idempotency_key="two").state == OrderState.PENDING


def test_an_entry_that_seemed_never_to_leave_is_not_denied_for_good(
    route: Route, script: Script
) -> None:
    """A terminal may act on it later still, and then it is to be found again."""
    script.outcomes.append(ExecutionResult(Outcome.NOT_SENT, code="NOT_TAKEN", retry_after=1))
    order = order_for(route)
    dispatch.run_lane(route.account.pk, LANE)
    Order.objects.update(next_check_at=None)
    switch.change(TradingState.State.HALTED, reason="test")
    dispatch.run_lane(route.account.pk, LANE)
    order.refresh_from_db()
    assert outcome(order) == (OrderState.NOT_PLACED, ReasonCode.TRADING_HALTED)


# --- rules that halt ------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_too_many_entries_halt_the_strategy_until_a_person_resumes_it(route: Route) -> None:
    put("repeated_execution", "2")
    assert [order_for(route).state for _ in range(2)] == [OrderState.PENDING] * 2
    assert outcome(order_for(route)) == (OrderState.DENIED, ReasonCode.REPEATED_EXECUTION)
    row = TradingState.objects.get()
    assert (row.scope, row.key, row.state) == ("strategy", route.strategy.slug, "halted")
    assert row.changed_by == "risk rule"
    assert row.reason.startswith("repeated_execution: entries within 60 s 3 is above the limit")
    assert outcome(order_for(route)) == (OrderState.DENIED, ReasonCode.TRADING_HALTED)
    assert AuditEvent.objects.filter(kind="trading_state.changed").count() == 1
    switch.change(
        TradingState.State.ACTIVE,
        scope=TradingState.Scope.STRATEGY,
        key=route.strategy.slug,
        reason="it was a storm",
    )
    assert order_for(route).state == OrderState.PENDING


@pytest.mark.django_db(transaction=True)
def test_rejections_in_a_row_halt_the_strategy(route: Route) -> None:
    put("reject_streak", "3")
    for _ in range(3):
        order = order_for(route)
        assert order.state == OrderState.PENDING
        Order.objects.filter(pk=order.pk).update(state=OrderState.REJECTED)
    assert outcome(order_for(route)) == (OrderState.DENIED, ReasonCode.REJECT_STREAK)
    assert TradingState.objects.get().state == "halted"


@pytest.mark.django_db(transaction=True)
def test_a_rule_does_not_take_back_the_flatten_of_the_same_moment() -> None:
    denied = Verdict("reject_streak", False, "three in a row")
    with transaction.atomic():
        switch.change(
            TradingState.State.HALTED,
            scope=TradingState.Scope.STRATEGY,
            key="demo",
            flatten=True,
            reason="close it",
        )
        halt = beside(lambda: hits.halt("demo", denied))
        wait_for_a_blocked_backend()
    halt.result(30)
    row = TradingState.objects.get()
    assert (row.state, row.flatten, row.reason) == ("halted", True, "close it")


@pytest.mark.django_db(transaction=True)
def test_an_observed_rule_halts_nothing(route: Route) -> None:
    put("repeated_execution", "0", LimitMode.OBSERVE)
    assert order_for(route).state == OrderState.PENDING
    assert not TradingState.objects.exists()


# --- sizing by the average true range -------------------------------------------------------------


def hours(*spans: str) -> list[Candle]:
    """One candle per span around 60000, oldest first."""
    return [
        Candle(datetime(2026, 1, 1, one, tzinfo=UTC), D(60000) + D(span), D(60000), D(60000))
        for one, span in enumerate(spans)
    ]


@pytest.fixture
def by_range(route: Route) -> Route:
    """Two percent of a million at risk, two ranges away."""
    Route.objects.filter(pk=route.pk).update(
        sizing="atr", quantity=None, percent=D("0.02"), atr_multiple=D(2)
    )
    route.refresh_from_db()
    return route


def test_the_range_the_alert_names_sizes_the_order(by_range: Route) -> None:
    assert order_for(by_range, quantity=None, atr="1000").quantity == 10


def test_without_one_the_venues_hours_do_and_the_unfinished_one_is_left_out(
    by_range: Route, script: Script
) -> None:
    script.hours = hours("9", *["500"] * 7, *["1500"] * 7, "99999")
    order = order_for(by_range, quantity=None)
    assert order.quantity == 10
    assert ["ATR × multiple", "1000 × 2"] in [
        [one["label"], one["formula"]] for one in order.sizing
    ]


@pytest.mark.parametrize("spans", [[], ["500"] * 15, ["-1"] * 16])
def test_too_few_hours_or_senseless_ones_size_nothing(
    by_range: Route, script: Script, spans: list[str]
) -> None:
    script.hours = hours(*spans)
    order = order_for(by_range, quantity=None)
    assert outcome(order) == (OrderState.DENIED, ReasonCode.REFERENCE_UNAVAILABLE)
