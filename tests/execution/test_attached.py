"""A stop loss that leaves with its entry: known as ours, sized and cancelled with the position, and
replaced where it never arrived."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine

from brokers.types import OrderReport, Side, VenueStatus
from execution import attached, reconcile, tasks
from execution.models import Difference, Order, Strategy
from execution.states import OrderState
from tests.brokers.scripted import CAPABILITIES, report_of, rest, swallow
from tests.execution.guarding import Desk, clock, desk, part

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _venue_takes_both(desk: Desk) -> None:
    desk.script.capabilities = replace(
        CAPABILITIES, attached_stop=True, short_selling=True, locks_balance=False
    )


def resting_entry(desk: Desk) -> Order:
    desk.script.outcomes.append(rest)
    return desk.buy("0.01", order_type="limit", price="60000")


def shows_stop(
    desk: Desk, entry: Order, quantity: str = "0.01", status: VenueStatus = VenueStatus.OPEN
) -> OrderReport:
    """The venue shows the stop that came with ``entry``."""
    carried = attached.asked_of(entry)
    assert carried is not None
    report = OrderReport(
        broker_order_id=f"stop of {entry.pk.hex[:6]}",
        client_order_id=entry.attached_client_id,
        symbol=entry.symbol,
        side=Side(entry.side).opposite,
        status=status,
        quantity=Decimal(quantity),
        filled_quantity=Decimal(0),
        average_price=None,
    )
    desk.script.reports[carried.identity] = report
    return report


def stop_of(entry: Order) -> Order:
    carried = attached.asked_of(entry)
    assert carried is not None
    return Order.objects.get(pk=carried.identity)


def look_for_stop(entry: Order) -> Order:
    tasks.check_order(str(stop_of(entry).pk))
    return stop_of(entry)


def test_an_entry_carries_its_stop_and_nothing_else_is_sent(desk: Desk) -> None:
    entry = resting_entry(desk)
    (request,) = desk.script.sent
    assert request.attached_stop is not None
    assert request.attached_stop.price == Decimal(58000)
    assert Order.objects.count() == 1
    assert "the stop loss goes with the order" in str(entry.verdicts)

    shows_stop(desk, entry)
    desk.fills(entry, part(1, "0.01"))
    assert stop_of(entry).state == OrderState.UNKNOWN
    stop = look_for_stop(entry)

    assert (stop.state, stop.side, stop.role) == (OrderState.OPEN, "sell", "stop_loss")
    assert stop.client_order_id == entry.attached_client_id
    assert desk.guarded() == [("0.01", "58000")]
    assert desk.plan().naked_since is None
    assert [one.identity for one in desk.script.sent] == [entry.identity]


def test_the_price_carried_is_the_one_a_stop_of_ours_would_have(desk: Desk) -> None:
    desk.script.outcomes.append(rest)
    entry = desk.buy(stop="58000.019", order_type="limit", price="60000")
    assert entry.attached_stop == Decimal("58000.02")


def test_a_venue_that_takes_none_gets_none(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, attached_stop=False)
    entry = resting_entry(desk)
    assert (entry.attached_stop, desk.script.sent[0].attached_stop) == (None, None)


def test_entries_without_a_stop_and_exits_carry_none(desk: Desk) -> None:
    desk.buy(stop=None)
    desk.send("close")
    assert [one.attached_stop for one in desk.script.sent] == [None, None]


def test_a_stop_that_never_arrived_is_replaced_by_ours(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    entry = resting_entry(desk)
    desk.fills(entry, part(1, "0.01"))
    assert look_for_stop(entry).state == OrderState.UNKNOWN
    assert desk.plan().naked_since is not None

    clock.shift(attached.SETTLES + timedelta(seconds=0.1))
    assert look_for_stop(entry).state == OrderState.NOT_PLACED

    (ours,) = desk.live()
    assert (ours.state, ours.stop_price, ours.quantity) == (
        OrderState.OPEN,
        Decimal(58000),
        Decimal("0.01"),
    )
    assert ours.identity != stop_of(entry).identity
    assert desk.plan().naked_since is None
    assert [one.identity for one in desk.script.sent] == [entry.identity, ours.identity]


def test_one_that_turns_up_beside_ours_is_taken_off_again(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    entry = resting_entry(desk)
    desk.fills(entry, part(1, "0.01"))
    clock.shift(attached.SETTLES + timedelta(seconds=0.1))
    look_for_stop(entry)
    late = shows_stop(desk, entry)
    clock.shift(timedelta(seconds=1))
    reconcile.book(stop_of(entry), late, source="open at the venue after its end here")
    assert len(desk.live()) == 2

    desk.guard()
    assert len(desk.script.canceled) == 1
    assert len([one for one in desk.live() if one.state != OrderState.CANCELING]) == 1


@pytest.mark.parametrize("end", [VenueStatus.CANCELED, VenueStatus.REJECTED, VenueStatus.EXPIRED])
def test_an_entry_that_never_trades_leaves_no_stop(desk: Desk, end: VenueStatus) -> None:
    entry = desk.ends(resting_entry(desk), end)
    assert entry.finished_at is not None
    assert Order.objects.filter(role=Order.Role.STOP_LOSS).count() == 0


def test_it_is_as_large_as_the_venue_says_while_the_entry_fills(desk: Desk) -> None:
    entry = resting_entry(desk)
    shows_stop(desk, entry, "0.004")
    desk.fills(entry, part(1, "0.004"))
    look_for_stop(entry)
    assert desk.guarded() == [("0.004", "58000")]

    shows_stop(desk, entry, "0.01")
    desk.fills(entry, part(1, "0.004"), part(2, "0.006"))
    look_for_stop(entry)
    assert desk.guarded()[0] == ("0.01", "58000")


def test_one_larger_than_what_is_held_is_replaced_by_one_of_the_right_size(desk: Desk) -> None:
    """A venue that holds the whole back, or wakes the whole, with a part of the entry traded."""
    entry = resting_entry(desk)
    shows_stop(desk, entry, "0.01")
    desk.fills(entry, part(1, "0.004"))
    stop = look_for_stop(entry)
    assert stop.state == OrderState.CANCELED
    assert desk.guarded() == [("0.004", "58000")]
    assert desk.live()[0].identity != stop.identity


def test_it_is_cancelled_when_the_position_is_closed(desk: Desk) -> None:
    entry = resting_entry(desk)
    shows_stop(desk, entry)
    desk.fills(entry, part(1, "0.01"))
    stop = look_for_stop(entry)
    desk.send("close")
    assert desk.held() == 0
    assert [one.identity for one in desk.script.canceled] == [stop.identity]


def test_entry_and_stop_that_filled_while_fks_was_down_leave_nothing(desk: Desk) -> None:
    entry = resting_entry(desk)
    desk.fills(entry, part(1, "0.01"))
    sold = part(2, "0.01", price="57990")
    stop = stop_of(entry)
    desk.script.reports[stop.identity] = report_of(stop, VenueStatus.FILLED, sold)
    look_for_stop(entry)
    assert desk.held() == 0
    assert not desk.plan().is_active
    assert desk.live() == []


def test_an_entry_that_is_sent_again_carries_the_same_stop(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.outcomes.append(swallow)
    entry = desk.buy("0.01", order_type="limit", price="60000")
    assert entry.state == OrderState.UNKNOWN
    desk.script.outcomes.append(rest)
    for _ in range(2):
        clock.shift(timedelta(seconds=CAPABILITIES.settle_window + 1))
        tasks.check_order(str(entry.pk))
    first, again = desk.script.sent
    assert first.attached_stop == again.attached_stop
    assert Order.objects.count() == 1


def test_a_waiting_stop_is_known_as_ours_while_its_entry_may_trade(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    entry = resting_entry(desk)
    shows_stop(desk, entry)
    reconcile.reconcile_account(desk.account)
    assert Difference.objects.count() == 0

    desk.ends(entry, VenueStatus.CANCELED)
    clock.shift(timedelta(minutes=2))
    reconcile.reconcile_account(desk.account)
    (found,) = Difference.objects.all()
    assert found.kind == Difference.Kind.FOREIGN_ORDER


def test_slices_carry_none(desk: Desk) -> None:
    desk.strategy.execution, desk.strategy.slices = Strategy.Execution.TWAP, 2
    desk.strategy.slicing_seconds = 60
    desk.strategy.save()
    whole = Order.objects.get(
        signal=desk.send("buy", quantity="0.01", stop_loss="58000"), role="entry", parent=None
    )
    tasks.work_slices(str(whole.pk))
    assert (whole.state, whole.attached_stop) == (OrderState.SLICING, None)
    assert {one.attached_stop for one in desk.script.sent} == {None}
    assert desk.script.sent


def test_the_answer_to_a_placement_may_bring_fill_and_stop_at_once(desk: Desk) -> None:
    entry = desk.buy("0.01")
    assert entry.state == OrderState.FILLED
    shows_stop(desk, entry)
    look_for_stop(entry)
    assert desk.guarded() == [("0.01", "58000")]
    assert [one.identity for one in desk.script.sent] == [entry.identity]
