"""The stop at the venue: placed as the entry fills, kept at the position's size, taken off with it."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import ConfigurationError, QueryFailedError
from brokers.models import Account, Instrument
from brokers.types import CancelResult, ExecutionResult, OrderRequest, Outcome, VenueStatus
from execution import (
    alarms,
    arming,
    commands,
    fills,
    halting,
    periodic_tasks,
    protect,
    reconcile,
    restored,
    tasks,
    winding_down,
)
from execution.models import Alarm, Difference, Order, Position, Protection, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import breakers, switch
from risk.models import TradingState
from tests.brokers.scripted import CAPABILITIES, accepted, report_of, rest, swallow
from tests.execution.guarding import SYMBOL, Desk, clock, desk, fill_whole, part
from tests.factories import OrderFactory
from tests.threads import together

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
REFUSED = ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail="no")
LOGGED_OUT = ExecutionResult(Outcome.NOT_SENT, code="LOGIN_NEEDED", detail="log in again")
NO_KEY = ExecutionResult(Outcome.NOT_SENT, code="CREDENTIALS_REFUSED", detail="refused")
SWITCHED_OFF = ExecutionResult(
    Outcome.NOT_SENT, code="ACCOUNT_MISCONFIGURED", detail="Algo Trading is off"
)
KEY_REFUSED = ExecutionResult(Outcome.REJECTED, code="CREDENTIALS_REFUSED", detail="refused")


def test_a_filled_entry_has_a_live_stop_of_its_size(desk: Desk) -> None:
    entry = desk.buy("0.01", stop="58000")

    assert entry.state == OrderState.FILLED
    (stop,) = desk.live()
    assert (stop.side, stop.type, stop.state) == ("sell", "stop", OrderState.OPEN)
    assert desk.guarded() == [("0.01", "58000")]
    assert stop.signal_id == entry.signal_id
    assert not stop.reduce_only
    plan = desk.plan()
    assert (plan.entry_id, plan.is_active, plan.naked_since) == (entry.pk, True, None)
    assert plan.detail == "0.01 guarded at 58000"


def test_a_venue_that_has_reduce_only_gets_it(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True)
    desk.buy()
    assert desk.live()[0].reduce_only


def test_a_short_is_guarded_by_a_buy_stop_above(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True)
    desk.send("sell", quantity="0.01", stop_loss="62000.009")
    (stop,) = desk.live()
    assert (stop.side, stop.stop_price) == ("buy", Decimal(62000))


@pytest.mark.parametrize(
    ("asked", "placed"),
    [("58000.001", "58000.01"), ("58000.01", "58000.01"), ("58000.019", "58000.02")],
)
def test_a_sell_stop_is_rounded_up_to_the_tick(desk: Desk, asked: str, placed: str) -> None:
    desk.buy(stop=asked)
    assert desk.live()[0].stop_price == Decimal(placed)


def test_a_fee_taken_in_the_coin_is_not_guarded(desk: Desk) -> None:
    desk.script.outcomes.append(rest)
    entry = desk.buy("0.01", order_type="limit", price="60000")
    desk.fills(entry, part(1, "0.01", fee="0.000012", fee_currency="BTC"))

    assert desk.held() == Decimal("0.009988")
    assert desk.guarded() == [("0.00998", "58000")]
    assert desk.plan().naked_since is None


def test_each_partial_fill_adds_a_stop_for_the_difference_and_takes_none_off(desk: Desk) -> None:
    entry = desk.buy("0.01", order_type="limit", price="60000")
    assert desk.live() == []

    desk.fills(entry, part(1, "0.004"))
    assert desk.guarded() == [("0.004", "58000")]
    desk.fills(entry, part(1, "0.004"), part(2, "0.006"))

    assert desk.guarded() == [("0.004", "58000"), ("0.006", "58000")]
    assert desk.script.canceled == []


def test_many_partial_fills_never_need_more_than_four_stops(desk: Desk) -> None:
    entry = desk.buy("0.01", order_type="limit", price="60000")
    fills = [part(number, "0.001") for number in range(10)]
    for count in range(1, 11):
        desk.fills(entry, *fills[:count])
        assert len(desk.live()) <= protect.MAX_STOPS
        assert sum(one.remaining for one in desk.live()) == desk.held()


@pytest.mark.parametrize(
    ("largest", "stops"),
    [("0.01", ["0.01"] * 3), ("0.007", ["0.007"] * 4), ("0.02", ["0.02", "0.01"])],
)
def test_no_stop_is_larger_than_the_venues_largest_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, largest: str, stops: list[str]
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(tasks, "_guard", lambda *_: None)
        desk.buy("0.03")
    Instrument.objects.update(max_quantity=Decimal(largest))
    for _ in range(5):
        desk.guard()
    assert desk.guarded() == [(one, "58000") for one in stops]
    guarded = sum(map(Decimal, stops), Decimal(0))
    assert (desk.plan().naked_since is None) is (guarded == desk.held())


def test_a_stop_of_the_whole_position_is_never_divided(desk: Desk) -> None:
    """It is a level of the position there, and no order."""
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, whole_stop=True)
    entry = desk.buy("0.03", order_type="limit", price="60000")
    Instrument.objects.update(max_quantity=Decimal("0.01"))
    desk.fills(entry, part(1, "0.03"))
    assert desk.guarded() == [("0.03", "58000")]


def test_a_part_too_small_for_the_venue_is_said_and_guarded_once_it_is_large_enough(
    desk: Desk,
) -> None:
    entry = desk.buy("0.01", order_type="limit", price="60000")
    desk.fills(entry, part(1, "0.00005"))
    assert desk.live() == []
    assert desk.plan().naked_since is None
    assert desk.plan().detail == (
        "0.00005 is too small for an order at this venue and stays unguarded"
    )

    desk.fills(entry, part(1, "0.00005"), part(2, "0.001"))
    assert desk.guarded() == [("0.00105", "58000")]


def test_guarding_again_changes_nothing(desk: Desk) -> None:
    desk.buy()
    before = Order.objects.count()
    for _ in range(3):
        desk.guard()
    assert Order.objects.count() == before
    assert len(desk.script.sent) == 2


@pytest.mark.django_db(transaction=True)
def test_guarding_twice_at_once_places_one_stop(desk: Desk) -> None:
    desk.buy()
    Order.objects.filter(role=Order.Role.STOP_LOSS).delete()
    steps = together(*[lambda: protect.align(desk.account, SYMBOL)] * 4)
    assert sum(step.run_lane for step in steps) == 1
    assert len(desk.live()) == 1


@pytest.mark.django_db(transaction=True)
def test_a_fill_beside_an_alignment_is_not_forgotten(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that is just found closed is armed again by a fill that comes at that moment."""
    first = desk.buy()
    entry = desk.buy("0.01", order_type="limit", price="60000")
    Position.objects.update(quantity=0)
    Order.objects.filter(role=Order.Role.STOP_LOSS).delete()
    judged, filled, plain = threading.Event(), threading.Event(), protect._aligned

    def slowly(case: Any) -> protect.NextStep:
        step = plain(case)
        judged.set()
        filled.wait(0.5)
        return step

    def fill() -> None:
        assert judged.wait(20)
        fills.apply_report(
            entry, report_of(entry, VenueStatus.FILLED, part(1, "0.01")), source="test"
        )
        filled.set()

    with monkeypatch.context() as slow:
        slow.setattr(protect, "_aligned", slowly)
        together(lambda: protect.align(desk.account, SYMBOL), fill)

    plan = desk.plan()
    assert (plan.is_active, plan.entry_id) == (True, entry.pk)
    assert plan.entry_id != first.pk
    desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


