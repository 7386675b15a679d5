"""What a flatten leaves alone, so that nothing goes without its stop and nothing is sold twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.models import Account
from brokers.types import ExecutionResult, OrderRequest, Outcome, VenueStatus
from execution import (
    account_tasks,
    cancels,
    decisions,
    differences,
    flatten,
    halting,
    periodic_tasks,
    reconcile,
    resolving,
    restored,
    tasks,
    winding_down,
)
from execution.halting import Mode
from execution.models import Difference, Order, Position, Route, Strategy
from execution.states import OrderState
from execution.transitions import Event
from risk import breakers
from risk.models import TradingState
from tests.brokers.scripted import CAPABILITIES, accepted, report_of, trade
from tests.execution.guarding import Desk, clock, desk
from tests.factories import FillFactory, OrderFactory, PositionFactory, StrategyFactory

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


# --- of one strategy, where two share a position --------------------------------------------------


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


# --- where no close can leave ---------------------------------------------------------------------


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


@pytest.mark.parametrize(("capabilities", "leaves"), [(CAPABILITIES, False), (REDUCES, True)])
def test_an_exit_that_needs_an_operator_holds_up_no_close_that_can_only_reduce(
    desk: Desk, clock: time_machine.Coordinates, capabilities: Any, *, leaves: bool
) -> None:
    desk.script.capabilities = capabilities
    desk.buy("0.5")
    lost = {"side": "sell", "role": Order.Role.EXIT, "state": S.NEEDS_OPERATOR, "quantity": "0.5"}
    OrderFactory.create(account=desk.account, **lost)
    press()
    wind_down(desk, clock)
    assert closes(desk) == ([("sell", D("0.5"), S.FILLED)] if leaves else [])


def test_a_share_waits_for_a_close_that_may_have_taken_it_off(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.capabilities = REDUCES
    desk.buy("0.3")
    other = shared(desk, "0.2")
    lost = {"side": "sell", "role": Order.Role.FLATTEN, "quantity": "0.2"}
    OrderFactory.create(account=desk.account, state=S.NEEDS_OPERATOR, **lost)
    press(Scope.STRATEGY, other.slug)
    wind_down(desk, clock)
    assert (closes(desk), desk.held()) == ([("sell", D("0.2"), S.NEEDS_OPERATOR)], D("0.5"))


# --- what the venue is known not to hold ----------------------------------------------------------


def venue_holds(desk: Desk, clock: time_machine.Coordinates, quantity: str) -> None:
    """The account is compared with a venue that holds this much of the coin."""
    desk.script.balances["BTC"] = D(quantity)
    clock.shift(10)
    reconcile.reconcile_account(desk.account)


@pytest.mark.parametrize("theirs", ["0", "0.2"])
def test_no_more_is_closed_than_both_sides_hold_and_the_rest_is_named(
    desk: Desk, clock: time_machine.Coordinates, theirs: str
) -> None:
    desk.buy("0.5")
    venue_holds(desk, clock, theirs)
    row = press()
    wind_down(desk, clock)
    sold = [("sell", D(theirs), S.FILLED)] if D(theirs) else []
    assert closes(desk) == sold
    assert [one.quantity for one in left(row)] == [D("0.5") - D(theirs)]
    venue_holds(desk, clock, "0")
    differences.adopt(Difference.objects.get(), reason="sold by hand")
    assert (left(row), desk.held()) == ([], 0)


def test_where_the_sides_agree_again_the_rest_is_closed(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5")
    venue_holds(desk, clock, "0.2")
    press()
    account_tasks.wind_down(desk.account.pk)
    venue_holds(desk, clock, "0.3")
    account_tasks.wind_down(desk.account.pk)
    assert closes(desk) == [("sell", D("0.2"), S.FILLED), ("sell", D("0.3"), S.FILLED)]


def test_an_exit_takes_off_no_more_than_both_sides_hold(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5", stop=None)
    venue_holds(desk, clock, "0.2")
    desk.send("close")
    again = desk.send("close")
    assert [one.quantity for one in desk.script.sent] == [D("0.5"), D("0.2")]
    assert (again.state, again.reason) == ("ignored", "NOTHING_TO_CLOSE")
    assert desk.held() == D("0.3")


@pytest.mark.parametrize("by_switch", [False, True], ids=["an exit", "the kill switch"])
def test_what_the_venue_lets_only_reduce_leaves_whatever_one_comparison_said(
    desk: Desk, clock: time_machine.Coordinates, *, by_switch: bool
) -> None:
    desk.buy("0.5", stop=None)
    venue_holds(desk, clock, "0")
    desk.script.capabilities = REDUCES
    if by_switch:
        press()
        account_tasks.wind_down(desk.account.pk)
    else:
        desk.send("close")
    assert [(one.quantity, one.reduce_only) for one in desk.script.sent[1:]] == [(D("0.5"), True)]


def test_what_was_sent_after_the_comparison_counts_though_the_venues_clock_is_slow(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    def slow(request: OrderRequest) -> ExecutionResult:
        fill = trade("slow", request.quantity, at=timezone.now() - timedelta(seconds=30))
        return accepted(report_of(request, VenueStatus.FILLED, fill))

    desk.buy("0.5", stop=None)
    venue_holds(desk, clock, "0.2")
    desk.script.outcomes.append(slow)
    desk.send("close")
    again = desk.send("close")
    assert (again.reason, desk.held()) == ("NOTHING_TO_CLOSE", D("0.3"))


@pytest.mark.parametrize("by_switch", [False, True], ids=["an exit", "the kill switch"])
def test_a_fill_that_lagged_behind_the_comparison_does_not_count_against_the_venue_again(
    desk: Desk, clock: time_machine.Coordinates, *, by_switch: bool
) -> None:
    """What the venue held after it was compared; our book learned of the trade only later."""
    desk.buy("0.5", stop=None)
    desk.send("sell", quantity="0.2", order_type="limit", price="70000")
    resting = Order.objects.get(role=Order.Role.EXIT)
    traded_at = timezone.now()
    venue_holds(desk, clock, "0.3")
    desk.fills(resting, trade("late", "0.2", at=traded_at))
    if by_switch:
        press()
        account_tasks.wind_down(desk.account.pk)
    else:
        desk.send("close")
    assert ([one.quantity for one in desk.script.sent[2:]], desk.held()) == ([D("0.3")], 0)


def test_an_ignored_difference_holds_up_no_close(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5", stop=None)
    venue_holds(desk, clock, "0.2")
    differences.ignore(Difference.objects.get(), reason="the rest is in another wallet")
    press()
    account_tasks.wind_down(desk.account.pk)
    assert closes(desk) == [("sell", D("0.5"), S.FILLED)]


def test_after_a_restore_nothing_asked_for_before_it_is_done(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.5", stop=None)
    venue_holds(desk, clock, "0.2")
    asked = Difference.objects.get()
    Difference.objects.update(
        state=Difference.State.FLATTENING, resolved_by="olivia", reason="mine"
    )
    row = press(Scope.ACCOUNT, desk.account.name)
    restored.hold_everything("2026-01-01")
    row.refresh_from_db()
    asked.refresh_from_db()
    assert (row.state, row.flatten) == ("halted", False)
    assert (asked.state, asked.resolved_by, asked.reason) == (Difference.State.OPEN, "", "")
    assert (differences.asked(), resolving.carry_out(asked.pk)) == ([], None)
    wind_down(desk, clock, 2)
    assert (closes(desk), desk.held()) == ([], D("0.5"))


def test_after_a_restore_what_the_book_took_in_to_close_it_waits_for_those_orders(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """Else it would stay in our book, which then agrees with the venue."""
    desk.buy("0.5", stop=None)
    venue_holds(desk, clock, "0.2")
    Difference.objects.update(state=Difference.State.FLATTENING, resolved_at=timezone.now())
    restored.hold_everything("2026-01-01")
    assert Difference.objects.get().is_being_closed


def test_after_a_restore_no_order_is_cancelled_that_was_to_be_before_it(desk: Desk) -> None:
    """The venue may hold the stop that was to replace it, or not: the books are compared first."""
    columns = {"cancel_reason": "REPLACED", "cancel_asked_by": "its protection"}
    states = (S.OPEN, S.PENDING, S.UNKNOWN, S.SLICING)
    stop, queued, lost, sliced = [
        OrderFactory.create(account=desk.account, symbol=f"{state}/USDT", state=state, **columns)
        for state in states
    ]
    restored.hold_everything("2026-01-01")
    for order in (stop, queued, lost, sliced):
        order.refresh_from_db()
    assert [one.cancel_reason for one in (stop, queued, lost)] == [""] * 3
    assert [one.cancel_asked_by for one in (stop, queued, lost)] == [""] * 3
    assert [order.pk for order in cancels.left()] == [sliced.pk]
    assert (queued.state, lost.state) == (S.UNKNOWN, S.UNKNOWN)
    now = timezone.now()
    for order in (queued, lost):
        assert decisions.of_absence(order, now, 1) is Event.PROVE_ABSENT, "it is not sent after all"
    assert stop.expires_at is None


@pytest.mark.parametrize("state", [S.PENDING, S.SUBMITTING, S.UNKNOWN])
@pytest.mark.parametrize("role", [Order.Role.FLATTEN, Order.Role.STOP_LOSS])
def test_after_a_restore_no_close_nor_stop_of_before_it_is_sent(
    desk: Desk, clock: time_machine.Coordinates, role: Order.Role, state: OrderState
) -> None:
    """What it was for may be closed since: sold again, it would open the other side."""
    desk.buy("0.5", stop=None)
    order = OrderFactory.create(
        account=desk.account, role=role, side="sell", quantity=D("0.5"), state=state
    )
    restored.hold_everything("2026-01-01")
    Account.objects.update(reconciled_at=timezone.now())  # all but this coin was compared
    for _ in range(3):
        clock.shift(30)
        tasks.check_order(str(order.pk))
    order.refresh_from_db()
    assert (order.state, len(desk.script.sent)) == (S.NOT_PLACED, 1)


# --- what is a strategy's own ---------------------------------------------------------------------


@pytest.fixture
def short(desk: Desk) -> Strategy:
    """Bought 1, which somebody else sold; then sold 1 short. Its fills add up to nothing."""
    desk.script.capabilities = replace(REDUCES, short_selling=True)
    desk.buy("1", stop=None)
    somebody_sells(desk, "1")
    desk.send("sell", quantity="1")
    assert desk.held() == -1
    return desk.strategy


def somebody_sells(desk: Desk, quantity: str) -> Strategy:
    """Another strategy sells on the desk's account."""
    other, own = StrategyFactory.create(), desk.strategy
    Route.objects.create(strategy=other, account=desk.account)
    desk.strategy = other
    desk.send("sell", quantity=quantity)
    desk.strategy = own
    return other


