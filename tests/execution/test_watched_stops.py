"""Stops FKS watches itself, at a venue that takes none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import QuoteUnavailableError
from brokers.types import ExecutionResult, OrderRequest, OrderType, Outcome, VenueStatus
from execution import account_tasks, alarms, periodic_tasks, tasks
from execution.models import Alarm, Order, Position, Protection, Signal, Strategy
from execution.states import OrderState
from risk import switch
from risk.models import TradingState
from tests.brokers.scripted import CAPABILITIES, accepted, report_of, rest, swallow, trade
from tests.execution.guarding import Desk, desk, part

__all__ = ["desk"]

pytestmark = pytest.mark.django_db
REFUSED = ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail="no")
WITHOUT_STOPS = replace(
    CAPABILITIES,
    order_types=frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT}),
    watched_stop=True,
)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Time stands still, so that windows are tested to the second; ``shift`` moves it."""
    with time_machine.travel(timezone.now(), tick=False) as moved:
        yield moved


@pytest.fixture
def bare(desk: Desk) -> Desk:
    """The desk at a venue without stop-market orders, where the operator allows watched stops."""
    desk.script.capabilities = WITHOUT_STOPS
    return desk


def look(desk: Desk, price: int | str) -> None:
    desk.script.price = Decimal(price)
    account_tasks.watch(desk.account.pk)


def last_sent(desk: Desk) -> tuple[str, str, str, bool]:
    one = desk.script.sent[-1]
    return one.side.value, one.type.value, f"{one.quantity:f}", one.reduce_only


def fills_half(request: OrderRequest) -> ExecutionResult:
    half = trade(f"H{request.identity}", request.quantity / 2)
    return accepted(report_of(request, VenueStatus.EXPIRED, half))


def test_without_the_operators_word_the_entry_is_refused(desk: Desk) -> None:
    desk.script.capabilities = replace(WITHOUT_STOPS, watched_stop=False)
    order = desk.buy(stop="58000")
    assert (order.state, order.reason) == (OrderState.DENIED, "NOT_SUPPORTED")
    assert "does not let FKS watch it" in order.verdicts[-1]["detail"]
    assert desk.script.sent == []
    assert desk.buy(stop=None).state == OrderState.FILLED


def test_with_it_the_entry_says_what_the_operator_took_upon_himself(bare: Desk) -> None:
    entry = bare.buy("0.01", stop="58000")
    assert entry.state == OrderState.FILLED
    notes = [one["detail"] for one in entry.verdicts if one["rule"] == "protection"]
    assert notes == [
        "the stop loss is watched by FKS, which closes at the market; nothing guards while FKS is down"
    ]
    plan = bare.plan()
    assert (plan.guard, plan.naked_since) == ("watched", None)
    assert plan.detail == "FKS watches the stop at 58000 for 0.01: the venue holds none"
    assert len(bare.script.sent) == 1, "no stop is sent to a venue that takes none"


def test_the_position_leaves_at_the_market_once_the_price_has_passed(bare: Desk) -> None:
    bare.buy("0.01", stop="58000")
    look(bare, "58000.01")
    assert bare.held() == Decimal("0.01")

    look(bare, 58000)

    assert last_sent(bare) == ("sell", "market", "0.01", False)
    assert bare.script.sent[-1].reference_price == 58000
    stop = Order.objects.get(role=Order.Role.STOP_LOSS)
    assert (stop.state, stop.type, stop.stop_price) == (OrderState.FILLED, "market", None)
    assert stop.journal.earliest("id").detail == "closes 0.01 of BTC/USDT: 58000 has passed 58000"
    assert bare.held() == 0
    assert bare.plan().guard == "ended"


def test_a_short_leaves_above_its_stop_and_only_reduces(bare: Desk) -> None:
    bare.script.capabilities = replace(
        WITHOUT_STOPS, short_selling=True, reduce_only=True, locks_balance=False
    )
    bare.send("sell", quantity="0.01", stop_loss="62000")
    look(bare, 61999)
    assert bare.held() == Decimal("-0.01")
    look(bare, 62001)
    assert last_sent(bare) == ("buy", "market", "0.01", True)
    assert bare.held() == 0


def test_it_survives_a_restart(bare: Desk) -> None:
    """All there is of it is a row: the sweep of whoever comes next goes on watching."""
    bare.buy("0.01", stop="58000")
    bare.script.price = Decimal(57000)
    periodic_tasks.sweep()
    assert bare.held() == 0