@pytest.mark.django_db(transaction=True)
def test_an_alignment_beside_a_fill_waits_for_it_and_does_not_lock_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.buy()
    entry = desk.buy("0.01", order_type="limit", price="60000")
    booking, aligned, plain = threading.Event(), threading.Event(), arming.arm

    def slowly(order: Order, held: Decimal) -> None:
        booking.set()
        aligned.wait(0.5)
        plain(order, held)

    def align() -> None:
        assert booking.wait(20)
        protect.align(desk.account, SYMBOL)
        aligned.set()

    def fill() -> None:
        report = report_of(entry, VenueStatus.FILLED, part(1, "0.01"))
        fills.apply_report(entry, report, source="test")

    with monkeypatch.context() as slow:
        slow.setattr(arming, "arm", slowly)
        together(align, fill)

    assert desk.guarded() == [("0.01", "58000"), ("0.01", "58000")]


def test_a_worker_killed_between_fill_and_alignment_leaves_a_row_the_sweep_finds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(tasks, "_guard", lambda *_: None)
        desk.buy()
    assert desk.live() == []
    assert desk.plan().aligned_at is None

    periodic_tasks.sweep()

    assert desk.guarded() == [("0.01", "58000")]


def test_a_plan_just_looked_at_is_not_due(desk: Desk, clock: time_machine.Coordinates) -> None:
    desk.buy()
    assert protect.due(timezone.now() - timedelta(seconds=3)) == []
    clock.shift(4)
    before = timezone.now() - timedelta(seconds=3)
    assert protect.due(before) == [(desk.account.pk, SYMBOL)]
    assert protect.due(before) == []