def test_what_a_strategy_opened_since_the_position_was_flat_is_closed(
    desk: Desk, short: Strategy
) -> None:
    row = press(Scope.STRATEGY, short.slug)
    assert [one.quantity for one in left(row)] == [D(-1)]
    account_tasks.wind_down(desk.account.pk)
    assert (closes(desk), desk.held()) == ([("buy", D(1), S.FILLED)], 0)


def test_what_others_opened_since_the_position_was_flat_is_left_alone(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("1", stop=None)
    somebody_sells(desk, "1")
    own, desk.strategy = desk.strategy, StrategyFactory.create()
    Route.objects.create(strategy=desk.strategy, account=desk.account)
    desk.buy("1", stop=None)
    row = press(Scope.STRATEGY, own.slug)
    wind_down(desk, clock, 2)
    assert (left(row), closes(desk), desk.held()) == ([], [], 1)


def test_a_strategy_whose_position_others_took_to_the_other_side_is_named_and_not_closed(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.capabilities = replace(REDUCES, short_selling=True)
    bought = OrderFactory.create(
        account=desk.account, strategy=desk.strategy, state=S.FILLED, quantity=1
    )
    FillFactory.create(order=bought, quantity=D(1))
    PositionFactory.create(account=desk.account, quantity=D(-1))
    row = press(Scope.STRATEGY, desk.strategy.slug)
    wind_down(desk, clock, 2)
    assert [one.quantity for one in left(row)] == [D(-1)]
    assert closes(desk) == []


def test_a_close_of_what_a_difference_brought_leaves_a_strategy_what_is_its_own(
    desk: Desk,
) -> None:
    desk.buy("0.5", stop=None)
    extra = OrderFactory.create(
        account=desk.account, role=Order.Role.FLATTEN, side="sell", state=S.FILLED, quantity=1
    )
    extra.journal.create(at=extra.created_at, event="create", actor="difference 1")
    FillFactory.create(order=extra, quantity=D("0.3"))
    press(Scope.STRATEGY, desk.strategy.slug)
    account_tasks.wind_down(desk.account.pk)
    assert desk.held() == 0
