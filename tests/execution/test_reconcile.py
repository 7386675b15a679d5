"""Finding out the truth about orders of unknown fate, and comparing books."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from brokers.errors import ConfigurationError, NotShownError, QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, ExecutionResult, OrderReport, Outcome, VenueStatus
from execution import commands, decisions, dispatch, lanes, reconcile, sweeping
from execution.models import Difference, Fill, Order, Position
from execution.states import OrderState
from risk import breakers, switch
from risk.models import AuditEvent, CircuitBreaker, TradingState
from risk.types import ReasonCode, Refusal
from tests.brokers.scripted import AT, CAPABILITIES, Script, report_of, script_of, swallow, trade
from tests.factories import OrderFactory, PositionFactory
from tests.threads import together

pytestmark = pytest.mark.django_db
S, V = OrderState, VenueStatus
LANE = "BTC/USDT"
WINDOW = CAPABILITIES.settle_window
Accounts = Callable[..., Account]


@pytest.fixture
def account(clock: time_machine.Coordinates, scripted: Accounts) -> Account:
    return scripted()


def lost_order(account: Account, **columns: object) -> Order:
    """An order whose answer never came."""
    order = OrderFactory.create(account=account, **columns)
    script_of(account).outcomes.append(swallow)
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert order.state == S.UNKNOWN
    return order


def look(order: Order) -> Order:
    order.refresh_from_db()
    reconcile.check_order(order)
    order.refresh_from_db()
    return order


def events_of(order: Order) -> list[str]:
    return list(order.journal.values_list("event", flat=True))


# --- found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [(V.OPEN, S.OPEN), (V.CANCELED, S.CANCELED), (V.EXPIRED, S.EXPIRED), (V.REJECTED, S.REJECTED)],
)
def test_an_unknown_order_that_is_found_takes_the_state_found(
    account: Account, script: Script, status: VenueStatus, state: OrderState
) -> None:
    order = lost_order(account)
    script.answers.append(report_of(order, status))
    assert look(order).state == state
    assert order.unknown_since is None


def test_a_fill_that_was_found_is_booked(account: Account, script: Script) -> None:
    order = lost_order(account)
    script.answers.append(report_of(order, V.FILLED, trade("1")))
    assert look(order).state == S.FILLED
    assert Position.objects.get().quantity == order.quantity
    assert script.asked[0].identity == order.identity
    assert script.asked[0].submitted_at == AT
    sent = script.asked[0].request
    assert sent is not None
    assert (sent.side, sent.quantity) == (order.side, order.quantity)


def test_a_lost_lease_is_found_again(account: Account, script: Script) -> None:
    """The worker died after the venue had taken the order."""
    order = OrderFactory.create(account=account)
    claimed = lanes.claim_next(account, LANE)
    assert claimed is not None
    lanes.lose_sight(claimed)
    script.answers.append(report_of(order, V.FILLED, trade("1")))
    assert look(order).state == S.FILLED
    assert events_of(order) == ["claim", "lose_sight", "fill"]


# --- not found ------------------------------------------------------------------------------------


def test_not_found_before_the_settle_window_proves_nothing(
    account: Account, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    clock.shift(WINDOW - 0.1)
    look(order)
    assert (order.state, order.looks, events_of(order)) == (S.UNKNOWN, 0, ["claim", "lose_sight"])
    assert order.next_check_at == order.settle_at


def test_an_answer_to_a_question_asked_before_the_window_ended_proves_nothing(
    account: Account,
    script: Script,
    clock: time_machine.Coordinates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = lost_order(account)
    clock.shift(WINDOW - 1)

    def slowly(_ref: object) -> None:
        clock.shift(5)

    monkeypatch.setattr(Script, "find", lambda _script, ref: slowly(ref))
    assert look(order).looks == 0


def test_one_look_is_not_enough_and_two_must_be_a_window_apart(
    account: Account, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    clock.shift(WINDOW)
    look(order)
    assert (order.state, order.looks) == (S.UNKNOWN, 1)
    assert order.next_check_at == order.settle_at == AT + timedelta(seconds=2 * WINDOW)
    clock.shift(WINDOW - 0.1)
    look(order)
    assert (order.state, order.looks) == (S.UNKNOWN, 1)
    clock.shift(0.1)
    assert look(order).state == S.PENDING


@pytest.mark.parametrize("looks", [0, 1])
def test_a_clock_set_back_keeps_no_lane_blocked_for_longer_than_another_window(
    account: Account, clock: time_machine.Coordinates, looks: int
) -> None:
    order = lost_order(account)
    for _ in range(looks):
        clock.shift(WINDOW)
        look(order)
    clock.shift(-3600)
    look(order)
    assert (order.state, order.looks) == (S.UNKNOWN, looks)
    assert order.settle_at == timezone.now() + timedelta(seconds=WINDOW)
    for _ in range(looks, 2):
        assert order.state == S.UNKNOWN
        clock.shift(WINDOW - 0.1)
        look(order)
        clock.shift(0.1)
        look(order)
    assert order.state == S.PENDING


def test_a_late_answer_from_before_a_look_takes_no_time_off_the_next(
    account: Account, clock: time_machine.Coordinates
) -> None:
    """The question was asked too early, and its answer read after the clock was set back."""
    order = lost_order(account)
    slow = Order.objects.select_related("account").get()
    clock.shift(WINDOW)
    look(order)
    clock.shift(-WINDOW - 1)
    reconcile.check_order(slow)
    order.refresh_from_db()
    assert (order.looks, order.settle_at) == (1, AT + timedelta(seconds=2 * WINDOW))


def absent(order: Order, clock: time_machine.Coordinates) -> Order:
    for _ in range(2):
        clock.shift(WINDOW)
        look(order)
    return order


def test_a_fresh_order_proven_absent_is_sent_again_under_the_same_identity(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = absent(lost_order(account), clock)
    assert (order.state, order.next_check_at, order.unknown_since) == (S.PENDING, None, None)
    assert events_of(order) == ["claim", "lose_sight", "look", "look", "send_again"]
    assert order.journal.last().evidence == {"looks": 2, "submitted_at": str(AT)}
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert (order.state, order.attempt, order.looks) == (S.FILLED, 2, 0)
    assert script.identities() == [order.identity] * 2


def test_a_stale_order_proven_absent_is_not_placed(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = absent(lost_order(account, expires_at=AT + timedelta(seconds=WINDOW)), clock)
    assert (order.state, order.reason) == (S.NOT_PLACED, ReasonCode.NOT_PLACED)
    assert order.detail == "proven absent at the venue"
    assert len(script.sent) == 1


def halt() -> None:
    switch.change(TradingState.State.HALTED, reason="outage")


def switch_off() -> None:
    Account.objects.update(is_active=False)


REFUSALS = [(halt, "TRADING_HALTED"), (switch_off, "ACCOUNT_INACTIVE")]


@pytest.mark.parametrize(("refuse", "reason"), REFUSALS)
def test_an_order_sent_once_and_then_refused_is_ours_when_it_turns_up(
    account: Account,
    script: Script,
    clock: time_machine.Coordinates,
    refuse: Callable[[], None],
    reason: str,
) -> None:
    order = absent(lost_order(account), clock)
    refuse()
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert (order.state, order.reason) == (S.NOT_PLACED, reason)
    assert len(script.sent) == 1
    Order.objects.update(client_order_id=f"x-{order.identity}")
    script.reports[order.identity] = report_of(order, V.OPEN)
    clock.shift(1)
    assert reconcile.reconcile_account(account) == []
    order.refresh_from_db()
    assert (order.state, order.reason) == (S.OPEN, "")
    assert AuditEvent.objects.filter(kind="order.corrected").count() == 1


def test_a_fill_of_an_order_sent_once_and_then_refused_is_booked(
    account: Account, clock: time_machine.Coordinates
) -> None:
    order = absent(lost_order(account), clock)
    halt()
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    told = report_of(order, V.FILLED, trade("1", order.quantity))
    reconcile.book(order, told, source="stream")
    order.refresh_from_db()
    assert (order.state, order.filled_quantity) == (S.FILLED, order.quantity)
    assert Position.objects.get().quantity == order.quantity


def test_an_order_is_not_sent_for_ever(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = absent(lost_order(account), clock)
    for _ in range(2):
        script.outcomes.append(swallow)
        dispatch.run_lane(account.pk, LANE)
        absent(order, clock)
    assert (order.state, len(script.sent)) == (S.NOT_PLACED, decisions.MAX_ATTEMPTS)


def test_attempts_that_never_left_do_not_count(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    """An exit held back by a limit of messages three times, then of unknown fate once."""
    held_back = ExecutionResult(
        Outcome.NOT_SENT, code="RATE_LIMITED", retry_after=1, held_back=True
    )
    script.outcomes.extend([held_back] * decisions.MAX_ATTEMPTS)
    order = OrderFactory.create(account=account)
    for _ in range(decisions.MAX_ATTEMPTS):
        dispatch.run_lane(account.pk, LANE)
        clock.shift(2)
    script.outcomes.append(swallow)
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert (order.state, order.attempt) == (S.UNKNOWN, decisions.MAX_ATTEMPTS + 1)
    assert absent(order, clock).state == S.PENDING
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert (order.state, script.identities()[-2:]) == (S.FILLED, [order.identity] * 2)


def test_the_looks_of_an_attempt_count_for_that_attempt_only(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = absent(lost_order(account), clock)
    script.outcomes.append(swallow)
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert (order.state, order.attempt, order.looks) == (S.UNKNOWN, 2, 0)


def test_a_look_of_an_old_copy_counts_nothing(
    account: Account, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    clock.shift(WINDOW)
    stale = Order.objects.get(pk=order.pk)
    look(order)
    reconcile.check_order(stale)
    order.refresh_from_db()
    assert (order.looks, events_of(order).count("look")) == (1, 1)


def test_an_order_that_turns_up_while_it_waits_to_be_sent_again_is_not_sent(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    stale = Order.objects.get(pk=order.pk)
    absent(order, clock)
    script.answers.append(report_of(order, V.FILLED, trade("1")))
    reconcile.check_order(stale)
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert (order.state, len(script.sent)) == (S.FILLED, 1)


@pytest.mark.django_db(transaction=True)
def test_many_looks_at_one_moment_are_one_look(scripted: Accounts) -> None:
    account = scripted()
    with time_machine.travel(AT, tick=False):
        order = lost_order(account)
    copies = [Order.objects.get(pk=order.pk) for _ in range(5)]
    with time_machine.travel(AT + timedelta(seconds=WINDOW), tick=False):
        together(*[lambda c=c: reconcile.check_order(c) for c in copies])
    order.refresh_from_db()
    assert (order.state, order.looks, events_of(order).count("look")) == (S.UNKNOWN, 1, 1)


# --- no answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [QueryFailedError("timeout"), ConfigurationError("no key"), KeyError("a defect of the plugin")],
)
def test_a_question_without_an_answer_is_no_look(
    account: Account, script: Script, clock: time_machine.Coordinates, error: Exception
) -> None:
    order = lost_order(account)
    clock.shift(2 * WINDOW)
    script.failure = error
    look(order)
    assert (order.state, order.looks, "look" in events_of(order)) == (S.UNKNOWN, 0, False)
    assert order.next_check_at == AT + timedelta(seconds=2 * WINDOW) + reconcile.ASK_AGAIN


def ask_for(order: Order, clock: time_machine.Coordinates, seconds: int) -> Order:
    """Ask now, and every ten seconds for so long."""
    look(order)
    for _ in range(seconds // 10):
        clock.shift(10)
        look(order)
    return order


def test_five_minutes_of_silence_call_an_operator(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    script.failure = QueryFailedError("timeout")
    assert ask_for(order, clock, 300).state == S.UNKNOWN
    clock.shift(1)
    assert look(order).state == S.NEEDS_OPERATOR
    assert order.detail == "the venue has not answered for 5 minutes: timeout"
    assert order.next_check_at is not None


def test_a_venue_that_answers_after_all_still_counts(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    script.failure = QueryFailedError("timeout")
    assert ask_for(order, clock, 310).state == S.NEEDS_OPERATOR
    script.failure = None
    script.answers.append(report_of(order, V.FILLED, trade("1")))
    assert look(order).state == S.FILLED


def test_an_order_left_to_an_operator_is_not_sent_again_by_itself(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    script.failure = QueryFailedError("timeout")
    assert ask_for(order, clock, 310).state == S.NEEDS_OPERATOR
    script.failure = None
    absent(order, clock)
    assert (order.state, len(script.sent)) == (S.NOT_PLACED, 1)


def lost_exit(account: Account) -> Order:
    """An exit whose answer never came, and about which the venue does not answer."""
    PositionFactory.create(account=account, symbol=LANE, quantity="0.01")
    order = lost_order(account, role="exit", side="sell", quantity="0.01", expires_at=None)
    script_of(account).failure = QueryFailedError("timeout")
    return order


def sweep(order: Order) -> Order:
    """What the sweep finds due is asked about."""
    return look(order) if order.pk in (sweeping.due_orders() or ()) else order


@pytest.mark.parametrize("silent", [0, 200])
@pytest.mark.parametrize("ask", [sweep, look])
def test_an_exit_of_unknown_fate_is_sent_again_after_a_standstill(
    account: Account,
    script: Script,
    clock: time_machine.Coordinates,
    ask: Callable[[Order], Order],
    silent: int,
) -> None:
    """The machine slept, and at first the network is not there: nobody had asked for an hour."""
    order = lost_exit(account)
    ask_for(order, clock, silent)
    clock.shift(3600)
    assert ask(order).state == S.UNKNOWN
    script.failure = None
    assert absent(order, clock).state == S.PENDING
    for breaker in CircuitBreaker.objects.all():
        breakers.reset(breaker, "it answers")
    dispatch.run_lane(account.pk, LANE)
    order.refresh_from_db()
    assert (order.state, len(script.sent)) == (S.FILLED, 2)
    assert Position.objects.get().quantity == 0


def test_a_machine_that_sleeps_while_it_asks_has_heard_no_silence(
    account: Account, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ask_for(lost_exit(account), clock, 60)

    def sleep(_script: Script, _ref: object) -> None:
        clock.shift(3600)
        raise QueryFailedError("timeout")

    monkeypatch.setattr(Script, "find", sleep)
    assert look(order).state == S.UNKNOWN


def test_whoever_read_the_order_long_ago_counts_the_silence_others_heard(
    account: Account, clock: time_machine.Coordinates
) -> None:
    """A comparison asks about many orders, one after the other, while the sweep asks as well."""
    order = lost_exit(account)
    read_before = Order.objects.select_related("account").get(pk=order.pk)
    ask_for(order, clock, 300)
    clock.shift(1)
    reconcile.check_order(read_before)
    order.refresh_from_db()
    assert order.state == S.NEEDS_OPERATOR


def test_the_silence_before_and_after_a_standstill_are_one(
    account: Account, clock: time_machine.Coordinates
) -> None:
    order = ask_for(lost_exit(account), clock, 200)
    clock.shift(3600)
    assert ask_for(sweep(order), clock, 90).state == S.UNKNOWN
    assert ask_for(order, clock, 20).state == S.NEEDS_OPERATOR


@pytest.mark.parametrize(("late", "questions"), [(18, 17), (58, 7), (88, 152)])
def test_a_sweep_that_is_always_late_gives_up_a_silent_venue_all_the_same(
    account: Account, clock: time_machine.Coordinates, late: int, questions: int
) -> None:
    """A busy machine, as late as that with every question."""
    order = lost_exit(account)
    asked = 0
    while order.state == S.UNKNOWN:
        clock.shift(2 + late)
        sweep(order)
        asked += 1
    assert (order.state, asked) == (S.NEEDS_OPERATOR, questions)


def test_a_clock_that_is_set_back_makes_nobody_wait_longer_for_an_operator(
    account: Account, clock: time_machine.Coordinates
) -> None:
    order = ask_for(lost_exit(account), clock, 60)
    clock.shift(-3600)
    assert ask_for(order, clock, 300).state == S.UNKNOWN
    clock.shift(1)
    assert look(order).state == S.NEEDS_OPERATOR


def test_each_answer_ends_a_silence(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = ask_for(lost_exit(account), clock, 290)
    script.failure = None
    assert (look(order).looks, order.unanswered_since) == (1, None)
    script.failure = QueryFailedError("timeout")
    assert ask_for(order, clock, 290).state == S.UNKNOWN
    script.failure = None
    assert look(order).state == S.PENDING


def test_silence_opens_the_breaker_and_an_answer_counts_for_it(
    account: Account, script: Script
) -> None:
    order = lost_order(account)
    script.failure = QueryFailedError("timeout")
    for _ in range(4):
        look(order)
    assert breakers.of_account(account.pk).state == CircuitBreaker.State.OPEN


def test_an_answer_that_does_not_tell_opens_no_breaker_and_goes_to_an_operator(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    """A venue that cannot prove one order absent works: exits in every other symbol go on."""
    order = lost_order(account)
    script.failure = NotShownError("it cannot prove that the order is absent")
    for _ in range(10):
        look(order)
    breaker = breakers.of_account(account.pk)
    assert (breaker.state, breaker.failures) == (CircuitBreaker.State.CLOSED, 0)
    assert (order.state, order.looks) == (S.UNKNOWN, 0)
    ask_for(order, clock, 300)
    clock.shift(1)
    assert look(order).state == S.NEEDS_OPERATOR
    clock.shift(30)
    look(order)
    assert order.next_check_at == AT + timedelta(seconds=331) + reconcile.OPERATOR_PAUSE


# --- conflicting evidence -------------------------------------------------------------------------


def test_an_acknowledged_order_the_venue_forgets_goes_to_an_operator_and_stays_there(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1")
    for _ in range(4):
        assert look(order).state == S.OPEN
    assert look(order).state == S.NEEDS_OPERATOR
    for _ in range(4):
        clock.shift(60)
        assert look(order).state == S.NEEDS_OPERATOR
    assert order.detail == "the venue acknowledged this order and now says it does not know it"
    assert events_of(order) == ["give_up"]


def test_a_lapse_of_the_venue_is_forgotten_when_it_remembers(
    account: Account, script: Script
) -> None:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1")
    for _ in range(3):
        for _ in range(3):
            look(order)
        script.answers.append(report_of(order, V.OPEN))
        assert (look(order).state, order.looks) == (S.OPEN, 0)


def test_an_answer_that_cannot_be_booked_goes_to_an_operator(
    account: Account, script: Script
) -> None:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1")
    script.answers.append(report_of(order, V.FILLED, trade("1", "0"), trade("2")))
    assert look(order).state == S.NEEDS_OPERATOR
    assert "contradicts our book" in order.detail
    assert not Fill.objects.exists()
    script.answers.append(report_of(order, V.FILLED, trade("1", "0"), trade("2")))
    assert look(order).state == S.NEEDS_OPERATOR


# --- cancels --------------------------------------------------------------------------------------


def test_a_cancel_nobody_sent_is_sent_by_the_next_question(
    account: Account, script: Script
) -> None:
    """The worker died between the decision to cancel and the request."""
    order = OrderFactory.create(account=account, state=S.CANCELING, broker_order_id="V1")
    script.reports[order.identity] = report_of(order, V.OPEN)
    assert look(order).state == S.CANCELING
    assert len(script.canceled) == 1
    assert look(order).state == S.CANCELED


def test_a_cancel_the_venue_does_not_obey_is_repeated_with_patience(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = OrderFactory.create(account=account, state=S.CANCELING, broker_order_id="V1")
    script.reports[order.identity] = report_of(order, V.OPEN)
    for _ in range(20):
        script.cancel_results.append(CancelResult(Outcome.UNKNOWN))
        look(order)
        clock.shift(1)
    assert (order.state, len(script.canceled)) == (S.CANCELING, 4)


def test_a_cancel_is_repeated_after_the_clock_was_set_back(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = OrderFactory.create(account=account, state=S.CANCELING, broker_order_id="V1")
    script.reports[order.identity] = report_of(order, V.OPEN)
    script.cancel_results.append(CancelResult(Outcome.UNKNOWN))
    look(order)
    assert len(script.canceled) == 1
    clock.shift(-3600)
    look(order)
    assert len(script.canceled) == 2


# --- whole accounts -------------------------------------------------------------------------------


def test_a_foreign_order_is_a_difference_until_it_is_gone(account: Account, script: Script) -> None:
    foreign = report_of(OrderFactory.build(account=account), V.OPEN)
    script.reports["foreign"] = foreign
    found = reconcile.reconcile_account(account)
    assert [(one.kind, one.key) for one in found] == [
        (Difference.Kind.FOREIGN_ORDER, f"BTC/USDT {foreign.broker_order_id}")
    ]
    script.reports.clear()
    assert reconcile.reconcile_account(account) == []


def by_hand(account: Account, symbol: str, order_id: str) -> OrderReport:
    there = report_of(OrderFactory.build(account=account), V.OPEN)
    return replace(there, symbol=symbol, broker_order_id=order_id)


def test_foreign_orders_with_one_id_in_two_symbols_are_two_differences(
    account: Account, script: Script
) -> None:
    """Binance counts its order ids per symbol."""
    script.reports["BTC"] = by_hand(account, "BTC/USDT", "1")
    script.reports["ETH"] = by_hand(account, "ETH/USDT", "1")
    found = reconcile.reconcile_account(account)
    assert [(one.symbol, one.broker_order_id) for one in found] == [
        ("BTC/USDT", "1"),
        ("ETH/USDT", "1"),
    ]
    account.refresh_from_db()
    assert account.reconciled_at is not None
    assert reconcile.reconcile_account(account) == found


def test_a_foreign_order_that_is_listed_twice_is_one_difference(
    account: Account, script: Script
) -> None:
    for name in ("first", "again"):
        script.reports[name] = by_hand(account, "BTC/USDT", "1")
    (found,) = reconcile.reconcile_account(account)
    assert (found.symbol, found.broker_order_id) == ("BTC/USDT", "1")


def test_a_foreign_order_is_seen_though_one_of_ours_has_its_id_in_another_symbol(
    account: Account, script: Script
) -> None:
    ours = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="1")
    script.reports["ETH"] = by_hand(account, "ETH/USDT", "1")
    script.answers.append(replace(report_of(ours, V.CANCELED), broker_order_id="1"))
    (found,) = reconcile.reconcile_account(account)
    assert (found.symbol, found.broker_order_id) == ("ETH/USDT", "1")
    # and is not taken for ours, which the venue no longer lists
    ours.refresh_from_db()
    assert ours.state == S.CANCELED


def test_the_command_says_which_comparison_failed_and_goes_on(
    account: Account, script: Script, scripted: Accounts, capsys: pytest.CaptureFixture[str]
) -> None:
    other = scripted()
    script.reports["endless"] = by_hand(account, "BTC/USDT", "1" * 200)
    with pytest.raises(CommandError, match="not everything agrees"):
        call_command("reconcile")
    assert capsys.readouterr().out.splitlines() == [
        f"{account.name}: not known, what the venue says cannot be stored (DataError)",
        f"{other.name}: agrees",
    ]


def test_our_own_working_orders_are_no_difference(account: Account, script: Script) -> None:
    known = OrderFactory.create(account=account, state=S.OPEN)
    Order.objects.update(broker_order_id=f"V{known.identity[-8:]}")
    unknown = OrderFactory.create(account=account, state=S.UNKNOWN, symbol="ETH/USDT")
    Order.objects.filter(pk=unknown.pk).update(client_order_id=f"x-{unknown.identity}")
    for order in (known, unknown):
        script.reports[order.identity] = report_of(order, V.OPEN)
    assert reconcile.reconcile_account(account) == []
    unknown.refresh_from_db()
    assert unknown.state == S.OPEN


def test_an_order_that_ended_here_and_works_at_the_venue_is_reopened(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = OrderFactory.create(account=account, state=S.NOT_PLACED, finished_at=AT)
    Order.objects.update(client_order_id=f"x-{order.identity}")
    script.reports[order.identity] = report_of(order, V.OPEN)
    clock.shift(1)
    assert reconcile.reconcile_account(account) == []
    order.refresh_from_db()
    assert (order.state, order.broker_order_id) == (S.OPEN, f"V{order.identity[-8:]}")
    assert AuditEvent.objects.get().kind == "order.corrected"


@pytest.mark.parametrize(
    ("filled", "ended", "works"),
    [("0", S.NOT_PLACED, S.OPEN), ("0.005", S.CANCELED, S.PARTIALLY_FILLED)],
)
def test_an_acknowledged_order_an_operator_gave_up_is_ours_again_when_it_works_after_all(
    account: Account,
    script: Script,
    clock: time_machine.Coordinates,
    filled: str,
    ended: OrderState,
    works: OrderState,
) -> None:
    order = OrderFactory.create(account=account, state=S.OPEN, client_order_id="ours")
    Order.objects.update(broker_order_id=f"V{order.identity[-8:]}")
    fills = [trade("1", filled)] if Decimal(filled) else []
    there = report_of(order, V.PARTIALLY_FILLED if fills else V.OPEN, *fills)
    script.answers.append(there)
    look(order)
    for _ in range(5):
        look(order)
    commands.mark_ended(order, "not in their list")
    assert order.state == ended
    script.reports[order.identity] = there
    clock.shift(31)
    reconcile.reconcile_account(account)
    order.refresh_from_db()
    assert (order.state, order.finished_at) == (works, None)
    assert order.next_check_at is not None
    assert AuditEvent.objects.filter(kind="order.corrected").count() == 1


@pytest.mark.parametrize("is_named", [True, False])
def test_an_id_the_venue_uses_again_brings_back_no_order_that_had_it_before(
    account: Account, script: Script, clock: time_machine.Coordinates, *, is_named: bool
) -> None:
    """Such as that of a place one stop takes after the other."""
    ended = OrderFactory.create(
        account=account, state=S.CANCELED, finished_at=AT, broker_order_id="77-sl"
    )
    clock.shift(31)
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="77-sl")
    ours = order.client_order_id if is_named else ""
    shown = replace(report_of(order, V.OPEN), broker_order_id="77-sl", client_order_id=ours)
    script.reports[order.identity] = shown
    assert reconcile.reconcile_account(account) == []
    assert [one.state for one in Order.objects.order_by("id")] == [S.CANCELED, S.OPEN]
    assert Order.objects.get(state=S.CANCELED) == ended


def test_what_a_stop_put_in_is_no_foreign_order_under_whatever_id_it_is_listed(
    account: Account, script: Script
) -> None:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="stop-1")
    child = replace(report_of(order, V.OPEN), broker_order_id="2", client_order_id="of the venue")
    script.reports["child"] = child
    shown = replace(report_of(order, V.OPEN), broker_order_id="stop-1")
    script.answers.extend([replace(shown, listed_as="2"), replace(shown, listed_as="3")])
    assert reconcile.reconcile_account(account) == []
    assert [one.broker_order_id for one in reconcile.reconcile_account(account)] == ["2"]


def test_a_list_that_still_shows_what_has_just_ended_brings_nothing_back(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = OrderFactory.create(
        account=account, state=S.CANCELED, finished_at=AT, broker_order_id="V1"
    )
    Order.objects.update(client_order_id=f"x-{order.identity}")
    script.reports[order.identity] = report_of(order, V.OPEN)
    clock.shift(30)
    assert reconcile.reconcile_account(account) == []
    order.refresh_from_db()
    assert (order.state, order.finished_at) == (S.CANCELED, AT)


def test_an_order_that_ended_while_the_venue_was_asked_is_left_alone(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = OrderFactory.create(
        account=account, state=S.NOT_PLACED, finished_at=AT + timedelta(seconds=1)
    )
    Order.objects.update(client_order_id=f"x-{order.identity}")
    script.reports[order.identity] = report_of(order, V.OPEN)
    reconcile.reconcile_account(account)
    order.refresh_from_db()
    assert order.state == S.NOT_PLACED


def test_coins_that_are_gone_are_a_difference(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    PositionFactory.create(account=account, quantity="0.5", updated_at=AT)
    clock.shift(60)
    script.balances = {"BTC": trade("x", "0.5").quantity}
    assert reconcile.reconcile_account(account) == []
    script.balances = {"BTC": trade("x", "0.4").quantity}
    assert [(one.ours, one.theirs) for one in reconcile.reconcile_account(account)] == [
        ("0.5", "0.4")
    ]


def test_a_venue_that_does_not_answer_changes_nothing(account: Account, script: Script) -> None:
    Account.objects.update(reconciled_at=None)
    order = lost_order_row(account)
    script.failure = QueryFailedError("timeout")
    with pytest.raises(QueryFailedError):
        reconcile.reconcile_account(account)
    order.refresh_from_db()
    account.refresh_from_db()
    assert (order.state, account.reconciled_at) == (S.UNKNOWN, None)
    breakers.trip(breakers.of_account(account.pk), "test")
    with pytest.raises(Refusal):
        reconcile.reconcile_account(account)


def lost_order_row(account: Account) -> Order:
    return OrderFactory.create(account=account, state=S.UNKNOWN, unknown_since=AT)