def test_a_clock_that_is_set_back_leaves_no_position_unseen(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy()
    clock.shift(-3600)
    before = timezone.now() - timedelta(seconds=3)
    assert protect.due(before) == [(desk.account.pk, SYMBOL)]
    assert protect.due(before) == []


@pytest.mark.parametrize(
    ("seconds", "is_off"), [(None, False), (-1, False), (19, True), (45, False), (3600, False)]
)
def test_no_stop_stays_off_longer_than_an_exit_may_need(
    clock: time_machine.Coordinates, seconds: int | None, is_off: bool
) -> None:
    until = None if seconds is None else timezone.now() + timedelta(seconds=seconds)
    assert Protection(suspended_until=until).is_suspended is is_off


# --- the position gets smaller ---------------------------------------------------------------------


def test_closing_takes_the_stop_off_first_and_ends_the_plan(desk: Desk) -> None:
    desk.buy()
    (stop,) = desk.live()

    signal = desk.send("close")

    assert signal.state == SignalState.EXECUTED
    assert desk.held() == 0
    stop.refresh_from_db()
    assert (stop.state, stop.reason) == (OrderState.CANCELED, "CANCELED_BY_SIGNAL")
    assert desk.live() == []
    plan = desk.plan()
    assert (plan.is_active, plan.detail) == (False, "the position is closed")
    assert [request.type.value for request in desk.script.sent] == ["market", "stop", "market"]


def test_a_stop_that_locks_nothing_and_only_reduces_stays_until_the_position_is_closed(
    desk: Desk,
) -> None:
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, reduce_only=True)
    desk.buy()
    (stop,) = desk.live()

    desk.send("sell", quantity="0.004")
    assert desk.guarded() == [("0.006", "58000")]
    desk.send("close")

    assert desk.live() == []
    assert not desk.plan().is_active
    stop.refresh_from_db()
    assert stop.state == OrderState.CANCELED


def test_after_a_partial_exit_the_rest_is_guarded_at_once(desk: Desk) -> None:
    desk.buy()
    desk.send("sell", quantity="0.004")
    assert desk.held() == Decimal("0.006")
    assert desk.guarded() == [("0.006", "58000")]
    assert desk.plan().suspended_until is None


def test_a_stop_that_fills_closes_the_book_and_the_plan(desk: Desk) -> None:
    desk.buy(take_profit=[{"price": "70000", "percent": "100"}])
    (stop,) = desk.live()

    desk.fills(stop, part(1, "0.01", price="57990"))

    position = Position.objects.get()
    assert (position.quantity, position.realised_pnl) == (0, Decimal("-20.1"))
    assert not desk.plan().is_active
    assert desk.live() == []


def test_a_stop_that_fills_in_parts_is_left_alone(desk: Desk) -> None:
    desk.buy()
    (stop,) = desk.live()
    desk.fills(stop, part(1, "0.003", price="57990"))
    assert desk.guarded() == [("0.007", "58000")]
    assert desk.script.canceled == []


def test_dust_that_no_order_could_sell_ends_the_plan(desk: Desk) -> None:
    entry = desk.buy("0.01", order_type="limit", price="60000")
    desk.fills(entry, part(1, "0.01", fee="0.000012", fee_currency="BTC"))
    (stop,) = desk.live()

    desk.fills(stop, part(2, "0.00998", price="57990"))

    assert desk.held() == Decimal("0.000008")
    assert not desk.plan().is_active


def test_a_position_below_a_step_that_has_grown_keeps_its_stop(desk: Desk) -> None:
    """No order could take its place, and without the plan nobody would be told."""
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, reduce_only=True)
    desk.buy(stop="58000.01")
    for step, tick in (("0.1", "0.01"), ("0.1", "1")):
        Instrument.objects.update(quantity_step=Decimal(step), price_tick=Decimal(tick))
        desk.guard()
        assert desk.guarded() == [("0.01", "58000.01")]
    plan = desk.plan()
    assert (plan.is_active, plan.naked_since) == (True, None)
    assert plan.detail == "0.01 is less than one step of the venue by now: its stop stays as it is"
    assert desk.script.canceled == []

    Instrument.objects.update(quantity_step=Decimal("0.00001"), price_tick=Decimal("0.01"))
    desk.guard()
    assert desk.plan().detail == "0.01 guarded at 58000.01"
    Position.objects.update(quantity=0)
    desk.guard()
    assert (desk.live(), desk.plan().is_active) == ([], False)


def test_dust_beside_a_larger_stop_ends_the_plan(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, reduce_only=True)
    desk.buy()
    Position.objects.update(quantity=Decimal("0.000008"))
    desk.guard()
    assert desk.live() == []
    plan = desk.plan()
    assert (plan.is_active, plan.detail) == (False, "the position is closed")


def test_a_stop_left_over_by_a_killed_worker_is_taken_off_by_the_sweep(
    desk: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, reduce_only=True)
    desk.buy()
    with monkeypatch.context() as killed:
        killed.setattr(tasks.cancel_order, "apply_async", lambda *_, **__: None)
        desk.send("close")
    assert desk.guarded() == [("0.01", "58000")]
    assert not desk.plan().is_active

    clock.shift(4)
    periodic_tasks.sweep()

    assert desk.live() == []


