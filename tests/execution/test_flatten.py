"""What a flatten leaves alone, so that nothing goes without its stop and nothing is sold twice."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from brokers.models import Account
from brokers.types import ExecutionResult, Outcome
from execution import account_tasks, flatten, halting, periodic_tasks, winding_down
from execution.halting import Mode
from execution.models import Order, Position, Strategy
from execution.states import OrderState
from risk import breakers
from risk.models import TradingState
from tests.brokers.scripted import CAPABILITIES
from tests.execution.guarding import Desk, clock, desk
from tests.factories import FillFactory, OrderFactory, StrategyFactory

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
D = Decimal
S, Scope = OrderState, TradingState.Scope
REDUCES = replace(CAPABILITIES, reduce_only=True, locks_balance=False)


def shared(desk: Desk, *fills: str) -> Strategy:
    """Another strategy that trades the desk's position: what it bought, and sold where negative."""
    other = StrategyFactory.create()
    order = OrderFactory.create(account=desk.account, strategy=other, state=S.FILLED, quantity=1)
    for size in map(D, fills):
        FillFactory.create(order=order, quantity=abs(size), side="buy" if size > 0 else "sell")
    position = Position.objects.get(account=desk.account)
    position.quantity += sum(map(D, fills))
    position.save()
    desk.guard()
    return other


def press(scope: TradingState.Scope = Scope.GLOBAL, key: str = "") -> TradingState:
    return halting.press(Mode.FLATTEN, scope=scope, key=key, reason="test")


def wind_down(desk: Desk, clock: time_machine.Coordinates, rounds: int = 6) -> None:
    """The workers' next rounds, with more than a suspension of stops between the first and the last."""
    for _ in range(rounds):
        account_tasks.wind_down(desk.account.pk)
        desk.guard()
        clock.shift(5)


def closes(desk: Desk) -> list[tuple[str, Decimal, str]]:
    found = Order.objects.filter(account=desk.account, role=Order.Role.FLATTEN).order_by("id")
    return [(one.side, one.quantity, one.state) for one in found]


def left(row: TradingState) -> list[Position]:
    return list(flatten.left_of(row).positions)


# --- of one strategy, where two share a position ------------------------------------------------------


@pytest.mark.parametrize("capabilities", [CAPABILITIES, REDUCES], ids=["spot", "perpetual"])
def test_another_strategys_resting_exit_does_not_hold_up_the_close(
    desk: Desk, clock: time_machine.Coordinates, capabilities: Any
) -> None:
    desk.script.capabilities = capabilities
    desk.buy("0.5")
    other = shared(desk, "0.2")
    desk.send("sell", quantity="0.1", order_type="limit", price="70000")
    row = press(Scope.STRATEGY, other.slug)
    account_tasks.wind_down(desk.account.pk)
    assert closes(desk) == [("sell", D("0.2"), S.FILLED)]
    assert (desk.held(), left(row)) == (D("0.5"), [])
    guarded = "0.4" if capabilities.locks_balance else "0.5"
    assert desk.guarded() == [(guarded, "58000")]


