"""Alerts that are refused after some of their orders were made: those stand, and the alert says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.utils import timezone

from brokers.models import Account
from execution import dispatch, dispositions, pipeline
from execution.models import Order, Position, Route, Signal, Strategy
from execution.pipeline import Decision, Step
from execution.states import OrderState, SignalState
from risk.types import ReasonCode
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db
LANE = "BTC/USDT"
Accounts = Callable[..., Account]


def decide(signal: Signal) -> Decision:
    decision = pipeline.decide(Signal.objects.select_related("strategy").get(pk=signal.pk))
    signal.refresh_from_db()
    return decision


def grow_old() -> None:
    Signal.objects.update(received_at=timezone.now() - timedelta(seconds=301))


def disable() -> None:
    Strategy.objects.update(is_enabled=False)


@pytest.fixture
def busy(scripted: Accounts) -> Route:
    """The route of a second account, whose lane keeps an alert of both waiting."""
    allow_trading()
    first = RouteFactory.create(account=scripted())
    second = RouteFactory.create(strategy=first.strategy, account=scripted())
    OrderFactory.create(account=second.account, state=OrderState.UNKNOWN, side="sell", role="exit")
    return second


@pytest.fixture
def begun(busy: Route) -> Signal:
    """A buy for both accounts, of which the first has its order."""
    signal = SignalFactory.create(
        strategy=busy.strategy,
        action="buy",
        symbol=LANE,
        alert={"symbol": LANE, "action": "buy", "quantity": "0.001"},
    )
    assert decide(signal).step is Step.WAIT
    assert signal.state == SignalState.RECEIVED
    return signal


def orders_of(signal: Signal) -> list[tuple[str, str]]:
    return list(Order.objects.filter(signal=signal).order_by("id").values_list("state", "reason"))


@pytest.mark.parametrize(
    ("happen", "reason"),
    [(grow_old, ReasonCode.STALE), (disable, ReasonCode.STRATEGY_DISABLED)],
)
def test_an_order_that_was_placed_is_never_denied_by_its_alert(
    begun: Signal, busy: Route, happen: Callable[[], None], reason: ReasonCode
) -> None:
    happen()

    assert decide(begun) == Decision(Step.DECIDED)

    assert (begun.state, begun.reason, begun.finished_at) == (SignalState.WORKING, "", None)
    assert orders_of(begun) == [("pending", ""), ("denied", reason.value)]
    refused = Order.objects.get(signal=begun, account=busy.account)
    assert refused.detail
    assert refused.journal.get().event == "create"
    assert decide(begun) == Decision(Step.GONE)


def test_it_ends_as_its_orders_do(begun: Signal) -> None:
    Order.objects.filter(signal=begun).update(
        state=OrderState.FILLED, filled_quantity=Decimal("0.001")
    )
    grow_old()

    decide(begun)

    assert begun.state == SignalState.EXECUTED
    assert begun.finished_at is not None


def test_what_has_begun_is_not_throttled(begun: Signal) -> None:
    Strategy.objects.update(most_alerts=1)
    one_before = UUID(int=begun.pk.int - 1)
    SignalFactory.create(pk=one_before, strategy=begun.strategy, state=SignalState.EXECUTED)
    assert decide(begun).step is Step.WAIT
    assert begun.state == SignalState.RECEIVED


def test_a_close_ends_what_has_begun_and_says_which_account_got_nothing(
    begun: Signal, busy: Route
) -> None:
    closing = SignalFactory.create(
        strategy=busy.strategy,
        action="close",
        symbol=LANE,
        alert={"symbol": LANE, "action": "close"},
    )

    decide(closing)

    begun.refresh_from_db()
    assert begun.state == SignalState.WORKING
    assert orders_of(begun) == [("pending", ""), ("denied", "CANCELED_BY_SIGNAL")]
    assert str(closing.pk) in Order.objects.get(signal=begun, account=busy.account).detail


def test_a_defect_does_not_deny_what_was_placed(begun: Signal) -> None:
    for _ in range(3):
        pipeline.fail(begun, KeyError("a defect of ours"))
    begun.refresh_from_db()
    assert begun.state == SignalState.WORKING
    assert orders_of(begun) == [("pending", ""), ("denied", "INTERNAL_ERROR")]


@pytest.fixture
def half_reversed() -> Signal:
    """Long 1, told to sell 3, of which the first has left its lane."""
    allow_trading()
    route = RouteFactory.create()
    PositionFactory.create(account=route.account, quantity=Decimal(1))
    signal = SignalFactory.create(
        strategy=route.strategy,
        action="sell",
        symbol=LANE,
        alert={"symbol": LANE, "action": "sell", "quantity": "3"},
    )
    assert decide(signal).step is Step.WAIT
    return signal


def test_the_second_half_of_a_reversal_is_refused_by_itself(half_reversed: Signal) -> None:
    account = Order.objects.get().account
    dispatch.run_lane(account.pk, LANE)
    grow_old()

    decide(half_reversed)

    assert half_reversed.state == SignalState.EXECUTED
    assert orders_of(half_reversed) == [("filled", ""), ("denied", "STALE")]
    assert Position.objects.get().quantity == 0


def test_the_second_half_is_refused_while_the_first_is_under_way(half_reversed: Signal) -> None:
    grow_old()

    assert decide(half_reversed).step is Step.DECIDED

    assert half_reversed.state == SignalState.WORKING
    assert orders_of(half_reversed) == [("pending", ""), ("denied", "STALE")]
    dispatch.run_lane(Order.objects.first().account_id, LANE)
    assert dispositions.settle(half_reversed.pk) == SignalState.EXECUTED
    assert Position.objects.get().quantity == 0


def test_without_any_order_the_alert_itself_is_refused(busy: Route) -> None:
    signal = SignalFactory.create(
        strategy=busy.strategy,
        action="buy",
        symbol=LANE,
        alert={"symbol": LANE, "action": "buy", "quantity": "0.001"},
    )
    grow_old()
    decide(signal)
    assert (signal.state, signal.reason) == (SignalState.EXPIRED, "STALE")
    assert not Order.objects.filter(signal=signal).exists()