def test_one_that_was_passed_closes_also_when_the_price_has_come_back(
    bare: Desk, clock: time_machine.Coordinates
) -> None:
    bare.buy("0.01", stop="58000")
    bare.script.outcomes.extend([fills_half, REFUSED])
    look(bare, 57900)
    assert bare.held() == Decimal("0.005")
    clock.shift(2.1)
    look(bare, 60000)
    assert bare.held() == 0
    assert [one.reference_price for one in bare.script.sent[1:]] == [57900, 57900, 60000]


def test_it_closes_during_a_halt_as_a_stop_at_a_venue_does(bare: Desk) -> None:
    bare.buy("0.01", stop="58000")
    switch.change(TradingState.State.HALTED, reason="test")
    look(bare, 57900)
    assert bare.held() == 0


def test_what_is_refused_is_tried_again_with_an_alarm_and_then_by_an_alert(
    bare: Desk, clock: time_machine.Coordinates
) -> None:
    bare.buy("0.01", stop="58000")
    bare.script.outcomes.extend([REFUSED] * 2)
    look(bare, 57900)
    assert bare.plan().guard == "unguarded"
    assert len(bare.script.sent) == 2
    look(bare, 57900)
    assert len(bare.script.sent) == 2, "the next try has to wait"

    clock.shift(4.5)
    alarms.look()
    (alarm,) = Alarm.objects.all()
    assert (alarm.kind, alarm.detail) == (
        Alarm.Kind.NAKED_POSITION,
        "the market passed the watched stop at 58000: 0.01 is being closed",
    )
    look(bare, 59000)
    assert len(bare.script.sent) == 3
    clock.shift(3)
    look(bare, 59000)
    assert bare.held() == 0
    assert Signal.objects.latest("id").body.startswith("its stop is not at the venue")
    assert alarms.look() == []
    assert Alarm.objects.filter(cleared_at=None).count() == 0


def test_without_prices_there_is_an_alarm_which_ends_with_the_next_price(
    bare: Desk, clock: time_machine.Coordinates
) -> None:
    bare.buy("0.01", stop="58000")
    look(bare, 60000)
    bare.script.quote_failure = QuoteUnavailableError("one-sided")
    clock.shift(4.9)
    look(bare, 60000)
    bare.guard()
    assert bare.plan().guard == "watched"

    clock.shift(0.2)
    look(bare, 60000)
    bare.guard()
    plan = bare.plan()
    assert plan.guard == "unguarded"
    assert plan.detail == (
        f"FKS watches the stop at 58000, and has seen no price since {plan.watched_at:%H:%M:%S} UTC"
    )
    assert [alarm.kind for alarm in alarms.look()] == [Alarm.Kind.NAKED_POSITION]

    bare.script.quote_failure = None
    look(bare, 60000)
    bare.guard()
    assert bare.plan().guard == "watched"
    alarms.look()
    assert Alarm.objects.get().cleared_at is not None
    assert bare.held() == Decimal("0.01")


def test_the_alarm_for_want_of_prices_waits_for_no_worker(
    bare: Desk, clock: time_machine.Coordinates
) -> None:
    bare.buy("0.01", stop="58000")
    look(bare, 60000)
    clock.shift(5)
    assert alarms.look() == []
    clock.shift(0.1)
    (alarm,) = alarms.look()
    assert (alarm.kind, alarm.symbol) == (Alarm.Kind.NAKED_POSITION, "BTC/USDT")
    assert "FKS watches the stop at 58000, and has seen no price since" in alarm.detail

    bare.guard()
    assert bare.plan().guard == "unguarded"
    assert alarms.look() == [], "the plan says it now: it is one alarm"
    look(bare, 60000)
    bare.guard()
    alarms.look()
    assert Alarm.objects.get().cleared_at is not None


@pytest.mark.parametrize("policy", list(Strategy.OnNaked))
def test_no_policy_closes_a_position_whose_stop_is_watched(
    bare: Desk, clock: time_machine.Coordinates, policy: Strategy.OnNaked
) -> None:
    Strategy.objects.update(on_naked=policy)
    bare.buy("0.01", stop="58000")
    clock.shift(8)
    bare.guard()
    assert bare.plan().guard == "unguarded"
    look(bare, 58001)
    assert bare.held() == Decimal("0.01")


def test_coins_an_exit_holds_are_not_sold_twice(bare: Desk) -> None:
    bare.buy("0.01", stop="58000")
    bare.script.outcomes.append(rest)
    bare.send("close", quantity="0.004", order_type="limit", price="62000")
    look(bare, 57900)
    assert last_sent(bare) == ("sell", "market", "0.006", False)
    assert bare.held() == Decimal("0.004")
    assert bare.plan().guard == "unguarded"


