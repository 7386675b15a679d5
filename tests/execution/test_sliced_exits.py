"""Exits worked in slices: never more than is held, guarded meanwhile, and overtaken at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from brokers.models import Account, SymbolAlias
from brokers.types import ExecutionResult, Outcome, VenueStatus
from execution import closable, commands, halting, next_slice, parents
from execution.models import Order, Position, Signal, SlicePlan, Strategy
from execution.states import TERMINAL, OrderState, SignalState
from risk import breakers, switch
from risk.models import TradingState
from risk.types import ReasonCode
from tests.brokers.scripted import CAPABILITIES, Script, swallow, trade
from tests.execution.guarding import Desk, clock, desk
from tests.execution.slicing import later, quantities, slices, stands
from tests.execution.trading import process, send
from tests.factories import OrderFactory, RouteFactory, UserFactory

__all__ = ["clock", "desk"]
pytestmark = pytest.mark.django_db
D = Decimal
S = OrderState
REDUCES = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
LIMIT = {"order_type": "limit", "price": "61000"}


def leaves_by(desk: Desk, exits: str, **columns: Any) -> None:
    numbers = {"slices": 5, "slicing_seconds": 100, "exit_execution": exits} | columns
    Strategy.objects.filter(pk=desk.strategy.pk).update(**numbers)
    desk.strategy.refresh_from_db()


@pytest.fixture
def leaver(desk: Desk, clock: time_machine.Coordinates) -> Desk:
    """Holds 0.1 behind a stop at 58000, and leaves in five slices, 20 s apart."""
    desk.buy("0.1")
    leaves_by(desk, "twap")
    return desk


@pytest.fixture
def perpetual(leaver: Desk) -> Desk:
    """The same where stops only reduce and keep no coins."""
    leaver.script.capabilities = REDUCES
    return leaver


def exit_of(signal: Signal) -> Order:
    return Order.objects.get(signal=signal, role=Order.Role.EXIT, parent=None)


def sold(script: Script) -> Decimal:
    """What the venue was asked to sell, stops left out."""
    asked = [one.quantity for one in script.sent if one.side == "sell" and one.stop_price is None]
    return sum(asked, D(0))


def working(script: Script) -> list[Order]:
    alive = Order.objects.filter(side="sell").exclude(state__in=TERMINAL)
    return list(alive.exclude(role=Order.Role.STOP_LOSS).exclude(state=S.SLICING).order_by("id"))


# --- how it goes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [CAPABILITIES, REDUCES], ids=["spot", "perpetual"])
def test_a_close_in_five_slices_with_the_stop_resized_at_each(
    leaver: Desk, clock: time_machine.Coordinates, capabilities: Any
) -> None:
    leaver.script.capabilities = capabilities
    signal = leaver.send("close")
    parent = exit_of(signal)
    assert stands(parent) == (S.SLICING, "")
    for left in ("0.08", "0.06", "0.04", "0.02"):
        assert leaver.held() == D(left)
        assert leaver.guarded() == [(left, "58000")]
        later(clock, 20)
        later(clock, 1)
    assert stands(parent) == (S.FILLED, "")
    assert quantities() == ["0.02"] * 5
    assert (leaver.held(), leaver.live(), sold(leaver.script)) == (0, [], D("0.1"))
    assert {one.role for one in slices()} == {Order.Role.EXIT}
    assert {one.reduce_only for one in slices()} == {capabilities.reduce_only}
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED


def test_without_being_told_so_exits_go_out_whole(desk: Desk) -> None:
    desk.buy("0.1")
    leaves_by(desk, "whole", execution="twap")
    assert exit_of(desk.send("close")).state == S.FILLED
    assert desk.held() == 0


def test_a_ladder_of_sales_is_dearer_with_each_rung_and_holds_its_coins(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    leaves_by(leaver, "ladder", slices=3, ladder_percent=D(1))
    parent = exit_of(leaver.send("sell", quantity="0.09", **LIMIT))
    for _ in range(4):
        later(clock, 1)
    assert [one.price for one in slices()] == [D(61000), D(61610), D(62220)]
    assert [one.state for one in slices()] == [S.OPEN] * 3
    assert leaver.guarded() == [("0.01", "58000")]
    leaver.fills(slices()[0], trade("rung", "0.03", "61000"))
    later(clock, 1)
    assert (leaver.held(), stands(parent)[0]) == (D("0.07"), S.SLICING)
    assert parent.filled_quantity == D("0.03")


def test_an_iceberg_shows_one_part_of_the_sale_at_a_time(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    leaves_by(leaver, "iceberg", slice_quantity=D("0.04"))
    parent = exit_of(leaver.send("sell", quantity="0.1", **LIMIT))
    for number, quantity in enumerate(("0.04", "0.04", "0.02")):
        later(clock, 1)
        assert quantities()[number:] == [quantity]
        leaver.fills(slices()[number], trade(f"part {number}", quantity, "61000"))
    assert stands(parent) == (S.FILLED, "")
    assert leaver.held() == 0


def test_an_exit_that_is_late_goes_on_until_nothing_is_held(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    parent = exit_of(leaver.send("close"))
    later(clock, 1000)  # an entry would have given up
    for _ in range(4):
        later(clock, 20)
        later(clock, 1)
    assert stands(parent) == (S.FILLED, "")
    assert quantities() == ["0.02", "0.04", "0.04"]


@pytest.mark.parametrize(
    ("alert", "allowed", "state", "said"),
    [
        ({}, "", S.SLICING, "twap: set on the strategy"),
        ({"execution": "whole"}, "whole", S.FILLED, "whole: the alert asks for it"),
        (
            {"execution": "ladder"},
            "",
            S.SLICING,
            "twap: the alert asks for ladder; {} lets alerts choose nothing",
        ),
    ],
)
def test_the_alert_may_choose_and_no_close_is_refused_for_it(
    leaver: Desk, alert: dict[str, str], allowed: str, state: str, said: str
) -> None:
    Strategy.objects.update(allowed_executions=allowed)
    order = exit_of(leaver.send("close", **alert))
    assert order.state == state
    told = [one["detail"] for one in order.verdicts if one["rule"] == "execution"]
    assert told == [said.format(leaver.strategy.slug)]


# --- never more than is held ----------------------------------------------------------------------


def test_a_stop_that_fills_takes_what_is_left(
    perpetual: Desk, clock: time_machine.Coordinates
) -> None:
    signal = perpetual.send("close")
    [stop] = perpetual.live()
    perpetual.fills(stop, trade("stopped", "0.08", "58000"))
    later(clock, 20)
    assert stands(exit_of(signal)) == (S.CANCELED, "NOTHING_TO_CLOSE")
    assert (perpetual.held(), sold(perpetual.script)) == (0, D("0.02"))
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED


def test_what_a_stop_sold_in_part_is_not_sold_again(
    perpetual: Desk, clock: time_machine.Coordinates
) -> None:
    parent = exit_of(perpetual.send("close"))
    [stop] = perpetual.live()
    perpetual.fills(stop, trade("stopped", "0.05", "58000"))
    for _ in range(5):
        later(clock, 20)
        later(clock, 1)
    assert stands(parent) == (S.CANCELED, "NOTHING_TO_CLOSE")
    assert (perpetual.held(), sold(perpetual.script)) == (0, D("0.05"))


def test_rungs_that_rest_are_taken_back_when_the_position_shrinks(
    perpetual: Desk, clock: time_machine.Coordinates
) -> None:
    leaves_by(perpetual, "ladder", slices=3, ladder_percent=D(1))
    parent = exit_of(perpetual.send("sell", quantity="0.09", **LIMIT))
    for _ in range(3):
        later(clock, 1)
    assert len(working(perpetual.script)) == 3
    Position.objects.update(quantity=D("0.04"))
    for _ in range(4):
        later(clock, 1)
    assert stands(parent) == (S.SLICING, "")
    assert [one.remaining for one in working(perpetual.script)] == [D("0.03"), D("0.01")]
    assert [one.cancel_reason for one in slices()] == ["", "REPLACED", "REPLACED", ""]


def test_the_stop_stays_while_a_slice_would_wait(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    """The slice starts, and the stop follows it, once the venue takes orders again."""
    signal = leaver.send("close")
    assert (leaver.held(), leaver.guarded()) == (D("0.08"), [("0.08", "58000")])
    breakers.trip(breakers.of_account(leaver.account.pk), "test")
    later(clock, 25)
    assert (leaver.held(), leaver.guarded()) == (D("0.08"), [("0.08", "58000")])
    assert exit_of(signal).plan.detail == next_slice.WAITS_FOR_STOP

    breakers.reset(breakers.of_account(leaver.account.pk), "test")
    later(clock, 2)
    assert leaver.held() < D("0.08")
    assert leaver.guarded() == [(f"{leaver.held():f}", "58000")]


@pytest.mark.parametrize("means", ["ETH/USDT", None], ids=["another symbol", "nothing"])
def test_it_goes_on_whatever_its_alias_means_by_now(
    leaver: Desk, clock: time_machine.Coordinates, means: str | None
) -> None:
    alias = SymbolAlias.objects.create(account=leaver.account, alias="COIN!", symbol="BTC/USDT")
    signal = leaver.send("close", symbol="COIN!")
    assert leaver.held() == D("0.08")
    if means is None:
        alias.delete()
    else:
        SymbolAlias.objects.update(symbol=means)
    for _ in range(6):
        later(clock, 20)
    assert (exit_of(signal).state, leaver.held()) == (S.FILLED, D(0))


def test_a_slice_that_waits_counts_those_that_rest(leaver: Desk) -> None:
    parent = OrderFactory.create(
        account=leaver.account, side="sell", role="exit", state=S.SLICING, quantity="0.1"
    )
    common = {"account": leaver.account, "side": "sell", "role": "exit", "parent": parent}
    OrderFactory.create(**common, slice_number=1, state=S.OPEN, quantity="0.07")
    waits = OrderFactory.create(**common, slice_number=2, quantity="0.05")
    for order in (parent, waits):
        order.refresh_from_db()
    assert closable.closable(waits) == D("0.03")
    assert parents.left_of(parent, []) == 0  # 0.12 is on its way already


def test_a_sized_sale_goes_beside_it_and_both_sell_what_is_held_once(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    leaves_by(leaver, "twap", slices=2, slicing_seconds=40)
    leaver.send("sell", quantity="0.05")
    leaver.send("sell", quantity="0.07", execution="twap")
    for _ in range(3):
        later(clock, 20)
        later(clock, 1)
    assert (leaver.held(), sold(leaver.script)) == (0, D("0.1"))
    assert not working(leaver.script)


MONEY = {
    "quote": {"quantity": "600", "quantity_type": "quote"},
    "equity": {"quantity": "0.06", "quantity_type": "percent_of_equity"},
}


@pytest.mark.parametrize("amount", MONEY.values(), ids=MONEY)
def test_a_sale_of_an_amount_of_money_goes_beside_it_as_well(
    leaver: Desk, clock: time_machine.Coordinates, amount: dict[str, str]
) -> None:
    Strategy.objects.update(allowed_executions="whole")
    parent = exit_of(leaver.send("sell", quantity="0.07"))
    sale = exit_of(leaver.send("sell", execution="whole", **amount))
    assert (sale.quantity, sale.state, stands(parent)[0]) == (D("0.01"), S.FILLED, S.SLICING)
    for _ in range(5):
        later(clock, 20)
        later(clock, 1)
    assert (stands(parent), leaver.held()) == ((S.FILLED, ""), D("0.02"))


@pytest.mark.parametrize("amount", MONEY.values(), ids=MONEY)
def test_a_sale_of_more_money_than_is_held_takes_over(
    leaver: Desk, clock: time_machine.Coordinates, amount: dict[str, str]
) -> None:
    parent = exit_of(leaver.send("sell", quantity="0.07"))
    leaver.send("sell", **amount | {"quantity": f"{D(amount['quantity']) * 10}"})
    for _ in range(5):
        later(clock, 20)
        later(clock, 1)
    assert (stands(parent), leaver.held()) == ((S.CANCELED, "CANCELED_BY_SIGNAL"), 0)


def test_it_waits_while_another_exit_is_to_sell_everything(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(allowed_executions="whole")
    resting = exit_of(leaver.send("sell", quantity="0.1", execution="whole", **LIMIT))
    parent = exit_of(leaver.send("sell", quantity="0.05"))
    later(clock, 1)
    assert (resting.state, stands(parent), slices()) == (S.OPEN, (S.SLICING, ""), [])
    assert SlicePlan.objects.get().detail == parents.WAITS_FOR_OTHERS
    leaver.ends(resting, VenueStatus.CANCELED)
    later(clock, 1)
    assert quantities() == ["0.01"]
    assert SlicePlan.objects.get().detail == ""


def test_a_person_agrees_to_the_exit_as_a_whole(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(needs_approval=True, exits_need_approval=True)
    parent = exit_of(leaver.send("close"))
    assert (parent.state, leaver.guarded()) == (S.AWAITING_APPROVAL, [("0.1", "58000")])
    commands.decide_on_order(parent, UserFactory.create(is_superuser=True), approve=True, note="")
    later(clock, 1)
    assert stands(parent) == (S.SLICING, "")
    assert (leaver.held(), leaver.guarded()) == (D("0.08"), [("0.08", "58000")])


# --- what never waits for slices ------------------------------------------------------------------


def test_a_flatten_takes_over_at_once(leaver: Desk, clock: time_machine.Coordinates) -> None:
    parent = exit_of(leaver.send("close"))
    halting.press(halting.Mode.FLATTEN, scope=TradingState.Scope.GLOBAL, key="", reason="test")
    later(clock, 1)
    later(clock, 1)
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_OPERATOR")
    closes = Order.objects.filter(role=Order.Role.FLATTEN)
    assert [one.quantity for one in closes] == [D("0.08")]
    assert leaver.held() == 0


def test_a_flatten_for_another_strategy_does_not_wait_either(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    other = RouteFactory.create(account=leaver.account).strategy
    process(send(other, quantity="0.01"))
    parent = exit_of(leaver.send("sell", quantity="0.1"))
    scope = TradingState.Scope.STRATEGY
    halting.press(halting.Mode.FLATTEN, scope=scope, key=other.slug, reason="test")
    for _ in range(3):
        later(clock, 1)
    closes = Order.objects.filter(role=Order.Role.FLATTEN)
    assert [(one.state, one.quantity) for one in closes] == [(S.FILLED, D("0.01"))]
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_OPERATOR")


@pytest.mark.parametrize("alert", [{}, {"execution": "whole"}])
def test_a_further_close_takes_over(
    leaver: Desk, clock: time_machine.Coordinates, alert: dict[str, str]
) -> None:
    leaves_by(leaver, "twap", slices=2, slicing_seconds=40, allowed_executions="whole")
    first = exit_of(leaver.send("close"))
    second = leaver.send("close", **alert)
    for _ in range(2):
        later(clock, 20)
        later(clock, 1)
    assert stands(first) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    order = exit_of(second)
    assert (order.quantity, order.state) == (D("0.05"), S.FILLED)
    assert (leaver.held(), sold(leaver.script)) == (0, D("0.1"))


def test_a_reversal_takes_over_and_goes_out_whole(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    leaver.script.capabilities = replace(REDUCES, short_selling=True)
    first = exit_of(leaver.send("sell", quantity="0.05"))
    assert leaver.held() == D("0.09")
    reversal = leaver.send("sell", quantity="0.2")
    later(clock, 1)
    assert stands(first) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    assert (exit_of(reversal).quantity, exit_of(reversal).state) == (D("0.09"), S.FILLED)
    assert leaver.held() == D("-0.11")


@pytest.mark.parametrize(
    "alert", [{"quantity": "0.04"}, {}], ids=["a target", "the stop is missing"]
)
def test_what_fks_closes_itself_goes_out_whole(leaver: Desk, alert: dict[str, str]) -> None:
    own = send(leaver.strategy, "close", auth="own", account=leaver.account.name, **alert)
    process(own)
    assert exit_of(own).state == S.FILLED


def test_a_position_without_its_stop_is_closed_over_the_slices(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    parent = exit_of(leaver.send("close"))
    process(send(leaver.strategy, "close", auth="own", account=leaver.account.name))
    later(clock, 1)
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    assert (leaver.held(), sold(leaver.script)) == (0, D("0.1"))


def test_a_target_reached_meanwhile_leaves_the_close_alone(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    parent = exit_of(leaver.send("close"))
    process(
        send(leaver.strategy, "close", auth="own", account=leaver.account.name, quantity="0.04")
    )
    assert leaver.held() == D("0.04")
    for _ in range(5):
        later(clock, 20)
        later(clock, 1)
    assert (leaver.held(), sold(leaver.script)) == (0, D("0.1"))
    assert stands(parent)[0] == S.CANCELED


@pytest.mark.parametrize(
    "alert",
    [
        {"market_position": "long", "market_position_size": "0.03"},
        {"quantity": "50", "quantity_type": "percent_of_position"},
    ],
    ids=["target", "share"],
)
def test_what_follows_from_the_position_is_decided_anew(
    leaver: Desk, clock: time_machine.Coordinates, alert: dict[str, str]
) -> None:
    first = exit_of(leaver.send("sell", quantity="0.05"))
    second = leaver.send("sell", **alert)
    later(clock, 1)
    assert stands(first) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    wanted = D("0.06") if "market_position" in alert else D("0.045")
    assert exit_of(second).quantity == wanted


def test_a_purchase_beside_it_leaves_it_alone(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    parent = exit_of(leaver.send("sell", quantity="0.05"))
    leaver.send("buy", quantity="0.02")
    for _ in range(5):
        later(clock, 20)
        later(clock, 1)
    assert stands(parent) == (S.FILLED, "")
    assert leaver.held() == D("0.07")


def loses_a_slice(desk: Desk, clock: time_machine.Coordinates) -> Order:
    """A close whose second slice only a person can find out about; returns its parent."""
    parent = exit_of(desk.send("close"))
    desk.script.outcomes.append(swallow)
    later(clock, 20)
    lost = Order.objects.filter(parent=parent, slice_number=2, state=S.UNKNOWN)
    assert lost.update(state=S.NEEDS_OPERATOR, next_check_at=None) == 1
    return parent


def test_a_slice_that_needs_an_operator_stops_the_others_where_they_could_sell_too_much(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    parent = loses_a_slice(leaver, clock)
    for _ in range(5):
        later(clock, 20)
    assert (stands(parent)[0], len(slices()), leaver.held()) == (S.SLICING, 2, D("0.08"))


def test_a_slice_that_needs_an_operator_stops_no_other_that_can_only_reduce(
    perpetual: Desk, clock: time_machine.Coordinates
) -> None:
    parent = loses_a_slice(perpetual, clock)
    for _ in range(10):
        later(clock, 20)
    assert (stands(parent)[0], perpetual.held()) == (S.SLICING, D("0.02"))
    perpetual.ends(slices()[1], VenueStatus.CANCELED)
    for _ in range(3):
        later(clock, 20)
    assert (stands(parent), perpetual.held()) == ((S.FILLED, ""), 0)


def test_a_further_close_takes_over_from_a_slice_that_needs_an_operator(
    perpetual: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(allowed_executions="whole")
    first = loses_a_slice(perpetual, clock)
    second = perpetual.send("close", execution="whole")
    for _ in range(3):
        later(clock, 1)
    second.refresh_from_db()
    assert stands(first) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    assert (second.state, perpetual.held()) == (SignalState.EXECUTED, 0)


# --- what ends it, and what does not --------------------------------------------------------------


def test_a_cancel_ends_it_and_the_stop_stays(leaver: Desk, clock: time_machine.Coordinates) -> None:
    parent = exit_of(leaver.send("close"))
    signal = leaver.send("cancel")
    later(clock, 20)
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    assert leaver.guarded() == [("0.08", "58000")]


@pytest.mark.parametrize("code", ["LOGIN_NEEDED", "NOT_SUPPORTED", "NOT_PLACED"])
def test_an_exit_whose_slice_could_not_be_sent_has_failed(
    leaver: Desk, clock: time_machine.Coordinates, code: str
) -> None:
    unsent = ExecutionResult(Outcome.NOT_SENT, code=code, detail="nobody is logged in")
    leaver.script.outcomes.append(unsent)
    signal = leaver.send("close")
    parent = exit_of(signal)
    later(clock, 1)
    assert [(one.state, one.reason) for one in slices()] == [(S.NOT_PLACED, code)]
    assert stands(parent) == (S.REJECTED, "VENUE_REJECTED")
    assert parent.detail.endswith("slice 1 ended not placed: nobody is logged in")
    signal.refresh_from_db()
    assert signal.state == SignalState.FAILED


def test_a_slice_the_venue_rejects_ends_it_and_the_stop_stays(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    parent = exit_of(leaver.send("close"))
    leaver.script.outcomes.append(ExecutionResult(Outcome.REJECTED, detail="no"))
    later(clock, 20)
    later(clock, 1)
    assert stands(parent) == (S.REJECTED, "VENUE_REJECTED")
    assert leaver.guarded() == [("0.08", "58000")]


SWITCHES: dict[str, Callable[[Desk], object]] = {
    "reduce only": lambda _: switch.change(TradingState.State.REDUCING, reason="test"),
    "disabled": lambda _: Strategy.objects.update(is_enabled=False),
    "no route": lambda desk: desk.strategy.routes.update(is_enabled=False),
}


@pytest.mark.parametrize("what", SWITCHES)
def test_it_goes_on_where_entries_would_end(
    leaver: Desk, clock: time_machine.Coordinates, what: str
) -> None:
    parent = exit_of(leaver.send("close"))
    SWITCHES[what](leaver)
    for _ in range(5):
        later(clock, 20)
        later(clock, 1)
    assert stands(parent) == (S.FILLED, "")


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (lambda: switch.change(TradingState.State.HALTED, reason="test"), "TRADING_HALTED"),
        (lambda: Account.objects.update(is_active=False), "ACCOUNT_INACTIVE"),
    ],
)
def test_it_ends_where_exits_do(
    leaver: Desk, clock: time_machine.Coordinates, stop: Callable[[], object], code: str
) -> None:
    parent = exit_of(leaver.send("close"))
    stop()
    later(clock, 20)
    assert stands(parent) == (S.CANCELED, ReasonCode(code))
    assert leaver.held() == D("0.08")


def test_a_rung_that_ends_at_the_venue_ends_it(
    leaver: Desk, clock: time_machine.Coordinates
) -> None:
    leaves_by(leaver, "ladder", slices=3, ladder_percent=D(1))
    parent = exit_of(leaver.send("sell", quantity="0.09", **LIMIT))
    later(clock, 1)
    leaver.ends(slices()[0], VenueStatus.CANCELED)
    for _ in range(3):
        later(clock, 1)
    assert stands(parent)[0] == S.REJECTED
    assert not working(leaver.script)
    assert sum((one.remaining for one in leaver.live()), D(0)) == D("0.1")
