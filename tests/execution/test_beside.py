"""An exit and a stop never both trade where nothing at the venue says that they only reduce."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
import time_machine

from brokers.types import CancelResult, ExecutionResult, OrderRequest, Outcome, VenueStatus
from execution import account_tasks, alarms, halting, tasks, watching
from execution.models import Alarm, Order, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import breakers
from risk.models import TradingState
from tests.brokers.scripted import CAPABILITIES, accepted, report_of, rest
from tests.execution.guarding import SYMBOL, Desk, clock, desk, fill_whole, part
from tests.execution.slicing import later, quantities, slices
from tests.execution.trading import process

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
S = OrderState
REFUSED = ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail="no")
EVERYTHING = ("0.01", "58000")


@pytest.fixture(autouse=True)
def _nothing_only_reduces(desk: Desk) -> None:
    """A venue that sets no coins aside and knows no reduce-only: IB, NinjaTrader, ProjectX, MT5."""
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)


def told(desk: Desk) -> list[str]:
    """The kinds of orders the venue got, in their order."""
    return [request.type.value for request in desk.script.sent]


def closing() -> Order:
    return Order.objects.get(role__in=(Order.Role.EXIT, Order.Role.FLATTEN))


def left_alone(order: Order) -> bool:
    """Whether every stop made before ``order`` was sent had ended by then."""
    stops = Order.objects.filter(role=Order.Role.STOP_LOSS, created_at__lt=order.submitted_at)
    return not stops.exclude(finished_at__lt=order.submitted_at).exists()


# --- alerts -----------------------------------------------------------------------------------------


def test_a_close_that_the_stop_forestalled_sells_nothing(desk: Desk) -> None:
    """The sender closes as the stop's price is reached: the venue has sold, and we do not know yet."""
    desk.buy()
    (stop,) = desk.live()
    sold = report_of(stop, VenueStatus.FILLED, part(1, "0.01", price="57990"))
    desk.script.reports[stop.identity] = sold
    desk.script.cancel_results.append(CancelResult(Outcome.REJECTED, code="FILLED"))

    signal = desk.send("close")

    assert (signal.state, signal.reason) == (SignalState.IGNORED, "NOTHING_TO_CLOSE")
    assert (desk.held(), told(desk)) == (0, ["market", "stop"])
    assert not desk.plan().is_active


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "close"},
        {"action": "sell", "quantity": "0.01"},
        {
            "action": "sell",
            "quantity": "0.01",
            "order_type": "limit",
            "price": "59000",
            "time_in_force": "ioc",
        },
    ],
    ids=["close", "sale", "immediate limit"],
)
def test_an_exit_that_the_venue_queues_rests_alone(
    desk: Desk, clock: time_machine.Coordinates, alert: dict[str, str]
) -> None:
    """After the bell: an opening gap would fill the stop and the exit."""
    desk.buy()
    desk.script.outcomes.append(rest)
    desk.send(**alert)
    assert closing().state == S.OPEN
    assert left_alone(closing())

    for _ in range(8):
        clock.shift(4)
        desk.guard()
        assert desk.live() == []
    assert [alarm.kind for alarm in alarms.look()] == [Alarm.Kind.NAKED_POSITION]
    assert desk.plan().detail == "0.01 of 0.01 has no stop at the venue"

    desk.fills(closing(), part(1, "0.01"))
    assert (desk.held(), desk.live(), desk.plan().is_active) == (0, [], False)


def test_what_a_queued_exit_leaves_is_guarded_meanwhile(desk: Desk) -> None:
    desk.buy()
    desk.script.outcomes.append(rest)
    desk.send("sell", quantity="0.004")
    assert left_alone(closing())
    assert desk.guarded() == [("0.006", "58000")]

    desk.fills(closing(), part(1, "0.004"))
    assert (str(desk.held()), desk.guarded()) == ("0.006", [("0.006", "58000")])


def test_an_exit_that_ends_untraded_lets_the_stop_back(desk: Desk) -> None:
    desk.buy()
    desk.script.outcomes.append(rest)
    desk.send("close")
    desk.ends(closing(), VenueStatus.CANCELED)
    assert desk.guarded() == [EVERYTHING]