def test_no_more_is_closed_than_resting_exits_of_others_leave_free(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5")
    other = shared(desk, "0.2")
    desk.send("sell", quantity="0.6", order_type="limit", price="70000")
    row = press(Scope.STRATEGY, other.slug)
    wind_down(desk, clock)
    assert closes(desk) == [("sell", D("0.1"), S.FILLED)]
    assert [one.quantity for one in left(row)] == [D("0.6")]


def test_where_an_order_of_unknown_fate_forbids_the_close_the_stop_stays(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5")
    other = shared(desk, "0.2")
    OrderFactory.create(
        account=desk.account, role=Order.Role.EXIT, side="sell", state=S.NEEDS_OPERATOR
    )
    row = press(Scope.STRATEGY, other.slug)
    wind_down(desk, clock)
    assert closes(desk) == []
    assert sum(D(size) for size, _ in desk.guarded()) == D(
        "0.69"
    )  # spot: the exit may keep the rest
    assert desk.plan().suspended_until is None
    assert [one.quantity for one in left(row)] == [D("0.7")]


def test_where_one_of_two_stops_is_of_unknown_fate_the_other_stays(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5")
    desk.buy("0.2")
    _, second = desk.live()
    Order.objects.filter(pk=second.pk).update(state=S.NEEDS_OPERATOR)
    press()
    wind_down(desk, clock)
    assert (closes(desk), desk.live()[0].state) == ([], S.OPEN)


def test_a_share_too_small_for_an_order_counts_as_closed(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5")
    other = shared(desk, "0.001", "-0.00095")
    row = press(Scope.STRATEGY, other.slug)
    wind_down(desk, clock)
    assert (left(row), closes(desk)) == ([], [])
    assert desk.guarded() == [("0.5", "58000")]


def test_what_a_close_leaves_is_guarded_again_at_once(desk: Desk) -> None:
    desk.buy("0.5")
    other = shared(desk, "0.2")
    press(Scope.STRATEGY, other.slug)
    account_tasks.wind_down(desk.account.pk)
    assert closes(desk) == [("sell", D("0.2"), S.FILLED)]
    assert desk.plan().suspended_until is None
    assert desk.guarded() == [("0.5", "58000")]


def test_what_a_close_without_workers_leaves_is_guarded_by_the_next_sweep(desk: Desk) -> None:
    desk.buy("0.5")
    other = shared(desk, "0.2")
    assert not winding_down.carry_out(press(Scope.STRATEGY, other.slug), 0.0)
    assert desk.plan().suspended_until is None
    periodic_tasks.sweep()
    assert desk.guarded() == [("0.5", "58000")]


# --- where no close can leave ------------------------------------------------------------------------


def test_while_a_refused_close_waits_for_its_next_try_the_stop_is_back(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5")
    desk.script.outcomes.append(ExecutionResult(Outcome.REJECTED, code="MARKET_CLOSED"))
    press()
    account_tasks.wind_down(desk.account.pk)
    assert closes(desk) == [("sell", D("0.5"), S.REJECTED)]
    account_tasks.wind_down(desk.account.pk)
    assert desk.guarded() == [("0.5", "58000")]
    clock.shift(3)
    account_tasks.wind_down(desk.account.pk)
    assert (desk.held(), desk.live()) == (0, [])


@pytest.mark.parametrize("why", ["switched off", "no live trading"])
def test_an_account_that_sends_nothing_keeps_its_stop_and_is_named(
    desk: Desk, clock: time_machine.Coordinates, settings: Any, why: str
) -> None:
    desk.buy("0.5")
    if why == "switched off":
        Account.objects.update(is_active=False)
    else:
        settings.FKS_LIVE_TRADING = False
        Account.objects.update(environment=Account.Environment.LIVE)
    row = press()
    wind_down(desk, clock)
    winding_down.carry_out(row, 0.0)
    assert (closes(desk), desk.guarded()) == ([], [("0.5", "58000")])
    assert [one.quantity for one in left(row)] == [D("0.5")]
    assert [one.pk for one in flatten.accounts_left(row)] == [desk.account.pk]


def test_behind_an_open_breaker_the_stop_stays_until_a_close_can_leave(desk: Desk) -> None:
    desk.buy("0.5")
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    press()
    account_tasks.wind_down(desk.account.pk)
    assert (closes(desk), desk.guarded()) == ([], [("0.5", "58000")])
    breakers.reset(breakers.of_account(desk.account.pk), "test")
    account_tasks.wind_down(desk.account.pk)
    assert desk.held() == 0


def test_an_account_not_compared_since_the_start_is_compared_before_its_stop_is_taken_off(
    desk: Desk,
) -> None:
    desk.buy("0.5")
    desk.script.balances["BTC"] = D("0.5")
    Account.objects.update(reconciled_at=None)
    row = press()
    account_tasks.wind_down(desk.account.pk)
    assert (closes(desk), desk.guarded()) == ([], [("0.5", "58000")])
    assert not winding_down.carry_out(row, 5)
    assert (closes(desk), desk.held()) == ([("sell", D("0.5"), S.FILLED)], 0)
