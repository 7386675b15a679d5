"""A target is all the strategy is to hold: what earlier alerts left at the venue gives way to it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, OrderType, Outcome, VenueStatus
from execution import commands, manual
from execution.alerts import Action, Alert
from execution.legs import lane_legs
from execution.models import Order, Position, Route, Signal
from execution.states import OrderState, SignalState
from execution.timeliness import may_reduce
from risk.types import ReasonCode
from tests.brokers.scripted import CAPABILITIES, rest, swallow
from tests.execution.guarding import SYMBOL, Desk, desk, part
from tests.execution.slicing import stands
from tests.execution.test_routing import Group, group, taken_by
from tests.execution.trading import process, send
from tests.factories import RouteFactory

__all__ = ["desk", "group"]
pytestmark = pytest.mark.django_db
D = Decimal
S = OrderState
GAVE_WAY = (S.CANCELED, ReasonCode.CANCELED_BY_SIGNAL)
LONG: dict[str, Any] = {"market_position": "long"}
LIMIT: dict[str, Any] = {"order_type": "limit", "price": "59000"}


def order_of(signal: Signal) -> Order:
    return Order.objects.get(signal=signal, parent=None)


@pytest.fixture
def first(desk: Desk) -> Order:
    """A limit order toward 0.02, of which 0.004 have filled."""
    order = order_of(desk.send("buy", **LONG, **LIMIT, market_position_size="0.02"))
    return desk.fills(order, part(1, "0.004", price="59000"))


@pytest.mark.parametrize(
    ("action", "size", "traded"),
    [
        ("buy", "0.03", ("buy", D("0.026"))),
        ("buy", "0.02", ("buy", D("0.016"))),
        ("sell", "0.01", ("buy", D("0.006"))),
        ("sell", "0.001", ("sell", D("0.003"))),
    ],
    ids=["more", "the same again", "less than asked for", "less than held"],
)
def test_a_target_is_reached_whatever_still_rests(
    desk: Desk, first: Order, action: str, size: str, traded: tuple[str, Decimal]
) -> None:
    signal = desk.send(action, **LONG, market_position_size=size)
    order = order_of(signal)
    assert stands(first) == GAVE_WAY
    assert (order.side, order.quantity, order.state) == (*traded, S.FILLED)
    assert desk.held() == D(size)


def test_a_limit_order_toward_the_same_target_takes_the_place_of_the_first(
    desk: Desk, first: Order
) -> None:
    fields = LONG | LIMIT | {"price": "59500", "market_position_size": "0.02"}
    second = order_of(desk.send("buy", **fields))
    assert stands(first) == GAVE_WAY
    assert (second.state, second.quantity, second.price) == (S.OPEN, D("0.016"), D(59500))


def test_nothing_is_decided_before_the_venue_has_cancelled_it(desk: Desk, first: Order) -> None:
    desk.script.cancel_results.append(CancelResult(Outcome.UNKNOWN))
    signal = desk.send("buy", **LONG, market_position_size="0.03")
    assert signal.state == SignalState.RECEIVED
    assert not Order.objects.filter(signal=signal).exists()
    # It filled before the cancel got there: all of it counts.
    desk.fills(first, part(1, "0.004", price="59000"), part(2, "0.016", price="59000"))
    process(signal)
    assert (order_of(signal).quantity, desk.held()) == (D("0.01"), D("0.03"))


def test_the_first_half_of_a_reversal_rests_until_it_fills(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, reduce_only=True)
    desk.buy("0.02", stop=None)
    fields = LIMIT | {"price": "61000", "market_position": "short", "market_position_size": "0.01"}
    signal = desk.send("sell", **fields)
    process(signal)
    exit_ = order_of(signal)
    assert (stands(exit_), exit_.quantity) == ((S.OPEN, ""), D("0.02"))
    desk.fills(exit_, part(1, "0.02", price="61000"))
    process(signal)
    halves = Order.objects.filter(signal=signal).order_by("id").values_list("role", "quantity")
    assert list(halves) == [("exit", D("0.02")), ("entry", D("0.01"))]


def test_what_rests_without_a_target_to_follow_it_goes_on(desk: Desk, first: Order) -> None:
    desk.send("buy", quantity="0.01")
    desk.send("buy", quantity="0.01", **LONG)
    assert stands(first) == (S.PARTIALLY_FILLED, "")
    assert desk.held() == D("0.024")


def test_where_the_route_sizes_by_itself_there_is_no_target(desk: Desk, first: Order) -> None:
    Route.objects.update(sizing=Route.Sizing.FIXED_PERCENT, percent=D("0.01"))
    desk.send("buy", **LONG, market_position_size="0.03")
    assert stands(first) == (S.PARTIALLY_FILLED, "")


def test_another_strategys_order_goes_on(desk: Desk, first: Order) -> None:
    other = RouteFactory.create(account=desk.account).strategy
    process(send(other, "buy", **LONG, market_position_size="0.03"))
    assert stands(first) == (S.PARTIALLY_FILLED, "")


def amended(order: Order, price: int = 58500) -> Order:
    """The order an operator has put in the place of ``order``."""
    signal = commands.amend(order, price=D(price), quantity=None, key="", reason="nearer")
    new = order_of(signal)
    assert (new.state, new.price) == (S.OPEN, D(price))
    return new


@pytest.mark.parametrize("times", [1, 2])
def test_what_an_operator_amended_is_the_strategys_still(
    desk: Desk, first: Order, worked_off: None, times: int
) -> None:
    for price in (58500, 58600)[:times]:
        first = amended(first, price)
    signal = desk.send("buy", **LONG, market_position_size="0.03")
    assert stands(first) == GAVE_WAY
    assert (order_of(signal).quantity, desk.held()) == (D("0.026"), D("0.03"))


def test_what_is_being_amended_does_not_come_back_after_a_target(
    desk: Desk, first: Order, worked_off: None
) -> None:
    desk.script.cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 3)
    amend = commands.amend(first, price=D(58500), quantity=None, key="", reason="nearer")
    target = desk.send("buy", **LONG, market_position_size="0.03")
    desk.ends(first, VenueStatus.CANCELED)
    process(target)
    process(amend)
    amend.refresh_from_db()
    assert (amend.state, amend.reason) == (SignalState.IGNORED, "NOTHING_TO_CANCEL")
    assert (order_of(target).quantity, desk.held()) == (D("0.026"), D("0.03"))


def test_a_reversal_does_not_take_back_its_first_half_once_that_is_amended(
    desk: Desk, worked_off: None
) -> None:
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, reduce_only=True)
    desk.buy("0.02", stop=None)
    fields = LIMIT | {"price": "61000", "market_position": "short", "market_position_size": "0.01"}
    signal = desk.send("sell", **fields)
    later = amended(order_of(signal), 62000)
    # As if the amend had been faster than the second half, which is refused.
    Order.objects.get(signal=signal, state=S.DENIED).delete()
    Signal.objects.filter(pk=signal.pk).update(state=SignalState.RECEIVED, reason="")
    process(signal)
    assert stands(later) == (S.OPEN, "")


def test_an_amended_exit_gives_way_to_one_that_says_anew_what_to_sell(
    desk: Desk, worked_off: None
) -> None:
    desk.buy("0.03", stop=None)
    exits = LONG | LIMIT | {"price": "61000", "market_position_size": "0.01"}
    resting = amended(order_of(desk.send("sell", **exits)), 62000)
    desk.send("sell", **LONG, market_position_size="0.005")
    assert (resting.role, stands(resting), desk.held()) == ("exit", GAVE_WAY, D("0.005"))


def test_what_an_operator_placed_or_amended_of_another_goes_on(
    desk: Desk, first: Order, worked_off: None
) -> None:
    amends = amended(first)
    by_hand = Alert(
        symbol=SYMBOL,
        account=desk.account.name,
        action=Action.BUY,
        quantity=D("0.01"),
        order_type=OrderType.LIMIT,
        price=D(58000),
    )
    placed = order_of(Signal.objects.get(pk=manual.submit(by_hand).signal_id))
    other = RouteFactory.create(account=desk.account).strategy
    process(send(other, "buy", **LONG, market_position_size="0.03"))
    assert [stands(one) for one in (amends, placed)] == [(S.OPEN, "")] * 2
    desk.send("buy", **LONG, market_position_size="0.04")
    assert [stands(one) for one in (amends, placed)] == [GAVE_WAY, (S.OPEN, "")]
    assert desk.held() == D("0.04")


@pytest.mark.parametrize(
    ("action", "size", "stays", "traded"),
    [("sell", "0.005", False, D("0.025")), ("buy", "0.04", True, D("0.01"))],
    ids=["to its side", "to the other"],
)
def test_an_exit_that_rests_gives_way_to_one_that_says_anew_what_to_sell(
    desk: Desk, action: str, size: str, stays: bool, traded: Decimal
) -> None:
    """It would keep the coins the other needs, or sell them once more."""
    desk.buy("0.03", stop=None)
    exits = LONG | LIMIT | {"price": "61000", "market_position_size": "0.01"}
    first = order_of(desk.send("sell", **exits))
    assert (first.role, first.state, first.quantity) == ("exit", S.OPEN, D("0.02"))
    second = order_of(desk.send(action, **LONG, market_position_size=size))
    assert stands(first) == ((S.OPEN, "") if stays else GAVE_WAY)
    assert (second.quantity, second.state, desk.held()) == (traded, S.FILLED, D(size))


# --- after an alert was lost: the other way than the sender's last trade -----------------------------

SPOT = CAPABILITIES
ONLY_REDUCES = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
TERMINAL = replace(CAPABILITIES, short_selling=True, locks_balance=False)


@pytest.mark.parametrize(
    "offers", [SPOT, TERMINAL], ids=["it holds the coins", "it could sell too"]
)
def test_a_purchase_that_has_to_sell_takes_the_stop_off_first(desk: Desk, offers: Any) -> None:
    desk.script.capabilities = offers
    desk.send("buy", **LONG, market_position_size="0.02", stop_loss="58000")
    (stop,) = desk.live()
    order = order_of(
        desk.send("buy", **LONG, market_position_size="0.015")
    )  # a sale to 0.01 was lost
    assert (order.side, order.role, order.quantity) == ("sell", Order.Role.EXIT, D("0.005"))
    stop.refresh_from_db()
    assert (stop.state, order.state) == (S.CANCELED, S.FILLED)
    assert stop.finished_at is not None
    assert order.submitted_at is not None
    assert stop.finished_at <= order.submitted_at
    assert desk.guarded() == [("0.015", "58000")]
    assert desk.plan().suspended_until is None


def test_where_stops_only_reduce_such_a_sale_goes_beside_the_stop(desk: Desk) -> None:
    desk.script.capabilities = ONLY_REDUCES
    desk.send("buy", **LONG, market_position_size="0.02", stop_loss="58000")
    (stop,) = desk.live()
    order = order_of(desk.send("buy", **LONG, market_position_size="0.015"))
    stop.refresh_from_db()
    assert (order.state, order.reduce_only, desk.held()) == (S.FILLED, True, D("0.015"))
    assert stop.finished_at is not None
    assert order.submitted_at is not None
    assert stop.finished_at > order.submitted_at
    assert desk.guarded() == [("0.015", "58000")]


@pytest.mark.parametrize("offers", [SPOT, ONLY_REDUCES, TERMINAL])
def test_a_sale_that_has_to_buy_leaves_the_stop_alone(desk: Desk, offers: Any) -> None:
    desk.script.capabilities = offers
    desk.send("buy", **LONG, market_position_size="0.01", stop_loss="58000")
    order = order_of(desk.send("sell", **LONG, market_position_size="0.02"))  # to 0.03 was lost
    assert (order.side, order.role, desk.held()) == ("buy", Order.Role.ENTRY, D("0.02"))
    assert desk.script.canceled == []
    assert desk.guarded() == [("0.01", "58000"), ("0.01", "58000")]
    assert desk.plan().suspended_until is None


def test_a_target_that_is_held_takes_no_stop_off(desk: Desk) -> None:
    desk.send("buy", **LONG, market_position_size="0.02", stop_loss="58000")
    signal = desk.send("sell", **LONG, market_position_size="0.02")
    assert order_of(signal).reason == ReasonCode.ALREADY_AT_TARGET
    assert desk.script.canceled == []


def test_a_short_is_made_smaller_by_a_sale_and_larger_by_a_purchase(desk: Desk) -> None:
    desk.script.capabilities = TERMINAL
    short: dict[str, Any] = {"market_position": "short"}
    desk.send("sell", **short, market_position_size="0.02", stop_loss="62000")
    (stop,) = desk.live()
    order = order_of(desk.send("sell", **short, market_position_size="0.015"))
    assert (order.side, order.role, desk.held()) == ("buy", Order.Role.EXIT, D("-0.015"))
    stop.refresh_from_db()
    assert stop.state == S.CANCELED
    (stop,) = desk.live()
    order = order_of(desk.send("buy", **short, market_position_size="0.02"))
    assert (order.side, order.role, desk.held()) == ("sell", Order.Role.ENTRY, D("-0.02"))
    stop.refresh_from_db()
    assert stop.state == S.OPEN


def test_a_purchase_that_has_to_sell_needs_no_price(desk: Desk) -> None:
    desk.send("buy", **LONG, market_position_size="0.02")
    desk.script.quote_failure = QueryFailedError("no price")
    desk.send("buy", **LONG, market_position_size="0.015")
    assert desk.held() == D("0.015")


def test_with_a_key_that_may_not_open_it_sells_and_does_not_buy(desk: Desk) -> None:
    desk.send("buy", **LONG, market_position_size="0.02")
    Account.objects.update(is_key_refused=True)
    bought = desk.send("sell", **LONG, market_position_size="0.03")
    assert order_of(bought).reason == ReasonCode.KEY_MAY_WITHDRAW
    desk.send("buy", **LONG, market_position_size="0.015")
    assert desk.held() == D("0.015")


@pytest.mark.parametrize(
    ("action", "size", "may"),
    [("buy", "0.015", True), ("sell", "0.02", False), ("sell", "0.03", False)],
    ids=["less", "the same", "more"],
)
def test_what_is_under_way_counts_for_what_a_target_may_take_off(
    desk: Desk, action: str, size: str, may: bool
) -> None:
    """An alert that may take something off is neither throttled nor too old."""
    desk.script.outcomes.append(swallow)
    desk.send("buy", **LONG, market_position_size="0.02")
    assert not Position.objects.exclude(quantity=0).exists()
    signal = send(desk.strategy, action, **LONG, market_position_size=size)
    (leg,) = lane_legs(signal, Alert.from_json(signal.alert))
    assert may_reduce(leg, Alert.from_json(signal.alert)) is may


def test_an_exit_that_rests_gives_way_to_a_purchase_that_has_to_sell(desk: Desk) -> None:
    desk.buy("0.03", stop=None)
    resting = order_of(desk.send("sell", **LONG | LIMIT, market_position_size="0.01"))
    order = order_of(desk.send("buy", **LONG, market_position_size="0.02"))
    assert (resting.role, stands(resting)) == (Order.Role.EXIT, GAVE_WAY)
    assert (order.side, order.quantity, desk.held()) == ("sell", D("0.01"), D("0.02"))


# --- a group of accounts ----------------------------------------------------------------------------


@pytest.fixture
def resting(group: Group, eager: None) -> Order:
    """A limit order of the group toward 0.02, at ``b``; by now ``a`` is the cheapest."""
    group.script("b").outcomes.append(rest)
    order = order_of(group.do("buy", **LONG, **LIMIT, market_position_size="0.02"))
    assert (order.account.name, order.state) == ("b", S.OPEN)
    group.script("a").price = D(58000)
    return order


def test_the_next_target_counts_what_rests_at_another_account(group: Group, resting: Order) -> None:
    signal = group.do("buy", **LONG, market_position_size="0.03")
    assert (taken_by(signal), group.holdings()) == (["a"], {"a": D("0.01")})
    assert stands(resting) == (S.OPEN, "")


def test_so_it_does_where_an_operator_amended_that(
    group: Group, resting: Order, worked_off: None
) -> None:
    group.script("b").outcomes.append(rest)
    new = amended(resting)
    signal = group.do("buy", **LONG, market_position_size="0.03")
    assert (taken_by(signal), group.holdings()) == (["a"], {"a": D("0.01")})
    assert (new.account.name, stands(new)) == ("b", (S.OPEN, ""))


def test_a_smaller_target_goes_where_the_order_rests(group: Group, resting: Order) -> None:
    signal = group.do("sell", **LONG, market_position_size="0.01")
    assert taken_by(signal) == ["b"]
    assert stands(resting) == GAVE_WAY
    assert group.holdings() == {"b": D("0.01")}


def test_each_account_of_a_group_comes_down_to_its_own_part(group: Group, eager: None) -> None:
    group.hold("a", "0.02")
    group.hold("b", "0.01")
    Account.objects.update(is_key_refused=True)  # it opens nothing
    signal = group.do("buy", **LONG, market_position_size="0.025")
    assert taken_by(signal) == ["a"]
    assert group.holdings() == {"a": D("0.015"), "b": D("0.01")}


def test_a_sale_without_a_target_is_of_what_is_held(group: Group, resting: Order) -> None:
    group.hold("a", "0.01")
    signal = group.do("sell", quantity="0.01")
    assert (taken_by(signal), group.holdings()) == (["a"], {})
    assert stands(resting) == (S.OPEN, "")
