"""Orders in slices in a group: one account takes all of them, and exits go where each part is."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.types import BookLevel, OrderBook
from execution import periodic_tasks
from execution.models import Order, Route, RoutingDecision, Signal, Strategy
from execution.states import OrderState, SignalState
from risk.limits import set_limit
from risk.types import ReasonCode as R
from tests.brokers.scripted import CAPABILITIES
from tests.execution.guarding import clock
from tests.execution.test_routing import Group, group, taken_by, why
from tests.execution.trading import LANE

__all__ = ["clock", "group"]
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("eager")]
D = Decimal
S = OrderState


@pytest.fixture
def sliced(group: Group, clock: time_machine.Coordinates) -> Group:
    """Entries go out in five slices, 20 s apart."""
    numbers = {"execution": "twap", "slices": 5, "slicing_seconds": 100}
    Strategy.objects.filter(pk=group.strategy.pk).update(**numbers)
    group.strategy.refresh_from_db()
    return group


def later(clock: time_machine.Coordinates, times: int = 1) -> None:
    for _ in range(times):
        clock.shift(20)
        periodic_tasks.sweep()


def whole_of(signal: Signal) -> Order:
    return Order.objects.get(signal=signal, parent=None)


def offer(group: Group, name: str, *levels: tuple[str, str]) -> None:
    book = tuple(BookLevel(D(price), D(quantity)) for price, quantity in levels)
    group.script(name).book = OrderBook(LANE, book, book, timezone.now())


def test_every_slice_goes_to_the_account_that_was_chosen(
    sliced: Group, clock: time_machine.Coordinates
) -> None:
    signal = sliced.buy(quantity="0.1")
    sliced.script("c").price = D(50000)  # too late: the whole is reserved at b
    later(clock, 4)
    assert whole_of(signal).state == S.FILLED
    assert sliced.holdings() == {"b": D("0.1")}
    assert [len(sliced.script(name).sent) for name in "abc"] == [0, 5, 0]


def test_accounts_are_compared_by_one_slice(sliced: Group) -> None:
    offer(sliced, "b", ("59990", "0.03"), ("61000", "5"))  # deep enough for a fifth of it
    offer(sliced, "a", ("60000", "0.01"))  # and not deep enough
    signal = sliced.buy(quantity="0.1")
    assert whole_of(signal).account.name == "b"
    assert why(signal) == {"a": R.SIZE_TOO_LARGE}
    best = RoutingDecision.objects.get(signal=signal).candidates[0]
    assert (best["quantity"], best["slice"], best["price"]) == ("0.1", "0.02", "59990")


def test_the_page_says_by_what_they_were_compared(sliced: Group, admin_client: Client) -> None:
    signal = sliced.buy(quantity="0.1")
    page = admin_client.get(reverse("admin:execution_signal_change", args=[signal.pk]))
    assert "0.1 <small>by 0.02</small>" in page.content.decode()


def test_a_route_that_sends_whole_is_compared_by_the_whole(sliced: Group) -> None:
    Route.objects.filter(account__name="b").update(execution="whole")
    offer(sliced, "b", ("59990", "0.03"))
    assert why(sliced.buy(quantity="0.1")) == {"b": R.SIZE_TOO_LARGE}


def test_what_the_alert_may_not_ask_for_no_account_takes(sliced: Group) -> None:
    signal = sliced.buy(quantity="0.1", execution="whole")
    assert (signal.state, signal.reason) == (SignalState.DENIED, R.EXECUTION_NOT_ALLOWED)


def test_a_limit_refuses_the_whole_and_it_is_tried_nowhere_else(sliced: Group) -> None:
    set_limit(
        "max_order_value", D(2000), account=sliced.accounts["b"], reason="test"
    )  # a slice is worth 1200
    signal = sliced.buy(quantity="0.1")
    assert (signal.reason, whole_of(signal).account.name) == (R.MAX_ORDER_VALUE, "b")
    assert [len(sliced.script(name).sent) for name in "abc"] == [0, 0, 0]


def test_what_is_still_to_be_bought_counts_at_the_next_choice(
    sliced: Group, clock: time_machine.Coordinates
) -> None:
    """A target is the whole group's: what the slices have yet to buy is bought already."""
    long = {"market_position": "long"}
    sliced.do("buy", market_position_size="0.1", **long)
    assert sliced.holdings() == {"b": D("0.02")}
    sliced.script("c").price = D(50000)
    second = sliced.do("buy", market_position_size="0.15", **long)
    assert (whole_of(second).account.name, whole_of(second).quantity) == ("c", D("0.05"))
    later(clock, 5)
    assert sliced.holdings() == {"b": D("0.1"), "c": D("0.05")}


def test_a_new_target_at_the_same_account_takes_over(
    sliced: Group, clock: time_machine.Coordinates
) -> None:
    long = {"market_position": "long"}
    first = sliced.do("buy", market_position_size="0.1", **long)
    second = sliced.do("buy", market_position_size="0.15", **long)
    later(clock, 5)
    assert whole_of(first).reason == R.CANCELED_BY_SIGNAL
    assert whole_of(second).quantity == D("0.13")
    assert sliced.holdings() == {"b": D("0.15")}


def test_a_close_ends_the_slices_where_they_are(
    sliced: Group, clock: time_machine.Coordinates
) -> None:
    entry = sliced.buy(quantity="0.1")
    closing = sliced.do("close")
    later(clock, 2)
    assert (whole_of(entry).state, taken_by(closing)) == (S.CANCELED, ["b"])
    assert sliced.holdings() == {}


def test_an_account_that_is_cut_off_keeps_its_slices(
    sliced: Group, clock: time_machine.Coordinates
) -> None:
    from brokers.errors import QueryFailedError

    entry = sliced.buy(quantity="0.1")
    sliced.script("b").failure = QueryFailedError("no answer")
    later(clock, 2)
    assert whole_of(entry).state == S.SLICING
    assert sliced.holdings() == {"b": D("0.02")}
    later(clock, 9)
    order = whole_of(entry)
    assert (order.state, order.filled_quantity) == (S.EXPIRED, D("0.02"))
    assert [len(sliced.script(name).sent) for name in "ac"] == [0, 0]


def test_each_account_leaves_as_its_route_says(
    sliced: Group, clock: time_machine.Coordinates
) -> None:
    Route.objects.filter(account__name="c").update(exit_execution="twap")
    sliced.hold("a", "0.01")
    sliced.hold("c", "0.1")
    sliced.script("a").price = D(70000)
    signal = sliced.do("sell", quantity="0.105")
    states = dict(
        Order.objects.filter(signal=signal, parent=None).values_list("account__name", "state")
    )
    assert states == {"a": S.FILLED, "c": S.SLICING}
    later(clock, 4)
    assert sliced.holdings() == {"a": D("0.005")}
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED


@pytest.mark.parametrize("alert", [{"action": "close"}, {"action": "sell", "quantity": "0.06"}])
def test_an_exit_in_slices_counts_as_gone_for_the_group(
    sliced: Group, clock: time_machine.Coordinates, alert: dict[str, Any]
) -> None:
    """A second exit does not sell again what the first one is selling."""
    for name in "abc":
        script = sliced.script(name)
        script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    Strategy.objects.update(exit_execution="twap")
    sliced.hold("a", "0.1")
    sliced.do("sell", quantity="0.05")
    sliced.do(**alert)
    later(clock, 12)
    assert sliced.holdings() == {}
    sold = [one.quantity for name in "abc" for one in sliced.script(name).sent]
    assert sum(sold) == D("0.1")