def test_what_a_resting_exit_keeps_is_closed_by_an_alert_which_cancels_it(
    bare: Desk, clock: time_machine.Coordinates
) -> None:
    bare.buy("0.01", stop="58000")
    bare.script.outcomes.append(rest)
    bare.send("close", quantity="0.004", order_type="limit", price="62000")
    look(bare, 57900)
    clock.shift(5.1)
    look(bare, 57900)
    assert len(bare.script.canceled) == 1
    assert bare.held() == 0


def test_an_order_of_unknown_fate_is_not_sent_beside(
    bare: Desk, clock: time_machine.Coordinates
) -> None:
    bare.buy("0.01", stop="58000")
    bare.script.outcomes.append(swallow)
    look(bare, 57900)
    clock.shift(10)
    look(bare, 57900)
    assert len(bare.script.sent) == 2
    assert bare.plan().guard == "unguarded"


def test_it_is_never_larger_than_what_is_still_held(bare: Desk) -> None:
    """An order that waited in its lane while the position got smaller."""
    bare.buy("0.01", stop="58000")
    breaker_closes = hold_the_lane(bare)
    look(bare, 57900)
    (stop,) = bare.live()
    assert (stop.state, stop.quantity) == (OrderState.PENDING, Decimal("0.01"))
    sell_by_hand(bare, "0.007")
    breaker_closes()
    stop.refresh_from_db()
    assert (stop.state, stop.filled_quantity) == (OrderState.FILLED, Decimal("0.003"))


def hold_the_lane(desk: Desk) -> Callable[[], None]:
    """The account has still to be reconciled; returns what ends that and runs the lane."""
    desk.account.reconciled_at, before = None, desk.account.reconciled_at
    desk.account.save()

    def go_on() -> None:
        desk.account.reconciled_at = before
        desk.account.save()
        tasks.run_lane(desk.account.pk, "BTC/USDT")

    return go_on


def sell_by_hand(desk: Desk, quantity: str) -> None:
    """Part of the position is gone by the time the lane runs."""
    row = Position.objects.get(account=desk.account)
    Position.objects.filter(pk=row.pk).update(quantity=row.quantity - Decimal(quantity))


def test_a_new_entry_with_another_stop_sets_it_for_all(bare: Desk) -> None:
    bare.buy("0.01", stop="58000")
    bare.buy("0.01", stop="57000")
    look(bare, 57500)
    assert bare.held() == Decimal("0.02")
    look(bare, 57000)
    assert last_sent(bare) == ("sell", "market", "0.02", False)
    assert bare.held() == 0


def test_a_stop_that_trails_is_watched_where_it_is(bare: Desk) -> None:
    Strategy.objects.update(trail_percent=1)
    bare.buy("0.01", stop="58000")
    look(bare, 70000)
    assert bare.plan().stop_price == 69300
    assert len(bare.script.sent) == 1
    look(bare, 69300)
    assert bare.held() == 0


def test_what_is_too_small_to_be_sold_is_said(bare: Desk) -> None:
    entry = bare.buy("0.01", order_type="limit", price="60000")
    bare.fills(entry, part(1, "0.00005"))
    assert bare.plan().detail == (
        "0.00005 is too small for an order at this venue and stays unguarded"
    )
    look(bare, 57000)
    assert len(bare.script.sent) == 1


def test_a_venue_that_takes_stops_after_all_gets_them(bare: Desk) -> None:
    bare.buy("0.01", stop="58000")
    assert bare.plan().guard == "watched"
    bare.script.capabilities = CAPABILITIES
    bare.guard()
    assert bare.guarded() == [("0.01", "58000")]
    assert (bare.plan().guard, bare.plan().watched_at) == ("guarded", None)


def test_targets_and_a_watched_stop_stand_beside_each_other(bare: Desk) -> None:
    bare.buy("0.01", take_profit=[{"price": "61000", "percent": "40"}])
    look(bare, 61000)
    assert bare.held() == Decimal("0.006")
    look(bare, 58000)
    assert last_sent(bare) == ("sell", "market", "0.006", False)
    assert bare.held() == 0


def test_a_restored_book_closes_nothing_before_it_was_compared(bare: Desk) -> None:
    bare.buy("0.01", stop="58000")
    Protection.objects.update(is_doubted=True)
    bare.account.reconciled_at = None
    bare.account.save()
    look(bare, 57000)
    assert len(bare.script.sent) == 1
    assert bare.plan().guard == "unguarded"
