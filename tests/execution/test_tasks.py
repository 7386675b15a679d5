"""The conductor: what is done next, and what the sweep finds when messages are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, Outcome, VenueStatus
from execution import (
    account_tasks,
    legs,
    periodic_tasks,
    pipeline,
    precedence,
    protect,
    queues,
    sweeping,
    tasks,
)
from execution.models import Heartbeat, Order, Signal, Strategy
from execution.states import OrderState, SignalState
from risk.types import ReasonCode
from tests.brokers.scripted import accepted, report_of, rest, script_of, swallow, trade
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    allow_trading,
)
from tests.threads import beside, together

pytestmark = pytest.mark.django_db
S = OrderState
LANE = "BTC/USDT"
AGO = timedelta(seconds=5)
Accounts = Callable[..., Account]
Nudges = list[tuple[str, tuple[object, ...]]]


@pytest.fixture
def account(scripted: Accounts) -> Account:
    allow_trading()
    return scripted()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    return RouteFactory.create(account=account).strategy


def process(signal: Signal) -> str:
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal.state


# --- from a signal to its end ---------------------------------------------------------------------


def test_a_signal_is_decided_sent_and_settled(strategy: Strategy, nudges: Nudges) -> None:
    signal = SignalFactory.create(strategy=strategy)
    assert process(signal) == SignalState.EXECUTED
    assert Order.objects.get().state == S.FILLED
    assert signal.finished_at is not None


def test_a_resting_order_leaves_its_signal_working_and_is_asked_about(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    script_of(account).outcomes.append(rest)
    assert process(SignalFactory.create(strategy=strategy)) == SignalState.WORKING
    assert nudges == [("check_order", (str(Order.objects.get().pk),))]


def test_a_question_settles_the_signal(account: Account, strategy: Strategy, eager: None) -> None:
    script = script_of(account)
    script.outcomes.append(rest)
    signal = SignalFactory.create(strategy=strategy)
    assert process(signal) == SignalState.WORKING
    order = Order.objects.get()
    script.reports[order.identity] = report_of(order, VenueStatus.CANCELED)
    tasks.check_order(str(order.pk))
    signal.refresh_from_db()
    assert signal.state == SignalState.IGNORED


def test_a_task_may_run_again_and_again(account: Account, strategy: Strategy, eager: None) -> None:
    signal = SignalFactory.create(strategy=strategy)
    for _ in range(3):
        process(signal)
        tasks.run_lane(account.pk, LANE)
        tasks.check_order(str(Order.objects.get().pk))
        tasks.cancel_order(str(Order.objects.get().pk))
        periodic_tasks.sweep()
    assert Order.objects.get().state == S.FILLED
    assert len(script_of(account).sent) == 1
    assert script_of(account).canceled == []


def test_a_message_for_a_row_that_is_gone_is_harmless(nudges: Nudges) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    tasks.process_signal(nobody)
    tasks.check_order(nobody)
    tasks.cancel_order(nobody)
    assert nudges == []


def test_signals_of_a_strategy_and_symbol_are_decided_in_order_of_arrival(
    account: Account, strategy: Strategy, eager: None
) -> None:
    signals = [SignalFactory.create(strategy=strategy) for _ in range(3)]
    process(signals[2])
    assert [order.signal_id for order in Order.objects.order_by("id")] == [
        signal.pk for signal in signals
    ]
    assert set(Signal.objects.values_list("state", flat=True)) == {SignalState.EXECUTED}


def test_a_message_decides_the_whole_queue_and_no_other(strategy: Strategy, nudges: Nudges) -> None:
    first, second = SignalFactory.create(strategy=strategy), SignalFactory.create(strategy=strategy)
    other = SignalFactory.create(strategy=strategy, symbol="ETH/USDT")
    process(first)
    states = [Signal.objects.get(pk=one.pk).state for one in (first, second, other)]
    assert states == [SignalState.EXECUTED, SignalState.EXECUTED, SignalState.RECEIVED]
    assert nudges[0] == ("run_lane", (Order.objects.get(signal=first).account_id, LANE))


@pytest.mark.parametrize(
    "closing", [{"action": "close"}, {"action": "sell", "market_position": "flat"}]
)
def test_a_close_overtakes_and_makes_void_what_came_before_it(
    account: Account, strategy: Strategy, nudges: Nudges, closing: dict[str, str]
) -> None:
    PositionFactory.create(account=account)
    body = {"symbol": LANE} | closing
    entries = [SignalFactory.create(strategy=strategy) for _ in range(3)]
    close = SignalFactory.create(strategy=strategy, action=closing["action"], alert=body)
    later = SignalFactory.create(strategy=strategy)

    process(entries[0])

    ends = [(one.state, one.reason) for one in Signal.objects.order_by("id")]
    void = (SignalState.IGNORED, ReasonCode.CANCELED_BY_SIGNAL)
    assert ends[:3] == [void] * 3
    assert {order.signal_id for order in Order.objects.filter(role="exit")} == {close.pk}
    assert not Order.objects.filter(signal__in=entries).exists()
    later.refresh_from_db()
    assert later.state == SignalState.RECEIVED


def test_a_close_that_is_refused_makes_nothing_void(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    entry = SignalFactory.create(strategy=strategy)
    old = (timezone.now() - timedelta(hours=1)).isoformat()
    body = {"symbol": LANE, "action": "close", "sent_at": old}
    close = SignalFactory.create(strategy=strategy, action="close", alert=body)

    process(entry)

    close.refresh_from_db()
    entry.refresh_from_db()
    assert (close.state, entry.state) == (SignalState.EXPIRED, SignalState.EXECUTED)


@pytest.mark.parametrize(
    "partial", [{"quantity": "0.01"}, {"quantity": "0.01", "reduce_only": True}]
)
def test_a_close_of_a_part_keeps_its_place(
    account: Account, strategy: Strategy, nudges: Nudges, partial: dict[str, object]
) -> None:
    entry = SignalFactory.create(strategy=strategy)
    body = {"symbol": LANE, "action": "close"} | partial
    SignalFactory.create(strategy=strategy, action="close", alert=body)

    process(entry)

    assert Order.objects.filter(signal=entry).exists()


def test_several_accounts_are_served_side_by_side(
    account: Account, strategy: Strategy, scripted: Accounts, nudges: Nudges
) -> None:
    other = scripted()
    RouteFactory.create(strategy=strategy, account=other)
    process(SignalFactory.create(strategy=strategy))
    assert nudges == [("run_lane", (account.pk, LANE)), ("run_lane", (other.pk, LANE))]


def test_one_broken_account_does_not_stop_the_other(
    account: Account, strategy: Strategy, scripted: Accounts, eager: None
) -> None:
    broken = scripted()
    RouteFactory.create(strategy=strategy, account=broken)
    script_of(broken).failure = QueryFailedError("maintenance")
    signal = SignalFactory.create(strategy=strategy)
    assert process(signal) == SignalState.EXECUTED
    outcome = dict(Order.objects.values_list("account", "state"))
    assert outcome == {account.pk: S.FILLED, broken.pk: S.DENIED}


def test_a_decision_that_fails_is_tried_three_times(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_signal: Signal) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(pipeline, "decide", defect)
    signal = SignalFactory.create(strategy=strategy)
    assert [process(signal) for _ in range(3)] == ["received", "received", "failed"]
    assert (signal.reason, signal.detail) == (
        ReasonCode.INTERNAL_ERROR,
        "FKS could not decide this: ZeroDivisionError",
    )


# --- waiting --------------------------------------------------------------------------------------


def test_a_close_waits_for_the_order_under_way_and_then_closes_exactly_the_position(
    account: Account, strategy: Strategy, eager: None
) -> None:
    script = script_of(account)
    script.outcomes.append(swallow)
    buy = SignalFactory.create(strategy=strategy)
    process(buy)
    order = Order.objects.get()
    assert order.state == S.UNKNOWN
    close = SignalFactory.create(strategy=strategy, action="close", alert=_close())
    assert process(close) == SignalState.RECEIVED
    half = report_of(order, VenueStatus.CANCELED, trade("half", "0.007"))
    script.reports[order.identity] = half
    tasks.check_order(str(order.pk))
    close.refresh_from_db()
    assert close.state == SignalState.EXECUTED
    leaving = close.orders.get()
    assert (leaving.side, str(leaving.quantity), leaving.role) == ("sell", "0.007", "exit")


def _close() -> dict[str, str]:
    return {"symbol": LANE, "action": "close"}


def test_a_close_cancels_the_entries_in_its_way(
    account: Account, strategy: Strategy, eager: None
) -> None:
    PositionFactory.create(account=account, quantity="0.02")
    script_of(account).outcomes.append(rest)
    entry = SignalFactory.create(
        strategy=strategy,
        alert={
            "symbol": LANE,
            "action": "buy",
            "order_type": "limit",
            "price": "50000",
            "quantity": "0.01",
        },
    )
    process(entry)
    close = SignalFactory.create(strategy=strategy, action="close", alert=_close())
    process(close)
    close.refresh_from_db()
    assert close.state == SignalState.EXECUTED
    assert entry.orders.get().state == S.CANCELED
    assert entry.orders.get().reason == ReasonCode.CANCELED_BY_SIGNAL
    assert str(close.orders.get().quantity) == "0.02"


def test_waiting_for_a_cancel_does_not_repeat_it_without_end(
    account: Account, strategy: Strategy, eager: None
) -> None:
    script = script_of(account)
    PositionFactory.create(account=account)
    entry = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1", type="limit")
    script.reports[entry.identity] = report_of(entry, VenueStatus.OPEN)
    script.cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 50)
    close = SignalFactory.create(strategy=strategy, action="close", alert=_close())
    assert process(close) == SignalState.RECEIVED
    assert process(close) == SignalState.RECEIVED
    entry.refresh_from_db()
    assert entry.state == S.CANCELING
    assert len(script.canceled) <= 2


def between_questions(order: Order, number: int, after: str) -> Callable[..., Any]:
    """Another worker moves ``order`` right after the ``number``-th question about orders."""
    left = [number]

    def wrapper(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        answer = execute(sql, *rest)
        if sql.startswith("SELECT") and 'FROM "execution_order"' in sql:
            left[0] -= 1
            if left[0] == 0:
                Order.objects.filter(pk=order.pk).update(state=after, broker_order_id="V1")
        return answer

    return wrapper


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("before", "after"), [(S.SUBMITTING, S.OPEN), (S.UNKNOWN, S.PENDING), (S.UNKNOWN, S.OPEN)]
)
@pytest.mark.parametrize("action", ["cancel", "close"])
def test_an_order_on_its_move_is_not_overlooked(
    account: Account, strategy: Strategy, number: int, before: str, after: str, action: str
) -> None:
    PositionFactory.create(account=account)
    entry = OrderFactory.create(account=account, state=before, type="limit")
    alert = {"symbol": LANE, "action": action}
    signal = SignalFactory.create(strategy=strategy, action=action, alert=alert)
    with connection.execute_wrapper(between_questions(entry, number, after)):
        decision = pipeline.decide(signal)
    signal.refresh_from_db()
    assert (decision.step, signal.state) == (pipeline.Step.WAIT, SignalState.RECEIVED)
    assert list(Order.objects.all()) == [entry]


def test_asking_again_for_a_cancel_under_way_wakes_nobody(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    order = OrderFactory.create(account=account, state=S.CANCELING, broker_order_id="V1")
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.OPEN)
    script_of(account).cancel_results.append(CancelResult(Outcome.UNKNOWN))
    SignalFactory.create(strategy=strategy, action="close", alert=_close())
    tasks.cancel_order(str(order.pk))
    assert nudges == []


def test_an_answer_without_news_wakes_nobody(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1", type="limit")
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.OPEN)
    SignalFactory.create(strategy=strategy, action="close", alert=_close())
    tasks.check_order(str(order.pk))
    assert nudges == []


def test_news_wake_each_queue_that_waits_for_the_lane(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1", type="limit")
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.CANCELED)
    for _ in range(2):
        latest = SignalFactory.create(strategy=strategy, alert=_close())
    joined = SignalFactory.create(strategy=strategy, symbol="BTCUSDT", alert=_close())
    for elsewhere in ("ETH/USDT", "what?"):
        SignalFactory.create(strategy=strategy, symbol=elsewhere, alert=_close())
    SignalFactory.create(alert=_close())
    tasks.check_order(str(order.pk))
    woken = [arguments for name, arguments in nudges if name == "process_queue"]
    assert sorted(woken) == sorted([queues.key_of(latest), queues.key_of(joined)])


def test_what_waited_behind_an_order_of_unknown_fate_is_sent_when_that_is_known(
    account: Account, nudges: Nudges
) -> None:
    unknown = OrderFactory.create(account=account, state=S.UNKNOWN)
    behind = OrderFactory.create(account=account)
    script_of(account).reports[unknown.identity] = report_of(unknown, VenueStatus.OPEN)
    tasks.check_order(str(unknown.pk))
    behind.refresh_from_db()
    assert behind.state == S.FILLED


# --- cancel signals -------------------------------------------------------------------------------


def cancel_signal(strategy: Strategy) -> Signal:
    return SignalFactory.create(
        strategy=strategy, action="cancel", alert={"symbol": LANE, "action": "cancel"}
    )


def test_a_cancel_ends_what_works(account: Account, strategy: Strategy, eager: None) -> None:
    resting = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1")
    script_of(account).reports[resting.identity] = report_of(resting, VenueStatus.OPEN)
    waiting = OrderFactory.create(account=account)
    elsewhere = OrderFactory.create(account=account, symbol="ETH/USDT")
    assert process(cancel_signal(strategy)) == SignalState.EXECUTED
    for order, state in ((resting, S.CANCELED), (waiting, S.CANCELED), (elsewhere, S.PENDING)):
        order.refresh_from_db()
        assert order.state == state


def test_a_cancel_without_anything_to_cancel_is_ignored(strategy: Strategy, nudges: Nudges) -> None:
    signal = cancel_signal(strategy)
    assert process(signal) == SignalState.IGNORED
    assert signal.reason == ReasonCode.NOTHING_TO_CANCEL


@pytest.mark.parametrize("state", [S.SUBMITTING, S.UNKNOWN])
def test_a_cancel_waits_until_the_order_being_sent_is_known(
    account: Account, strategy: Strategy, eager: None, state: OrderState
) -> None:
    script = script_of(account)
    sending = OrderFactory.create(account=account, state=state)
    waiting = OrderFactory.create(account=account)
    signal = cancel_signal(strategy)
    assert process(signal) == SignalState.RECEIVED
    waiting.refresh_from_db()
    assert waiting.state == S.CANCELED
    script.reports[sending.identity] = report_of(sending, VenueStatus.OPEN)
    Order.objects.filter(pk=sending.pk).update(state=S.UNKNOWN)
    tasks.check_order(str(sending.pk))
    sending.refresh_from_db()
    signal.refresh_from_db()
    assert (sending.state, signal.state) == (S.CANCELED, SignalState.EXECUTED)


def test_a_cancel_that_did_its_work_while_it_waited_is_executed(
    account: Account, strategy: Strategy, eager: None
) -> None:
    sending = OrderFactory.create(account=account, state=S.UNKNOWN)
    OrderFactory.create(account=account)
    signal = cancel_signal(strategy)
    process(signal)
    script_of(account).reports[sending.identity] = report_of(sending, VenueStatus.REJECTED)
    tasks.check_order(str(sending.pk))
    signal.refresh_from_db()
    assert (signal.state, signal.reason) == (SignalState.EXECUTED, "")


# --- the sweep ------------------------------------------------------------------------------------


def test_the_sweep_finds_a_signal_whose_nudge_was_lost(strategy: Strategy, nudges: Nudges) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        first = SignalFactory.create(strategy=strategy, received_at=timezone.now() - AGO)
        clock.shift(0.01)  # ids come in the order of time
        SignalFactory.create(strategy=strategy, received_at=timezone.now() - AGO)
        SignalFactory.create(strategy=strategy, received_at=timezone.now(), symbol="ETH/USDT")
        periodic_tasks.sweep()
    assert nudges == [("process_signal", (str(first.pk),))]


@pytest.mark.usefixtures("standing_clock")
def test_the_sweep_finds_an_order_nobody_sent(account: Account, nudges: Nudges) -> None:
    OrderFactory.create(account=account, updated_at=timezone.now() - AGO)
    OrderFactory.create(account=account, symbol="ETH/USDT")
    OrderFactory.create(
        account=account,
        symbol="SOL/USDT",
        updated_at=timezone.now() - AGO,
        next_check_at=timezone.now() + AGO,
    )
    periodic_tasks.sweep()
    assert nudges == [("run_lane", (account.pk, LANE))]


def test_the_sweep_asks_about_due_orders_once(account: Account, nudges: Nudges) -> None:
    due = OrderFactory.create(account=account, state=S.OPEN, next_check_at=timezone.now() - AGO)
    OrderFactory.create(account=account, state=S.OPEN, next_check_at=timezone.now() + AGO)
    OrderFactory.create(account=account, state=S.FILLED, next_check_at=timezone.now() - AGO)
    periodic_tasks.sweep()
    periodic_tasks.sweep()
    assert nudges == [("check_order", (str(due.pk),))]


def test_the_sweep_frees_a_lane_whose_worker_died(account: Account, nudges: Nudges) -> None:
    dead = OrderFactory.create(
        account=account, state=S.SUBMITTING, lease_until=timezone.now() - AGO
    )
    periodic_tasks.sweep()
    dead.refresh_from_db()
    assert dead.state == S.UNKNOWN
    assert ("check_order", (str(dead.pk),)) in nudges


def test_the_sweep_settles_a_signal_whose_worker_died_before_it(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    signal = SignalFactory.create(strategy=strategy, state=SignalState.WORKING)
    OrderFactory.create(account=account, signal=signal, state=S.FILLED, filled_quantity="0.01")
    unfinished = SignalFactory.create(strategy=strategy, state=SignalState.WORKING)
    OrderFactory.create(account=account, signal=unfinished, state=S.OPEN)
    periodic_tasks.sweep()
    signal.refresh_from_db()
    unfinished.refresh_from_db()
    assert (signal.state, unfinished.state) == (SignalState.EXECUTED, SignalState.WORKING)


def test_the_sweep_brings_everything_left_behind_to_its_end(
    account: Account, strategy: Strategy, eager: None
) -> None:
    signals = [
        SignalFactory.create(strategy=strategy, received_at=timezone.now() - AGO) for _ in range(3)
    ]
    stuck = OrderFactory.create(account=account, updated_at=timezone.now() - AGO)
    for _ in range(3):
        periodic_tasks.sweep()
    stuck.refresh_from_db()
    assert stuck.state == S.FILLED
    assert {Signal.objects.get(pk=one.pk).state for one in signals} == {SignalState.EXECUTED}


def test_the_sweep_proves_that_beat_and_a_worker_are_alive(nudges: Nudges) -> None:
    periodic_tasks.sweep()
    periodic_tasks.sweep()
    assert Heartbeat.objects.filter(name="beat").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_second_sweep_leaves_at_once(nudges: Nudges) -> None:
    OrderFactory.create(state=S.OPEN, next_check_at=timezone.now() - AGO)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [sweeping.SWEEP_LOCK])
        together(periodic_tasks.sweep)
    assert nudges == []


def test_reconciliation_is_asked_for_accounts_in_use(
    account: Account, scripted: Accounts, nudges: Nudges
) -> None:
    scripted(is_active=False)
    periodic_tasks.reconcile_all()
    assert nudges == [("reconcile_account", (account.pk,))]


def test_a_reconciliation_without_an_answer_is_logged(
    account: Account, nudges: Nudges, caplog: pytest.LogCaptureFixture
) -> None:
    script_of(account).failure = QueryFailedError("timeout")
    account_tasks.reconcile_account(account.pk)
    assert f"reconciliation of {account.name} is not possible now: timeout" in caplog.text


# --- beside itself --------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_every_task_beside_itself_does_its_work_once(scripted: Accounts, nudges: Nudges) -> None:
    allow_trading()
    account = scripted()
    strategy = RouteFactory.create(account=account).strategy
    signals = [SignalFactory.create(strategy=strategy) for _ in range(4)]
    together(
        *[lambda s=s: tasks.process_signal(str(s.pk)) for s in signals for _ in range(2)],
        periodic_tasks.sweep,
        periodic_tasks.sweep,
    )
    tasks.run_lane(account.pk, LANE)
    periodic_tasks.sweep()
    assert Order.objects.filter(state=S.FILLED).count() == 4
    sent = script_of(account).identities()
    assert len(sent) == len(set(sent)) == 4
    by_arrival = list(Order.objects.order_by("id").values_list("signal", flat=True))
    assert by_arrival == [signal.pk for signal in signals]


@pytest.mark.django_db(transaction=True)
def test_a_cancel_beside_the_sending_ends_in_one_truth(scripted: Accounts, nudges: Nudges) -> None:
    account = scripted()
    script = script_of(account)
    order = OrderFactory.create(account=account)
    script.outcomes.append(rest)
    script.gate.clear()
    sending = beside(lambda: tasks.run_lane(account.pk, LANE))
    assert script.entered.wait(10)
    tasks.cancel_order(str(order.pk))
    script.gate.set()
    sending.result(30)
    order.refresh_from_db()
    assert order.state == S.OPEN
    tasks.cancel_order(str(order.pk))
    order.refresh_from_db()
    assert order.state == S.CANCELED


def test_a_database_failure_while_deciding_is_tried_again(
    strategy: Strategy, nudges: Nudges, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = SignalFactory.create(strategy=strategy)
    with monkeypatch.context() as patch:
        patch.setattr(legs, "read_leg", _raise_operational)
        assert process(signal) == SignalState.RECEIVED
    assert process(signal) == SignalState.EXECUTED


def _raise_operational(*_: object, **__: object) -> None:
    raise OperationalError("deadlock detected")


def test_guarding_is_left_to_protect(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise QueryFailedError("timeout")

    monkeypatch.setattr(protect, "align", refuse)
    tasks.guard(account.pk, LANE)


def test_accepted_orders_with_reports_need_no_question(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    script_of(account).outcomes.append(
        lambda request: accepted(report_of(request, VenueStatus.EXPIRED))
    )
    assert process(SignalFactory.create(strategy=strategy)) == SignalState.EXPIRED
    assert nudges == []


# --- exits that overtake --------------------------------------------------------------------------

OVERTAKES = {"symbol": LANE, "action": "sell", "quantity": "0.01"}


@pytest.mark.parametrize(
    ("ahead", "held", "alert", "overtakes"),
    [
        ([{}], "0.01", {}, True),
        ([{}, {}], "0.02", {"reduce_only": True}, True),
        ([{}], "0.0099", {}, False),
        ([{}], "0", {}, False),
        ([{}], "-0.01", {}, False),
        ([{}], "0.01", {"quantity_type": "quote"}, False),
        ([{}], "0.01", {"quantity": None}, False),
        ([{}], "0.01", {"market_position": "long", "market_position_size": "1"}, False),
        ([{}], "0.05", {"market_position": "short"}, False),
        ([{"action": "sell", "market_position": "short"}], "0.05", {}, False),
        ([{"market_position": "long"}], "0.01", {"market_position": "long"}, True),
        ([{"action": "sell"}, {}], "0.02", {}, True),
        ([{"action": "sell"}], "0.019", {}, False),
        ([{"action": "sell", "quantity_type": "quote"}], "0.02", {}, False),
        ([{}, {"action": "cancel"}], "0.01", {}, False),
        ([{"market_position": "long", "market_position_size": "1"}], "0.01", {}, False),
    ],
)
def test_which_exits_overtake_the_entries_before_them(
    account: Account,
    strategy: Strategy,
    ahead: list[dict[str, Any]],
    held: str,
    alert: dict[str, Any],
    overtakes: bool,
) -> None:
    PositionFactory.create(account=account, quantity=Decimal(held))
    for one in ahead:
        SignalFactory.create(
            strategy=strategy, alert={"symbol": LANE, "action": "buy", "quantity": "0.01"} | one
        )
    body = {name: value for name, value in (OVERTAKES | alert).items() if value is not None}
    leaving = SignalFactory.create(strategy=strategy, action="sell", alert=body)

    assert (queues.overtaking(leaving.pk) == leaving) is overtakes


@pytest.mark.django_db(transaction=True)
def test_an_exit_is_sent_while_the_entry_before_it_is_still_being_decided(
    account: Account, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    PositionFactory.create(account=account, quantity=Decimal("0.01"))
    entry = SignalFactory.create(strategy=strategy)
    leaving = SignalFactory.create(strategy=strategy, action="sell", alert=OVERTAKES)
    decide, deciding, go_on = pipeline.decide, threading.Event(), threading.Event()

    def slowly(signal: Signal) -> pipeline.Decision:
        if signal == entry:
            deciding.set()
            assert go_on.wait(20)
        return decide(signal)

    monkeypatch.setattr(pipeline, "decide", slowly)
    first = beside(lambda: process(entry))
    assert deciding.wait(20)
    assert process(leaving) == SignalState.EXECUTED
    go_on.set()
    assert first.result(20) == SignalState.EXECUTED
    assert Order.objects.count() == 2


def test_a_batch_wakes_one_thread_for_each_queue_and_for_what_may_overtake(
    account: Account, strategy: Strategy, nudges: Nudges
) -> None:
    PositionFactory.create(account=account, symbol="SOL/USDT")
    other = StrategyFactory.create()
    made = [
        SignalFactory.create(strategy=one, action=action, symbol=symbol)
        for one, action, symbol in (
            (strategy, "buy", LANE),
            (strategy, "buy", LANE),
            (strategy, "sell", LANE),
            (strategy, "buy", "ETH/USDT"),
            (strategy, "buy", "ETH/USDT"),
            (other, "buy", LANE),
        )
    ]
    ids = [str(one.pk) for one in made]
    mine, beside_it, others = (queues.key_of(made[index]) for index in (0, 3, 5))
    assert queues.to_wake(ids, ()) == ([made[2].pk], [mine, beside_it, others])

    tasks.process_signals(ids)
    assert nudges[:3] == [
        ("overtake", (ids[2],)),
        ("process_queue", beside_it),
        ("process_queue", others),
    ]


@pytest.mark.django_db(transaction=True)
def test_an_entry_steps_back_while_an_exit_is_being_decided(
    account: Account, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    decide = pipeline.decide_locked

    def noted(signal: Signal, *args: Any) -> pipeline.Decision:
        order.append(signal.action)
        return decide(signal, *args)

    monkeypatch.setattr(pipeline, "decide_locked", noted)
    monkeypatch.setattr(precedence, "PATIENCE", 20)
    entry = SignalFactory.create(strategy=strategy)
    with transaction.atomic():
        precedence.announce_exit([account.pk])
        waiting = beside(lambda: process(entry))
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        order.append("the exit")

    assert waiting.result(20) == SignalState.EXECUTED
    assert order == ["the exit", "buy"]


@pytest.mark.django_db(transaction=True)
def test_an_entry_does_not_step_back_for_ever(
    account: Account, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precedence, "PATIENCE", 0.2)
    entry = SignalFactory.create(strategy=strategy)
    with transaction.atomic():
        precedence.announce_exit([account.pk])
        assert beside(lambda: process(entry)).result(20) == SignalState.EXECUTED


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("alert", "announces"),
    [
        ({"action": "buy", "quantity": "0.001"}, False),
        ({"action": "sell", "quantity": "0.001"}, True),
        ({"action": "close"}, True),
    ],
)
def test_what_makes_a_position_smaller_is_announced(
    account: Account,
    strategy: Strategy,
    monkeypatch: pytest.MonkeyPatch,
    alert: dict[str, str],
    announces: bool,
) -> None:
    PositionFactory.create(account=account, quantity=Decimal("0.01"))
    announced: list[set[int]] = []
    monkeypatch.setattr(pipeline, "announce_exit", announced.append)

    process(
        SignalFactory.create(
            strategy=strategy, action=alert["action"], alert={"symbol": LANE} | alert
        )
    )

    assert announced == ([{account.pk}] if announces else [])


def test_cancels_go_out_though_somebody_keeps_coming(
    account: Account, strategy: Strategy, nudges: Nudges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that takes longer than the sweep's second."""
    PositionFactory.create(account=account)
    resting = OrderFactory.create(
        account=account, state=S.OPEN, broker_order_id="V1", type="limit", price=Decimal(50000)
    )
    script_of(account).reports[resting.identity] = report_of(resting, VenueStatus.OPEN)
    close = SignalFactory.create(
        strategy=strategy, action="close", alert={"symbol": LANE, "action": "close"}
    )
    decide, before = pipeline.decide, []

    def slowly(signal: Signal) -> pipeline.Decision:
        before.append(list(nudges))
        if len(before) < 3:
            tasks._deciding.take(queues.key_of(signal))
        return decide(signal)

    monkeypatch.setattr(pipeline, "decide", slowly)
    process(close)

    canceled = ("cancel_order", (str(resting.pk), ReasonCode.CANCELED_BY_SIGNAL.value))
    assert [canceled in sent for sent in before] == [False, True, True]