def test_a_stop_of_the_other_side_does_not_guard(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, short_selling=True)
    desk.script.price = Decimal(60001)
    desk.buy(stop="60000.5")
    desk.script.price = Decimal(60000)
    desk.send("sell", quantity="0.03", stop_loss="60000.5")
    assert desk.held() == Decimal("-0.02")
    assert [(one.side, one.remaining) for one in desk.live()] == [("buy", Decimal("0.02"))]


def test_a_stop_of_the_other_side_goes_also_while_no_other_could_be_sent(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, short_selling=True)
    early = desk.buy("0.01", stop="50000", order_type="limit", price="60000")
    desk.send("sell", quantity="0.004", stop_loss="62000")
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    desk.fills(early, part(1, "0.01"))
    desk.guard()
    assert [(one.side, one.state) for one in desk.live()] == [("sell", OrderState.PENDING)]


# --- it gets smaller while the venue takes no orders ------------------------------------------------


def target_fills(desk: Desk, quantity: str) -> None:
    """A limit exit of ``quantity`` has rested since before, and trades now."""
    target = Order.objects.get(role=Order.Role.EXIT, type="limit")
    desk.fills(target, part(9, quantity, price="70000"))
    for _ in range(3):
        desk.guard()


@pytest.fixture
def reduces(desk: Desk) -> Desk:
    """Stops only reduce and keep no coins."""
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    return desk


@pytest.mark.parametrize("obstacle", ["breaker", "not compared", "unknown exit"])
def test_a_stop_that_only_reduces_stays_while_a_smaller_one_could_not_leave(
    reduces: Desk, obstacle: str
) -> None:
    desk, breaker = reduces, breakers.of_account(reduces.account.pk)
    desk.buy()
    desk.send("sell", quantity="0.004", order_type="limit", price="70000")
    lost = OrderFactory.create(
        account=desk.account, side="sell", role=Order.Role.EXIT, state=OrderState.NOT_PLACED
    )
    if obstacle == "breaker":
        breakers.trip(breaker, "test")
    elif obstacle == "not compared":
        Account.objects.update(reconciled_at=None)
    else:
        Order.objects.filter(pk=lost.pk).update(state=OrderState.UNKNOWN)
    target_fills(desk, "0.004")

    assert desk.held() == Decimal("0.006")
    assert desk.guarded() == [("0.01", "58000")]
    assert desk.script.canceled == []
    assert desk.plan().naked_since is None

    breakers.reset(breaker, "test")
    Account.objects.update(reconciled_at=timezone.now())
    Order.objects.filter(pk=lost.pk).update(state=OrderState.NOT_PLACED)
    desk.guard()
    assert desk.guarded() == [("0.006", "58000")]
    assert [one.state for one in desk.live()] == [OrderState.OPEN]


def test_one_of_several_that_nothing_replaces_is_taken_off_at_once(reduces: Desk) -> None:
    desk = reduces
    desk.buy("0.006")
    desk.buy("0.004")
    desk.send("sell", quantity="0.004", order_type="limit", price="70000")
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    target_fills(desk, "0.004")
    assert desk.guarded() == [("0.006", "58000")]
    assert len(desk.script.canceled) == 1


@pytest.mark.usefixtures("standing_clock")
def test_one_stays_while_its_like_has_just_been_refused(reduces: Desk) -> None:
    desk = reduces
    desk.buy("0.006")
    desk.script.outcomes.extend([fill_whole, REFUSED])
    desk.buy("0.004")
    assert desk.guarded() == [("0.006", "58000")]
    desk.send("sell", quantity="0.005")
    assert desk.held() == Decimal("0.005")
    assert desk.guarded() == [("0.006", "58000")]
    assert desk.script.canceled == []


def test_a_stop_that_could_turn_the_position_over_goes_at_once(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, short_selling=True)
    desk.buy()
    desk.send("sell", quantity="0.004", order_type="limit", price="70000")
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    target_fills(desk, "0.004")
    assert desk.guarded() == [("0.006", "58000")]
    assert [one.state for one in desk.live()] == [OrderState.PENDING]


# --- exits ------------------------------------------------------------------------------------------


def test_while_an_exit_is_under_way_no_stop_is_placed(desk: Desk) -> None:
    desk.buy()
    desk.script.outcomes.append(swallow)
    desk.send("close")
    assert desk.live() == []
    desk.guard()
    assert desk.live() == []
    assert desk.plan().suspended_until is not None


@pytest.mark.parametrize("outcome", ["filled", "rejected"])
def test_an_exit_that_ends_lets_the_stop_back_at_once(desk: Desk, outcome: str) -> None:
    desk.buy()
    if outcome == "rejected":
        desk.script.outcomes.append(REFUSED)
    desk.send("sell", quantity="0.004")
    assert desk.plan().suspended_until is None
    assert desk.guarded() == [("0.006" if outcome == "filled" else "0.01", "58000")]


def test_an_exit_that_is_denied_lets_the_stop_back_at_once(desk: Desk) -> None:
    desk.buy()
    signal = desk.send("sell", quantity="0.00001")
    assert (signal.state, signal.reason) == (SignalState.DENIED, "SIZE_TOO_SMALL")
    periodic_tasks.sweep()
    assert desk.guarded() == [("0.01", "58000")]


