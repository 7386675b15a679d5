"""The strategy's own 1 is left in the contract before the roll, and something is in today's as well."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from brokers.models import Account
from execution import tasks
from execution.models import Order, Strategy
from execution.states import OrderState, SignalState
from tests.brokers.scripted import CAPABILITIES, rest, script_of
from tests.execution.test_rolled_contracts import (
    NEW,
    OLD,
    account,
    bought_by,
    held,
    hold,
    send,
    sold_by,
    strategy,
)
from tests.factories import OrderFactory, SignalFactory, StrategyFactory

__all__ = ["account", "strategy"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def left(account: Account, strategy: Strategy) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True)
    hold(account, OLD, "1")
    bought_by(strategy, account, OLD)


@pytest.fixture
def by_hand() -> Strategy:
    return StrategyFactory.create(slug="manual")


def rests(account: Account, owner: Strategy | None, **columns: Any) -> Order:
    """An entry at its limit in today's contract."""
    resting = {"type": "limit", "price": Decimal(50000), "state": OrderState.OPEN} | columns
    return OrderFactory.create(
        account=account, strategy=owner, symbol=NEW, quantity=Decimal(1), **resting
    )


@pytest.mark.parametrize(
    ("alert", "left_over"),
    [
        ({"quantity": "1"}, {}),
        ({"quantity": "1", "reduce_only": True}, {}),
        ({"quantity": "1", "market_position": "long"}, {}),
        ({"quantity": "50", "quantity_type": "percent_of_position"}, {OLD: Decimal("0.5")}),
        ({"quantity": "3", "market_position": "short"}, {NEW: Decimal(-2)}),
    ],
    ids=["sell", "reduce only", "still long", "half of it", "turned over"],
)
def test_a_sale_closes_the_old_one_beside_an_entry_that_rests(
    account: Account,
    strategy: Strategy,
    alert: dict[str, Any],
    left_over: dict[str, Decimal],
) -> None:
    entry = rests(account, strategy)

    assert send(strategy, "sell", **alert).state == SignalState.EXECUTED

    assert held() == left_over
    assert Order.objects.get(pk=entry.pk).state == OrderState.OPEN


@pytest.mark.parametrize(
    ("alert", "left_over"),
    [
        ({"action": "close"}, {}),
        ({"action": "sell", "market_position": "flat"}, {}),
        (
            {"action": "sell", "market_position": "long", "market_position_size": "0.5"},
            {OLD: Decimal("0.5")},
        ),
    ],
    ids=["close", "flat", "target"],
)
def test_what_asks_for_a_position_cancels_the_entry_first(
    account: Account,
    strategy: Strategy,
    alert: dict[str, Any],
    left_over: dict[str, Decimal],
) -> None:
    script_of(account).outcomes.append(rest)
    limit = {"order_type": "limit", "price": "50000", "quantity": "1"}
    entry = Order.objects.get(signal=send(strategy, "buy", **limit))
    assert (entry.symbol, entry.state) == (NEW, OrderState.OPEN)

    assert send(strategy, **alert).state == SignalState.EXECUTED

    assert held() == left_over
    assert Order.objects.get(pk=entry.pk).state == OrderState.CANCELED


def test_a_target_counts_the_old_one_beside_an_entry_by_hand(
    account: Account, strategy: Strategy, by_hand: Strategy
) -> None:
    rests(account, by_hand)

    send(strategy, "sell", market_position="long", market_position_size="0.5")

    assert held() == {OLD: Decimal("0.5")}


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "close"},
        {"action": "sell", "market_position": "long", "market_position_size": "0"},
    ],
)
def test_an_entry_only_a_person_can_clear_up_holds_up_no_exit(
    account: Account, strategy: Strategy, alert: dict[str, Any]
) -> None:
    rests(account, strategy, state=OrderState.NEEDS_OPERATOR)

    assert send(strategy, **alert).state == SignalState.EXECUTED
    assert held() == {}


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "close"},
        {"action": "sell", "market_position": "long", "market_position_size": "0.5"},
    ],
)
def test_an_exit_that_a_person_has_to_agree_to_is_of_the_old_one(
    account: Account, strategy: Strategy, alert: dict[str, Any]
) -> None:
    strategy.needs_approval = strategy.exits_need_approval = True
    strategy.save()
    rests(account, strategy)

    signal = send(strategy, **alert)

    exit_ = Order.objects.get(signal=signal)
    assert (exit_.symbol, exit_.side, exit_.state) == (OLD, "sell", OrderState.AWAITING_APPROVAL)


def test_the_other_side_is_not_opened_while_the_old_one_is_held(
    account: Account, strategy: Strategy
) -> None:
    """The exit was rejected, and an entry has come to rest in today's meanwhile."""
    fields = {"symbol": "ES1!", "action": "sell", "quantity": "3", "market_position": "short"}
    signal = SignalFactory.create(strategy=strategy, symbol="ES1!", action="sell", alert=fields)
    OrderFactory.create(
        signal=signal, account=account, strategy=strategy, symbol=OLD, side="sell",
        role=Order.Role.EXIT, reverses=True, quantity=Decimal(1), state=OrderState.REJECTED,
    )  # fmt: skip
    rests(account, strategy)

    tasks.process_signal(str(signal.pk))

    assert held() == {OLD: 1}
    assert Order.objects.get(signal=signal, role=Order.Role.ENTRY).reason == "NOT_FLAT"


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "close"},
        {"action": "sell", "quantity": "1"},
        {"action": "sell", "market_position": "long", "market_position_size": "0"},
    ],
)
def test_its_own_goes_before_what_a_person_holds_in_todays(
    account: Account, strategy: Strategy, by_hand: Strategy, alert: dict[str, Any]
) -> None:
    hold(account, NEW, "1")
    bought_by(by_hand, account, NEW)

    send(strategy, **alert)
    assert held() == {NEW: 1}
    send(strategy, "close")
    assert held() == {}


def test_a_sale_that_only_reduces_passes_by_what_is_short_in_todays(
    account: Account, strategy: Strategy
) -> None:
    hold(account, NEW, "-1")
    sold_by(strategy, account, NEW)

    send(strategy, "sell", quantity="1", reduce_only=True)

    assert held() == {NEW: -1}
