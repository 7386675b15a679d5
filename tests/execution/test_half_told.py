"""Orders a venue acknowledged, and then does not say, or says by half, how they stand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import ExecutionResult, OrderRequest, PositionReport, VenueStatus
from execution import alarms, periodic_tasks, reconcile, sweeping, tasks
from execution.models import Alarm, Order
from execution.states import OrderState, SignalState
from tests.brokers.scripted import ScriptedPlugin, accepted, report_of, trade
from tests.execution.guarding import Desk, clock, desk
from tests.factories import OrderFactory

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
S, V = OrderState, VenueStatus
SYMBOL = "BTC/USDT"
SILENCE = QueryFailedError("timeout")


def half_told(request: OrderRequest) -> ExecutionResult:
    """The venue calls it filled and shows no trade."""
    return accepted(report_of(request, V.FILLED, filled=request.quantity))


def entry_without_its_fills(desk: Desk) -> Order:
    desk.script.outcomes.append(half_told)
    return desk.buy("0.5")


def look(order: Order) -> Order:
    tasks.check_order(str(order.pk))
    order.refresh_from_db()
    return order


def ask_for(order: Order, clock: time_machine.Coordinates, seconds: int) -> Order:
    """Ask every ten seconds for so long."""
    for _ in range(seconds // 10):
        clock.shift(10)
        look(order)
    return order


def raised() -> list[str]:
    alarms.look()
    return list(Alarm.objects.filter(cleared_at=None).order_by("id").values_list("kind", flat=True))


def test_an_end_whose_fills_never_come_needs_an_operator_after_five_minutes(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    order = entry_without_its_fills(desk)
    assert (order.state, raised()) == (S.OPEN, [])
    clock.shift(9)
    assert (look(order).state, raised()) == (S.OPEN, [])
    clock.shift(2)
    assert (look(order).state, raised()) == (S.OPEN, ["unanswered"])
    alarm = Alarm.objects.get()
    assert (alarm.account, alarm.key, alarm.symbol) == (desk.account, str(order.pk), SYMBOL)
    assert alarm.detail == f"it has traded, and its trades are not shown: order {order.pk}"
    clock.shift(229)
    assert (look(order).state, raised()) == (S.OPEN, ["unanswered"])
    clock.shift(61)
    assert (look(order).state, raised()) == (S.NEEDS_OPERATOR, ["needs_operator"])
    assert order.detail == (
        "for 5 minutes the venue has called it filled, and shows trades of 0 only"
    )


def test_why_its_trades_are_not_shown_is_told_to_the_operator(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    order = entry_without_its_fills(desk)
    why = "its trades cannot be read: HTTP 404"
    told = report_of(order, V.FILLED, filled="0.5", reason=why)
    desk.script.reports[order.identity] = told
    clock.shift(301)
    assert look(order).state == S.NEEDS_OPERATOR
    assert order.detail.endswith(f"and shows trades of 0 only: {why}")


def test_fills_that_come_one_by_one_are_waited_for(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    order = entry_without_its_fills(desk)
    shown = []
    for number in range(4):
        shown.append(trade(str(number), "0.1"))
        desk.script.reports[order.identity] = report_of(order, V.FILLED, *shown, filled="0.5")
        clock.shift(200)
        assert look(order).state == S.PARTIALLY_FILLED
    clock.shift(301)
    assert (look(order).state, desk.held()) == (S.NEEDS_OPERATOR, Decimal("0.4"))


def test_it_stays_with_its_operator_until_the_fills_are_all_here(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    order = entry_without_its_fills(desk)
    clock.shift(301)
    look(order)
    for _ in range(3):
        clock.shift(30)
        assert look(order).state == S.NEEDS_OPERATOR
    assert order.journal.filter(event="give_up").count() == 1
    desk.fills(order, trade("late", "0.5"))
    assert (order.state, order.unknown_since, desk.held()) == (S.FILLED, None, Decimal("0.5"))
    assert (desk.guarded(), raised()) == ([("0.5", "58000")], [])


def test_fills_that_lag_are_no_doubt_of_the_next_ones(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """Whatever came in between has ended the first doubt."""
    order = entry_without_its_fills(desk)
    clock.shift(200)
    desk.script.reports[order.identity] = report_of(order, V.PARTIALLY_FILLED, trade("1", "0.2"))
    assert (look(order).state, order.unknown_since) == (S.PARTIALLY_FILLED, None)
    desk.script.reports[order.identity] = report_of(order, V.FILLED, filled="0.5")
    clock.shift(200)
    assert look(order).state == S.PARTIALLY_FILLED
    clock.shift(200)
    assert look(order).state == S.PARTIALLY_FILLED


def test_an_answer_by_half_after_a_long_silence_is_only_the_first(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """A venue that was away answers, and its trades come a moment later: nobody is called."""
    desk.script.outcomes.append(lambda request: accepted(report_of(request, V.OPEN)))
    order = desk.buy("0.5")
    desk.script.failure = SILENCE
    for _ in range(4):
        clock.shift(200)
        look(order)
    desk.script.failure = None
    desk.script.reports[order.identity] = report_of(order, V.FILLED, filled="0.5")
    assert (look(order).state, order.unanswered_since) == (S.OPEN, None)
    assert desk.fills(order, trade("late", "0.5")).state == S.FILLED


def test_the_end_of_a_cancel_is_told_by_half_as_well(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    signal = desk.send("buy", quantity="0.5", order_type="limit", price="59000")
    order = Order.objects.get(signal=signal)
    Order.objects.update(state=S.CANCELING)
    desk.script.reports[order.identity] = report_of(order, V.CANCELED, filled="0.2")
    look(order)
    clock.shift(301)
    assert look(order).state == S.NEEDS_OPERATOR


def test_an_order_that_works_is_left_to_work_and_alarmed(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """Half of the story is no reason to lose hold of it: it can still be cancelled."""
    signal = desk.send("buy", quantity="0.5", order_type="limit", price="59000")
    order = Order.objects.get(signal=signal)
    desk.script.reports[order.identity] = report_of(order, V.PARTIALLY_FILLED, filled="0.2")
    look(order)
    clock.shift(301)
    assert (look(order).state, raised()) == (S.OPEN, ["unanswered"])
    desk.fills(order, trade("1", "0.2"))
    assert (order.state, raised()) == (S.PARTIALLY_FILLED, [])


@pytest.mark.parametrize("state", [S.OPEN, S.PARTIALLY_FILLED, S.CANCELING])
@pytest.mark.parametrize("type_", ["market", "limit"])
def test_five_minutes_of_silence_about_an_acknowledged_order_are_an_alarm(
    desk: Desk, clock: time_machine.Coordinates, state: OrderState, type_: str
) -> None:
    """Nothing that waits for it is decided by less than is known; an answer ends the alarm."""
    order, other = OrderFactory.create_batch(2, account=desk.account, state=state, type=type_)
    desk.script.failure = SILENCE
    for one in (order, other):
        look(one)
    assert (ask_for(order, clock, 290).state, raised()) == (state, [])
    clock.shift(11)
    assert (look(order).state, raised()) == (state, ["unanswered"])
    alarm = Alarm.objects.get()
    assert (alarm.account, alarm.key) == (desk.account, desk.account.name)
    assert alarm.detail == f"nothing for five minutes: order {order.pk}, order {other.pk}"
    desk.script.failure = None
    for one in (order, other):
        desk.script.reports[one.identity] = report_of(one, V.OPEN)
        assert look(one).unanswered_since is None
    assert raised() == []


@pytest.mark.parametrize(
    ("type_", "state", "then"),
    [
        ("market", S.OPEN, S.NEEDS_OPERATOR),
        ("market", S.PARTIALLY_FILLED, S.NEEDS_OPERATOR),
        ("limit", S.CANCELING, S.NEEDS_OPERATOR),
        ("limit", S.OPEN, S.OPEN),
    ],
)
def test_silence_about_one_order_alone_needs_an_operator_unless_it_rests(
    desk: Desk, clock: time_machine.Coordinates, type_: str, state: OrderState, then: OrderState
) -> None:
    """The account was compared meanwhile: the venue is there."""
    order = OrderFactory.create(account=desk.account, state=state, type=type_)
    desk.script.answers.extend([SILENCE] * 31)
    look(order)
    ask_for(order, clock, 240)
    Account.objects.update(reconciled_at=timezone.now())
    assert ask_for(order, clock, 50).state == state
    clock.shift(11)
    assert look(order).state == then
    desk.script.reports[order.identity] = report_of(order, V.OPEN)
    assert (look(order).state, order.unanswered_since) == (S.OPEN, None)


def test_each_order_whose_trades_are_hidden_is_told(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """Also while the venue is silent about another one of the account."""
    silent = OrderFactory.create(
        account=desk.account, state=S.OPEN, type="limit", symbol="ETH/USDT"
    )
    Order.objects.filter(pk=silent.pk).update(
        unanswered_since=timezone.now() - timedelta(minutes=6)
    )
    assert raised() == ["unanswered"]
    first = entry_without_its_fills(desk)
    clock.shift(11)
    assert (look(first).state, raised()) == (S.OPEN, ["unanswered"] * 2)
    desk.script.outcomes.append(half_told)
    second = desk.buy("0.5", symbol="SOL/USDT")
    clock.shift(11)
    assert (look(second).state, raised()) == (S.OPEN, ["unanswered"] * 3)
    keys = Alarm.objects.order_by("id").values_list("key", flat=True)
    assert list(keys) == [desk.account.name, str(first.pk), str(second.pk)]


def test_a_standstill_is_no_silence(desk: Desk, clock: time_machine.Coordinates) -> None:
    """The machine slept for an hour, and at first the network is not there: nobody hears an alarm, and
    no stop that is being cancelled is left to an operator."""
    desk.script.failure = SILENCE
    stop = {"account": desk.account, "state": S.CANCELING, "type": "stop"}
    order = look(OrderFactory.create(**stop, next_check_at=timezone.now()))
    clock.shift(3600)
    assert sweeping.due_orders() == [order.pk]
    Account.objects.update(reconciled_at=timezone.now())
    assert raised() == []
    assert (look(order).state, raised()) == (S.CANCELING, [])
    assert (ask_for(order, clock, 290).state, raised()) == (S.CANCELING, [])
    clock.shift(10)
    assert look(order).state == S.NEEDS_OPERATOR


def test_a_close_waits_for_the_fills_no_longer_than_five_minutes(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    entry_without_its_fills(desk)
    close = desk.send("close")
    assert close.state == SignalState.RECEIVED
    for _ in range(6):
        clock.shift(60)
        periodic_tasks.sweep()
    close.refresh_from_db()
    assert (close.state, close.reason) == (SignalState.IGNORED, "NOTHING_TO_CLOSE")


def test_what_the_venue_holds_is_compared_again_after_a_minute(
    desk: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = PositionReport(SYMBOL, Decimal("0.5"), Decimal(60000))
    monkeypatch.setattr(ScriptedPlugin, "positions", lambda _: [there])
    entry_without_its_fills(desk)
    clock.shift(10)
    assert reconcile.reconcile_account(desk.account) == []
    clock.shift(51)
    (found,) = reconcile.reconcile_account(desk.account)
    assert (found.kind, found.ours, found.theirs) == ("position", "0", "0.5")