def test_an_exit_that_never_ends_lets_the_stop_back_after_20_s(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy()
    protect.suspend(desk.account, SYMBOL)
    Order.objects.filter(role=Order.Role.STOP_LOSS).update(state=OrderState.CANCELED)
    clock.shift(19)
    desk.guard()
    assert desk.live() == []
    clock.shift(2)
    desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


def test_an_exit_that_cannot_get_through_raises_the_alarm_all_the_same(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy()
    desk.script.outcomes.append(swallow)
    desk.send("close")
    desk.guard()
    clock.shift(6)
    assert [alarm.kind for alarm in alarms.look()] == [Alarm.Kind.NAKED_POSITION]


def test_a_resting_exit_keeps_its_coins_and_the_rest_is_guarded(desk: Desk) -> None:
    desk.buy()
    desk.send("sell", quantity="0.004", order_type="limit", price="70000")
    assert desk.guarded() == [("0.006", "58000")]
    assert desk.plan().naked_since is not None
    assert desk.plan().detail == "0.004 of 0.01 has no stop at the venue"


def test_closing_cancels_a_resting_exit_first(desk: Desk) -> None:
    desk.buy()
    desk.send("sell", quantity="0.01", order_type="limit", price="70000")
    desk.send("close")
    exits = Order.objects.filter(role=Order.Role.EXIT).order_by("id")
    assert [one.state for one in exits] == [OrderState.CANCELED, OrderState.FILLED]
    assert desk.held() == 0


def test_a_cancel_the_venue_does_not_obey_is_not_sent_in_a_loop(desk: Desk) -> None:
    desk.buy()
    refused = CancelResult(Outcome.NOT_SENT, code="VENUE_UNREACHABLE", detail="no")
    desk.script.cancel_results.extend([refused] * 50)

    signal = desk.send("close")

    assert signal.state == SignalState.RECEIVED
    assert len(desk.script.canceled) < 5


# --- halts and cancels ------------------------------------------------------------------------------


def halt() -> None:
    switch.change(TradingState.State.HALTED, reason="test")


def test_a_halt_does_not_stop_a_stop_loss(desk: Desk) -> None:
    entry = desk.buy("0.01", order_type="limit", price="60000")
    halt()
    desk.fills(entry, part(1, "0.01"))
    assert desk.guarded() == [("0.01", "58000")]


class TestAfterARestore:
    """The book is older than the venue: a stop that was placed since may rest there."""

    @pytest.fixture
    def unguarded(self, desk: Desk, clock: time_machine.Coordinates) -> Desk:
        """Restored, and the stop the book knows is canceled at the venue."""
        desk.buy()
        (stop,) = desk.live()
        restored.hold_everything("2026-01-01")
        desk.ends(stop, VenueStatus.CANCELED)
        clock.shift(6)
        return desk

    def agree(self, desk: Desk) -> None:
        Account.objects.update(reconciled_at=timezone.now())

    def differ(self, desk: Desk) -> Difference:
        now = timezone.now()
        difference: Difference = Difference.objects.create(
            account=desk.plan().account, kind=Difference.Kind.FOREIGN_ORDER, symbol=SYMBOL, key="7",
            first_seen_at=now, last_seen_at=now,
        )  # fmt: skip
        return difference

    def test_no_stop_is_placed_before_the_account_was_compared(self, unguarded: Desk) -> None:
        unguarded.guard()

        assert unguarded.guarded() == []
        assert unguarded.plan().naked_since is not None
        assert unguarded.plan().detail == (
            "0.01 of 0.01 has no stop at the venue; "
            "after a restore none is placed before the books agree"
        )

    def test_none_while_the_books_differ(
        self, unguarded: Desk, clock: time_machine.Coordinates
    ) -> None:
        self.agree(unguarded)
        difference = self.differ(unguarded)
        unguarded.guard()
        assert unguarded.guarded() == []

        difference.delete()
        clock.shift(3)
        unguarded.guard()
        assert unguarded.guarded() == [("0.01", "58000")]
        assert not unguarded.plan().is_doubted

    @pytest.mark.parametrize("symbol", [SYMBOL, "BTC/EUR"])
    def test_none_while_an_order_keeps_the_coin_out_of_the_comparison(
        self, unguarded: Desk, clock: time_machine.Coordinates, symbol: str
    ) -> None:
        lost = OrderFactory.create(
            account=unguarded.account, symbol=symbol, state=OrderState.NEEDS_OPERATOR
        )
        clock.shift(3)
        self.agree(unguarded)
        unguarded.guard()
        assert unguarded.guarded() == []

        commands.mark_ended(lost, "it is not there")
        unguarded.guard()
        assert unguarded.guarded() == []

        clock.shift(3)
        self.agree(unguarded)
        unguarded.guard()
        assert unguarded.guarded() == [("0.01", "58000")]

    def test_none_while_a_trade_of_the_last_seconds_keeps_the_coin_out_of_it(
        self, desk: Desk, clock: time_machine.Coordinates
    ) -> None:
        desk.buy()
        restored.hold_everything("2026-01-01")
        desk.ends(desk.live()[0], VenueStatus.CANCELED)
        clock.shift(4)
        self.agree(desk)
        desk.guard()
        assert desk.guarded() == []

        clock.shift(60)
        self.agree(desk)
        desk.guard()
        assert desk.guarded() == [("0.01", "58000")]

    @pytest.fixture
    def resting(self, desk: Desk) -> Order:
        """An entry that was open when the backup was made."""
        entry = desk.buy("0.01", order_type="limit", price="60000")
        restored.hold_everything("2026-01-01")
        return entry

    def test_none_for_an_entry_that_filled_after_the_backup(
        self, desk: Desk, resting: Order, clock: time_machine.Coordinates
    ) -> None:
        desk.fills(resting, part(1, "0.01"))
        clock.shift(3)
        self.agree(desk)
        desk.guard()
        assert desk.guarded() == []

        clock.shift(60)
        self.agree(desk)
        desk.guard()
        assert desk.guarded() == [("0.01", "58000")]

    @pytest.mark.parametrize("is_first", [True, False])
    def test_one_for_an_entry_that_fills_after_the_books_agreed(
        self, desk: Desk, clock: time_machine.Coordinates, is_first: bool
    ) -> None:
        if not is_first:
            desk.buy()
            desk.send("close")
            clock.shift(6)
        entry = desk.buy("0.01", order_type="limit", price="60000")
        restored.hold_everything("2026-01-01")
        desk.script.reports[entry.identity] = report_of(entry, VenueStatus.OPEN)
        reconcile.reconcile_account(desk.account)
        desk.fills(entry, part(1, "0.01"))
        assert desk.guarded() == [("0.01", "58000")]

    def test_none_where_they_differed_before_it_filled(
        self, desk: Desk, resting: Order, clock: time_machine.Coordinates
    ) -> None:
        desk.script.reports[resting.identity] = report_of(resting, VenueStatus.OPEN)
        difference = self.differ(desk)
        restored.note_compared(desk.account, left_out=())
        desk.fills(resting, part(1, "0.01"))
        assert desk.guarded() == []

        difference.delete()
        clock.shift(60)
        self.agree(desk)
        desk.guard()
        assert desk.guarded() == [("0.01", "58000")]

    def test_where_they_agree_the_position_is_guarded_at_once(self, unguarded: Desk) -> None:
        self.agree(unguarded)
        unguarded.guard()

        assert unguarded.guarded() == [("0.01", "58000")]

    def test_books_that_agreed_once_are_doubted_no_more(
        self, desk: Desk, clock: time_machine.Coordinates
    ) -> None:
        desk.buy()
        restored.hold_everything("2026-01-01")
        clock.shift(6)
        self.agree(desk)
        desk.guard()

        assert not desk.plan().is_doubted
        assert desk.guarded() == [("0.01", "58000")]

    def test_meanwhile_a_stop_stays_where_it_is(self, desk: Desk) -> None:
        desk.buy()
        restored.hold_everything("2026-01-01")
        Protection.objects.update(stop_price=Decimal(59000))
        desk.guard()

        assert desk.guarded() == [("0.01", "58000")]
        assert desk.script.canceled == []

    @pytest.mark.parametrize("policy", [Strategy.OnNaked.REPLACE, Strategy.OnNaked.ALARM])
    def test_one_that_was_on_its_way_is_looked_for_and_placed_anew(
        self, desk: Desk, clock: time_machine.Coordinates, policy: Strategy.OnNaked
    ) -> None:
        Strategy.objects.update(on_naked=policy)
        desk.script.outcomes.extend([fill_whole, swallow])
        desk.buy()
        (lost,) = desk.live()
        restored.hold_everything("2026-01-01")
        for _ in range(3):
            clock.shift(30)
            tasks.check_order(str(lost.pk))
        lost.refresh_from_db()
        assert (lost.state, len(desk.script.sent)) == (OrderState.NOT_PLACED, 2)

        clock.shift(60)
        self.agree(desk)
        desk.guard()
        assert desk.guarded() == [("0.01", "58000")]
        assert len(desk.script.sent) == 3

    def test_a_difference_of_another_day_keeps_no_stop_away(
        self, desk: Desk, clock: time_machine.Coordinates
    ) -> None:
        desk.buy()
        self.differ(desk)
        desk.ends(desk.live()[0], VenueStatus.CANCELED)
        clock.shift(3)
        desk.guard()

        assert desk.guarded() == [("0.01", "58000")]


def test_an_exit_denied_by_a_halt_takes_no_stop_off(desk: Desk) -> None:
    desk.buy()
    halt()
    signal = desk.send("close")
    assert (signal.state, signal.reason) == (SignalState.DENIED, "TRADING_HALTED")
    assert desk.script.canceled == []
    assert desk.guarded() == [("0.01", "58000")]
    assert desk.plan().suspended_until is None


def test_neither_a_cancel_alert_nor_cancel_all_touches_a_stop(desk: Desk) -> None:
    desk.buy()
    resting = desk.buy("0.01", stop=None, order_type="limit", price="50000")
    desk.send("cancel")
    resting.refresh_from_db()
    assert resting.state == OrderState.CANCELED
    row = halting.press(
        halting.Mode.CANCEL_ALL, scope=TradingState.Scope.GLOBAL, key="", reason="test"
    )
    assert not winding_down.carry_out(row, 0)
    assert desk.guarded() == [("0.01", "58000")]


def test_a_stop_canceled_at_the_venue_comes_back(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy()
    desk.ends(desk.live()[0], VenueStatus.CANCELED)
    clock.shift(3)
    desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


def test_a_stop_an_operator_cancels_comes_back_as_well(desk: Desk) -> None:
    desk.buy()
    (stop,) = desk.live()
    tasks.cancel_order(str(stop.pk))
    stop.refresh_from_db()
    assert (stop.state, stop.reason) == (OrderState.CANCELED, "CANCELED_BY_OPERATOR")
    assert desk.guarded() == [("0.01", "58000")]


def test_a_stop_taken_off_for_another_says_so(desk: Desk) -> None:
    desk.buy(stop="58000")
    (first,) = desk.live()
    desk.buy(stop="59000")
    first.refresh_from_db()
    assert (first.state, first.reason) == (OrderState.CANCELED, "REPLACED")
    asked = first.journal.get(event="request_cancel")
    assert asked.detail == "cancel asked for by the protection of the position"


def test_the_smallest_numbers_are_told_without_an_exponent(desk: Desk) -> None:
    Instrument.objects.update(quantity_step=Decimal("0.00000001"))
    entry = desk.buy("0.01", order_type="limit", price="60000")
    Instrument.objects.update(quantity_step=Decimal("0.00000001"))
    desk.fills(entry, part(1, "0.00000001"))
    assert desk.plan().detail.startswith("0.00000001 is too small")


# --- the venue says no ------------------------------------------------------------------------------


def test_a_refused_stop_is_tried_again_with_growing_pauses_five_times_in_all(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.outcomes.extend([fill_whole, *[REFUSED] * 9])
    desk.buy()
    refused = Order.objects.filter(role=Order.Role.STOP_LOSS, state=OrderState.REJECTED)
    assert refused.count() == 1
    for tries, pause in ((2, 2), (3, 4), (4, 8), (5, 16)):
        clock.shift(pause - 1.5)
        desk.guard()
        assert refused.count() == tries - 1
        clock.shift(2)
        desk.guard()
        assert refused.count() == tries
    clock.shift(3600)
    desk.guard()
    assert refused.count() == 5
    assert desk.plan().naked_since is not None


@pytest.mark.parametrize("refused", [LOGGED_OUT, NO_KEY, KEY_REFUSED, SWITCHED_OFF])
@pytest.mark.parametrize("policy", [Strategy.OnNaked.REPLACE, Strategy.OnNaked.ALARM])
def test_a_stop_waits_for_an_account_that_can_trade_however_long_it_takes(
    desk: Desk,
    clock: time_machine.Coordinates,
    refused: ExecutionResult,
    policy: Strategy.OnNaked,
) -> None:
    """Nothing says that the venue would refuse the stop."""
    Strategy.objects.update(on_naked=policy)
    desk.script.outcomes.extend([fill_whole, *[refused] * 12])
    desk.buy()
    tries = Order.objects.filter(role=Order.Role.STOP_LOSS)
    for pause in (2, 4, 8, 16, 32, *[60] * 6):
        count = tries.count()
        clock.shift(pause - 1.5)
        desk.guard()
        assert tries.count() == count
        clock.shift(2)
        desk.guard()
        assert tries.count() == count + 1
    assert desk.plan().naked_since is not None

    clock.shift(61)
    desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


def test_what_the_venue_refuses_still_counts_between_tries_without_a_log_in(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    turns = [REFUSED, LOGGED_OUT] * 5
    desk.script.outcomes.extend([fill_whole, *turns])
    desk.buy()
    for _ in turns:
        clock.shift(61)
        desk.guard()
    stops = Order.objects.filter(role=Order.Role.STOP_LOSS)
    assert stops.filter(state=OrderState.REJECTED).count() == 5
    assert stops.count() == 9, "the fifth refusal ended it"


def test_a_refused_stop_is_tried_again_after_the_clock_was_set_back(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.outcomes.extend([fill_whole, REFUSED])
    desk.buy()
    assert desk.guarded() == []
    clock.shift(-3600)
    desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


def test_refusals_of_long_ago_do_not_count_once_a_stop_was_placed(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.outcomes.extend([fill_whole, *[REFUSED] * 4])
    desk.buy()
    for pause in (3, 5, 9, 17):
        clock.shift(pause)
        desk.guard()
    assert desk.guarded() == [("0.01", "58000")]

    desk.script.outcomes.extend([fill_whole, *[REFUSED] * 4])
    desk.send("sell", quantity="0.004")
    for pause in (3, 5, 9, 17):
        clock.shift(pause)
        desk.guard()
    assert desk.guarded() == [("0.006", "58000")]


@pytest.mark.usefixtures("standing_clock")
def test_a_stop_the_venue_ends_at_once_is_not_placed_in_a_loop(desk: Desk) -> None:
    def expires(request: OrderRequest) -> ExecutionResult:
        return accepted(report_of(request, VenueStatus.EXPIRED))

    desk.script.outcomes.extend([fill_whole, *[expires] * 50])
    desk.buy()
    assert len(desk.script.sent) == 2


def test_a_stop_that_ends_with_each_day_is_renewed_for_as_long_as_the_position_is_held(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """Stops for parts of a share are good for the day only."""
    desk.buy()
    for _ in range(7):
        clock.shift(3600)
        (stop,) = desk.live()
        desk.ends(stop, VenueStatus.EXPIRED)
        desk.guard()
        assert desk.guarded() == [("0.01", "58000")]
        assert desk.live() != [stop]


def test_no_try_is_wasted_on_an_account_that_is_switched_off(desk: Desk) -> None:
    entry = desk.buy("0.01", order_type="limit", price="60000")
    desk.account.is_active = False
    desk.account.save()
    desk.fills(entry, part(1, "0.01"))
    assert not Order.objects.filter(role=Order.Role.STOP_LOSS).exists()
    assert desk.plan().naked_since is not None

    desk.account.is_active = True
    desk.account.save()
    desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


def test_the_policy_alarm_tries_only_once(desk: Desk, clock: time_machine.Coordinates) -> None:
    Strategy.objects.update(on_naked=Strategy.OnNaked.ALARM)
    desk.script.outcomes.extend([fill_whole, REFUSED])
    desk.buy()
    clock.shift(60)
    desk.guard()
    assert desk.live() == []


def test_a_stop_of_unknown_outcome_counts_as_live_and_is_not_doubled(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.outcomes.extend([fill_whole, swallow])
    desk.buy()
    (stop,) = desk.live()
    assert stop.state == OrderState.UNKNOWN
    clock.shift(10)
    desk.guard()
    assert [one.pk for one in desk.live()] == [stop.pk]
    assert desk.plan().naked_since is not None

    desk.script.reports[stop.identity] = report_of(stop, VenueStatus.OPEN)
    tasks.check_order(str(stop.pk))
    assert desk.plan().naked_since is None


# --- nothing can be said of the venue ---------------------------------------------------------------


def test_old_trading_rules_serve_where_the_venue_does_not_answer(desk: Desk) -> None:
    entry = desk.buy("0.01", order_type="limit", price="60000")
    desk.script.answers.append(report_of(entry, VenueStatus.FILLED, part(1, "0.01")))
    Instrument.objects.update(refreshed_at=timezone.now() - timedelta(hours=2))
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    tasks.check_order(str(entry.pk))
    (stop,) = Order.objects.filter(role=Order.Role.STOP_LOSS)
    assert (stop.state, stop.quantity) == (OrderState.PENDING, Decimal("0.01"))


@pytest.mark.parametrize("broken", ["no rules", "no plugin"])
def test_a_position_that_cannot_be_guarded_is_noted_as_naked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(tasks, "_guard", lambda *_: None)
        desk.buy()
    if broken == "no rules":
        Instrument.objects.all().delete()
        desk.script.failure = QueryFailedError("the venue hangs")
    else:
        desk.account.save()
        desk.script.init_failure = ConfigurationError("the credential is gone")

    desk.guard()

    plan = desk.plan()
    assert plan.naked_since is not None
    assert plan.aligned_at is not None
    words = "the venue hangs" if broken == "no rules" else "the credential is gone"
    assert words in plan.detail


def test_a_position_with_its_stop_at_the_venue_is_not_naked_for_want_of_an_answer(
    desk: Desk,
) -> None:
    desk.buy()
    Instrument.objects.all().delete()
    desk.script.failure = QueryFailedError("the venue hangs")
    desk.guard()
    assert desk.plan().naked_since is None


def test_nothing_is_sent_before_the_first_reconciliation_and_it_starts_by_itself(
    desk: Desk,
) -> None:
    desk.account.reconciled_at = None
    desk.account.save()
    desk.script.outcomes.append(fill_whole)
    signal = desk.send("buy", quantity="0.01", stop_loss="58000")
    assert (signal.state, desk.script.sent) == (SignalState.WORKING, [])

    periodic_tasks.sweep()

    assert Signal.objects.get().state == SignalState.EXECUTED
    assert desk.guarded() == [("0.01", "58000")]
