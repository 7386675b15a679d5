"""How an order is sent: the alert's word, where allowed, before the route's, before the strategy's."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from execution.alerts import Alert, Algorithm
from execution.formats import fks
from execution.models import Order, Route, SlicePlan, Strategy
from execution.schema import Invalid
from execution.states import OrderState
from tests.execution.guarding import Desk, desk
from tests.factories import RouteFactory, StrategyFactory

__all__ = ["desk"]
pytestmark = pytest.mark.django_db
LIMIT = {"order_type": "limit", "price": "59000"}
ALL = "whole, twap, iceberg, ladder"


def settings(desk: Desk, route: str = "", **strategy: Any) -> None:
    Strategy.objects.filter(pk=desk.strategy.pk).update(**strategy)
    Route.objects.filter(strategy=desk.strategy).update(execution=route)
    desk.strategy.refresh_from_db()


def entry(desk: Desk, **alert: Any) -> Order:
    signal = desk.send(quantity="0.1", **alert)
    return Order.objects.get(signal=signal, parent=None, role=Order.Role.ENTRY)


def told(order: Order) -> list[str]:
    return [one["detail"] for one in order.verdicts if one["rule"] == "execution"]


@pytest.mark.parametrize(
    ("strategy", "route", "alert", "algorithm", "why"),
    [
        ("twap", "", {}, "twap", "set on the strategy"),
        ("whole", "twap", {}, "twap", "set on the route to {account}"),
        ("iceberg", "twap", LIMIT, "twap", "set on the route to {account}"),
        ("twap", "ladder", LIMIT | {"execution": "iceberg"}, "iceberg", "the alert asks for it"),
        ("whole", "ladder", LIMIT | {"execution": "twap"}, "twap", "the alert asks for it"),
    ],
)
def test_the_narrower_word_counts_and_the_order_says_whose_it_was(
    desk: Desk, strategy: str, route: str, alert: dict[str, str], algorithm: str, why: str
) -> None:
    settings(desk, route, execution=strategy, allowed_executions=ALL)
    order = entry(desk, **alert)
    assert order.state == OrderState.SLICING
    assert SlicePlan.objects.get(order=order).algorithm == algorithm
    assert told(order) == [f"{algorithm}: {why.format(account=desk.account.name)}"]


@pytest.mark.parametrize(("strategy", "route"), [("twap", ""), ("whole", "twap")])
def test_an_alert_may_ask_for_the_whole_at_once(desk: Desk, strategy: str, route: str) -> None:
    settings(desk, route, execution=strategy, allowed_executions="whole")
    order = entry(desk, execution="whole")
    assert order.state == OrderState.FILLED
    assert told(order) == ["whole: the alert asks for it"]


def test_a_route_may_send_whole_what_its_strategy_slices(desk: Desk) -> None:
    settings(desk, "whole", execution="twap")
    order = entry(desk)
    assert order.state == OrderState.FILLED
    assert told(order) == [f"whole: set on the route to {desk.account.name}"]


@pytest.mark.parametrize(("allowed", "said"), [("", "nothing"), ("ladder", "ladder")])
def test_what_the_strategy_does_not_allow_is_refused_with_its_numbers(
    desk: Desk, allowed: str, said: str
) -> None:
    settings(desk, execution="whole", allowed_executions=allowed)
    order = entry(desk, execution="twap")
    assert (order.state, order.reason) == (OrderState.DENIED, "EXECUTION_NOT_ALLOWED")
    slug = desk.strategy.slug
    assert order.detail == f"the alert asks for twap; {slug} lets alerts choose {said}"
    assert order.verdicts[-1]["numbers"] == {"asked": "twap", "allowed": allowed}
    assert not desk.script.sent


def test_asking_for_what_is_done_anyway_needs_no_permission(desk: Desk) -> None:
    settings(desk, execution="twap", allowed_executions="")
    order = entry(desk, execution="twap")
    assert (order.state, told(order)) == (OrderState.SLICING, ["twap: set on the strategy"])


def test_each_account_of_a_strategy_has_its_own(desk: Desk, scripted: Any) -> None:
    other = RouteFactory.create(strategy=desk.strategy, account=scripted(), execution="twap")
    signal = desk.send(quantity="0.1")
    mine = Order.objects.filter(signal=signal, parent=None)
    assert mine.get(account=desk.account).state == OrderState.FILLED
    assert mine.get(account=other.account).state == OrderState.SLICING


def test_what_cannot_be_divided_goes_out_whole_and_says_why(desk: Desk) -> None:
    settings(desk, execution="iceberg")
    order = entry(desk)
    assert order.state == OrderState.FILLED
    why = "this market order cannot be divided as iceberg (set on the strategy)"
    assert told(order) == [f"whole: {why}"]


def test_what_is_too_small_goes_out_whole_and_says_why(desk: Desk) -> None:
    settings(desk, "twap")
    signal = desk.send(quantity="0.0001")
    order = Order.objects.get(signal=signal)
    assert order.state == OrderState.FILLED
    route = f"set on the route to {desk.account.name}"
    assert told(order) == [f"whole: too small for two slices ({route})"]


def test_an_order_nobody_asked_to_divide_says_nothing_of_it(desk: Desk) -> None:
    assert told(entry(desk)) == []


def test_the_signals_page_shows_which_and_whose_word(desk: Desk, admin_client: Client) -> None:
    settings(desk, execution="whole", allowed_executions="twap")
    order = entry(desk, execution="twap")
    page = admin_client.get(reverse("admin:execution_signal_change", args=[order.signal_id]))
    assert "twap: the alert asks for it" in page.content.decode()


BODY = {"symbol": "BTC/USDT", "action": "buy", "quantity": "1"}


def test_the_field_is_read_in_any_case() -> None:
    assert fks.parse(BODY | {"execution": "TWAP"}).execution is Algorithm.TWAP
    assert fks.parse(BODY).execution is None


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"execution": "vwap"}, "must be one of whole, twap, iceberg, ladder"),
        ({"execution": "iceberg"}, "iceberg takes limit orders that rest: gtc or day"),
        (
            {"execution": "twap", "time_in_force": "fok"},
            "twap takes market and limit orders that may fill in parts",
        ),
    ],
)
def test_an_order_that_cannot_be_sent_as_asked_is_told_at_the_door(
    fields: dict[str, str], detail: str
) -> None:
    with pytest.raises(Invalid) as refused:
        fks.parse(BODY | fields)
    assert refused.value.errors == [{"field": "execution", "code": "INVALID", "detail": detail}]


def test_a_close_is_not_lost_for_how_it_was_to_be_sent() -> None:
    alert = fks.parse({"symbol": "BTC/USDT", "action": "close", "execution": "ladder"})
    assert alert.execution is Algorithm.LADDER
    assert Alert.from_json(alert.to_json()) == alert


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"allowed_executions": "twap, vwap"}, "allowed_executions"),
        ({"allowed_executions": "twap", "slices": 10, "slicing_seconds": 9}, "slicing_seconds"),
    ],
)
def test_a_policy_that_cannot_be_carried_out(columns: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Strategy(slug="odd", is_enabled=False, **columns).full_clean()
    assert set(refused.value.message_dict) == {field}


def test_a_route_and_its_strategys_numbers_fit_each_other(desk: Desk) -> None:
    strategy = StrategyFactory.create(slices=10, slicing_seconds=9)
    route = Route(strategy=strategy, account=desk.account, execution="twap")
    with pytest.raises(ValidationError) as refused:
        route.full_clean()
    assert set(refused.value.message_dict) == {"execution"}
    Route.objects.filter(strategy=desk.strategy).update(execution="twap")
    desk.strategy.slices, desk.strategy.slicing_seconds = 10, 9
    desk.strategy.is_enabled = False
    with pytest.raises(ValidationError) as refused:
        desk.strategy.clean()
    assert set(refused.value.message_dict) == {"slicing_seconds"}