@pytest.mark.parametrize(
    ("action", "alert", "held", "is_woken"),
    [
        ("sell", OVERTAKES, "0.01", True),
        ("sell", OVERTAKES, "0", False),
        ("sell", OVERTAKES, "-0.01", False),
        ("buy", OVERTAKES, "0.01", False),
        ("close", {"symbol": LANE, "action": "close"}, "0", True),
        ("sell", OVERTAKES | {"market_position": "flat"}, "0", True),
    ],
)
def test_what_may_overtake_is_woken_although_its_queue_is_being_decided(
    account: Account,
    strategy: Strategy,
    nudges: Nudges,
    action: str,
    alert: dict[str, Any],
    held: str,
    is_woken: bool,
) -> None:
    PositionFactory.create(account=account, quantity=Decimal(held))
    first = SignalFactory.create(strategy=strategy, action="buy")
    last = SignalFactory.create(strategy=strategy, action=action, alert=alert | {"action": action})
    turn = tasks._deciding.take(queues.key_of(first))
    assert turn is not None
    try:
        tasks._wake(account, LANE)
        assert not tasks._deciding.leave(turn), "whoever decides looks once more"
    finally:
        tasks._deciding.drop(turn)
    assert (("overtake", (str(last.pk),)) in nudges) is is_woken