def test_a_limit_exit_rests_beside_the_stop(desk: Desk) -> None:
    desk.buy()
    desk.send("sell", quantity="0.01", order_type="limit", price="61000")
    assert (desk.guarded(), desk.script.canceled) == ([EVERYTHING], [])


def test_the_stop_stays_while_the_exit_could_not_leave(desk: Desk) -> None:
    desk.buy()
    breaker = breakers.of_account(desk.account.pk)
    breakers.trip(breaker, "test")
    signal = desk.send("close")
    assert signal.state == SignalState.RECEIVED
    assert (desk.guarded(), desk.script.canceled) == ([EVERYTHING], [])

    breakers.reset(breaker, "test")
    assert process(signal).state == SignalState.EXECUTED
    assert (desk.held(), desk.live()) == (0, [])


def test_a_reversal_opens_the_other_side_alone(desk: Desk) -> None:
    desk.buy()
    desk.send("sell", quantity="0.03", stop_loss="62000")
    assert desk.held() == Decimal("-0.02")
    assert [(one.side, one.remaining) for one in desk.live()] == [("buy", Decimal("0.02"))]


def test_slices_at_the_market_leave_without_the_stop(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(slices=2, slicing_seconds=40, exit_execution="twap")
    desk.strategy.refresh_from_db()
    desk.buy()
    desk.script.outcomes.append(rest)
    desk.send("close")
    assert desk.guarded() == [("0.005", "58000")]
    (first,) = slices()
    assert left_alone(first)
    desk.fills(first, part(1, "0.005"))
    assert desk.guarded() == [("0.005", "58000")]

    later(clock, 21)
    assert quantities() == ["0.005", "0.005"]
    assert left_alone(slices()[1])
    assert (desk.held(), desk.live()) == (0, [])


# --- FKS's own --------------------------------------------------------------------------------------


def test_a_position_that_a_queued_exit_closes_is_not_closed_again(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    desk.buy()
    desk.script.outcomes.append(rest)
    desk.send("close")
    clock.shift(30)
    account_tasks.watch(desk.account.pk)
    assert Signal.objects.count() == 2


def test_fks_closes_only_after_it_took_off_a_stop_that_came_meanwhile(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """The close was sent for want of a stop, and waited; the stop has rested since then."""
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    desk.script.outcomes.extend([fill_whole, REFUSED])
    desk.buy()
    clock.shift(6)
    with pytest.MonkeyPatch.context() as lost:
        lost.setattr(tasks.process_signal, "apply_async", lambda *_, **__: None)
        account_tasks.watch(desk.account.pk)
    own = Signal.objects.get(auth=watching.OWN_ALERT)
    desk.guard()
    assert process(own).state == SignalState.EXECUTED
    assert told(desk) == ["market", "stop", "stop", "market"]
    assert left_alone(closing())
    assert (desk.held(), desk.live()) == (0, [])


def test_beside_a_flatten_that_works_no_stop_is_placed(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy()
    desk.script.outcomes.append(rest)
    halting.press(halting.Mode.FLATTEN, scope=TradingState.Scope.GLOBAL, key="", reason="test")
    account_tasks.wind_down(desk.account.pk)
    assert closing().state == S.OPEN
    assert left_alone(closing())

    for _ in range(8):
        clock.shift(4)
        tasks.guard(desk.account.pk, SYMBOL)
        assert desk.live() == []

    desk.fills(closing(), part(1, "0.01"))
    assert (desk.held(), desk.live(), told(desk)) == (0, [], ["market", "stop", "market"])


def test_a_flatten_filled_in_part_leaves_no_stop_for_what_it_works(desk: Desk) -> None:
    desk.buy()

    def half(request: OrderRequest) -> ExecutionResult:
        return accepted(report_of(request, VenueStatus.PARTIALLY_FILLED, part(7, "0.004")))

    desk.script.outcomes.append(half)
    halting.press(halting.Mode.FLATTEN, scope=TradingState.Scope.GLOBAL, key="", reason="test")
    account_tasks.wind_down(desk.account.pk)
    desk.guard()
    assert (str(desk.held()), desk.live()) == ("0.006", [])
