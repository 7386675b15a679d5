"""Claiming, placing and cancelling: what is sent, in which order, and what is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from brokers.errors import ConfigurationError, HeldBackError, QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, ExecutionResult, Outcome, VenueStatus
from execution import dispatch, facts, lanes, probing
from execution.models import Order, Position
from execution.states import OrderState
from execution.transitions import Event, move
from risk import breakers, switch
from risk.models import CircuitBreaker, TradingState
from risk.types import ReasonCode
from tests.brokers.scripted import (
    AT,
    CAPABILITIES,
    Script,
    accepted,
    fill_whole,
    report_of,
    rest,
    script_of,
    swallow,
    trade,
)
from tests.factories import OrderFactory, PositionFactory, StrategyFactory
from tests.threads import beside, together, wait_for_a_blocked_backend

pytestmark = pytest.mark.django_db
S = OrderState
LANE = "BTC/USDT"
Accounts = Callable[..., Account]


@pytest.fixture
def account(scripted: Accounts) -> Account:
    return scripted()


def pending(account: Account, **columns: object) -> Order:
    return OrderFactory.create(account=account, **columns)


def exit_order(account: Account, **columns: object) -> Order:
    """Covered by a position."""
    if not Position.objects.filter(account=account).exists():
        PositionFactory.create(account=account, quantity=Decimal(1))
    return pending(account, **{"role": Order.Role.EXIT, "side": "sell"} | columns)


def run(account: Account) -> list[Order]:
    return dispatch.run_lane(account.pk, LANE)


def state_of(order: Order) -> str:
    order.refresh_from_db()
    return order.state


def journal_of(order: Order) -> list[str]:
    return list(order.journal.values_list("event", flat=True))


def open_breaker(account: Account, *, since: timedelta = timedelta(0)) -> None:
    breakers.trip(breakers.of_account(account.pk), "test")
    CircuitBreaker.objects.filter(account=account).update(opened_at=timezone.now() - since)


# --- the order of sending -------------------------------------------------------------------------


def test_a_lane_is_sent_in_order_of_arrival(account: Account, script: Script) -> None:
    orders = [pending(account) for _ in range(3)]
    assert [order.pk for order in run(account)] == [order.pk for order in orders]
    assert script.identities() == [order.identity for order in orders]
    assert [state_of(order) for order in orders] == [S.FILLED] * 3


def test_exits_go_before_entries(account: Account, script: Script) -> None:
    entry, leaving = pending(account), exit_order(account)
    run(account)
    assert script.identities() == [leaving.identity, entry.identity]


def test_a_lane_sends_its_own_orders_only(scripted: Accounts) -> None:
    mine, other = scripted(), scripted()
    pending(mine)
    elsewhere = [pending(mine, symbol="ETH/USDT"), pending(other)]
    run(mine)
    assert [state_of(order) for order in elsewhere] == [S.PENDING] * 2
    assert script_of(other).sent == []


def test_the_attempt_is_committed_before_a_byte_leaves(account: Account, script: Script) -> None:
    order = pending(account)
    seen: list[Order] = []

    def look(request: object) -> ExecutionResult:
        seen.append(Order.objects.get(pk=order.pk))
        return swallow(request)  # type: ignore[arg-type]

    script.outcomes.append(look)
    with time_machine.travel(AT, tick=False):
        run(account)
    before = seen[0]
    assert (before.state, before.attempt, before.submitted_at) == (S.SUBMITTING, 1, AT)
    assert before.lease_until == AT + timedelta(seconds=CAPABILITIES.submit_timeout + 3)
    assert before.settle_at == AT + timedelta(seconds=CAPABILITIES.settle_window)


def test_a_plugin_gets_the_order_as_it_was_decided(account: Account, script: Script) -> None:
    order = pending(account, type="limit", price="59000.5", time_in_force="ioc", post_only=True)
    run(account)
    sent = script.sent[0]
    assert (sent.identity, sent.symbol, sent.side, sent.type) == (
        order.identity,
        LANE,
        "buy",
        "limit",
    )
    assert (str(sent.quantity), str(sent.price)) == ("0.01", "59000.5")
    assert (sent.time_in_force, sent.post_only, sent.reduce_only) == ("ioc", True, False)


# --- what holds a lane ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", [S.UNKNOWN, S.NEEDS_OPERATOR])
def test_an_entry_of_unknown_fate_blocks_entries_but_not_exits(
    account: Account, script: Script, state: OrderState
) -> None:
    pending(account, state=state)
    entry, leaving = pending(account), exit_order(account)
    run(account)
    assert (state_of(entry), state_of(leaving)) == (S.PENDING, S.FILLED)
    assert script.identities() == [leaving.identity]


@pytest.mark.parametrize("state", [S.UNKNOWN, S.NEEDS_OPERATOR])
def test_an_exit_of_unknown_fate_blocks_everything(
    account: Account, script: Script, state: OrderState
) -> None:
    exit_order(account, state=state)
    pending(account), exit_order(account)
    assert run(account) == []
    assert script.sent == []


@pytest.mark.parametrize("role", [Order.Role.EXIT, Order.Role.STOP_LOSS, Order.Role.FLATTEN])
@pytest.mark.parametrize("passes", [S.NEEDS_OPERATOR, S.UNKNOWN])
def test_what_its_venue_lets_only_reduce_waits_for_no_person(
    account: Account, script: Script, role: str, passes: OrderState
) -> None:
    exit_order(account, state=passes, role=role)
    entry, leaving = pending(account), exit_order(account, reduce_only=True)
    run(account)
    sent = passes == S.NEEDS_OPERATOR
    assert state_of(leaving) == (S.FILLED if sent else S.PENDING)
    assert state_of(entry) == S.PENDING
    assert script.identities() == [leaving.identity] * sent


def test_a_lost_answer_stops_the_lane(account: Account, script: Script) -> None:
    script.outcomes.append(swallow)
    first, second = pending(account), pending(account)
    run(account)
    assert (state_of(first), state_of(second)) == (S.UNKNOWN, S.PENDING)


def test_another_lane_goes_on(account: Account, script: Script) -> None:
    pending(account, state=S.UNKNOWN)
    other = pending(account, symbol="ETH/USDT")
    dispatch.run_lane(account.pk, "ETH/USDT")
    assert state_of(other) == S.FILLED


def test_a_pausing_order_holds_what_is_behind_it(account: Account, script: Script) -> None:
    patience = ExecutionResult(
        Outcome.NOT_SENT, code="VENUE_UNREACHABLE", detail="rate limit", retry_after=7
    )
    script.outcomes.append(patience)
    first, second = pending(account), pending(account)
    with time_machine.travel(AT, tick=False) as clock:
        run(account)
        assert (state_of(first), state_of(second)) == (S.PENDING, S.PENDING)
        assert first.next_check_at == AT + timedelta(seconds=7)
        assert first.reason == ReasonCode.VENUE_UNREACHABLE
        run(account)
        assert len(script.sent) == 1
        clock.shift(7)
        run(account)
    assert script.identities() == [first.identity, first.identity, second.identity]
    assert (state_of(first), first.attempt) == (S.FILLED, 2)


def test_five_waits_of_our_own_tell_nothing_about_the_venue(
    account: Account, script: Script
) -> None:
    """A limit the venue keeps counts; one of ours, at which nothing was sent, does not."""
    ours = ExecutionResult(
        Outcome.NOT_SENT, code="RATE_LIMITED", detail="ours", retry_after=1, held_back=True
    )
    script.outcomes.extend([ours] * 5)
    order = pending(account)
    with time_machine.travel(AT, tick=False) as clock:
        for _ in range(5):
            run(account)
            with pytest.raises(HeldBackError), facts.venue_call(account):
                raise HeldBackError("asked enough for now")
            clock.shift(10)
    assert (state_of(order), order.attempt) == (S.PENDING, 5)
    found = CircuitBreaker.objects.values_list("state", "failures")
    assert set(found) == {("closed", 0)}
    with pytest.raises(QueryFailedError), facts.venue_call(account):
        raise QueryFailedError("HTTP 429", code="RATE_LIMITED")
    assert set(CircuitBreaker.objects.values_list("failures", flat=True)) == {1}


def test_an_exit_overtakes_a_pausing_entry(account: Account, script: Script) -> None:
    entry = pending(account, next_check_at=timezone.now() + timedelta(minutes=1))
    leaving = exit_order(account)
    run(account)
    assert (state_of(entry), state_of(leaving)) == (S.PENDING, S.FILLED)


def test_an_entry_never_overtakes_a_pausing_exit(account: Account, script: Script) -> None:
    exit_order(account, next_check_at=timezone.now() + timedelta(minutes=1))
    pending(account)
    assert run(account) == []
    assert script.sent == []


def test_what_was_put_off_before_the_clock_was_set_back_is_sent(
    account: Account, script: Script
) -> None:
    leaving = exit_order(account, next_check_at=timezone.now() + timedelta(hours=1))
    run(account)
    assert state_of(leaving) == S.FILLED


# --- what is not sent any more --------------------------------------------------------------------


def test_an_expired_entry_is_never_sent(account: Account, script: Script) -> None:
    order = pending(account, expires_at=timezone.now() - timedelta(seconds=1))
    fresh = pending(account, expires_at=timezone.now() + timedelta(minutes=1))
    assert [one.pk for one in run(account)] == [order.pk, fresh.pk]
    assert (state_of(order), order.reason) == (S.EXPIRED, ReasonCode.EXPIRED_BEFORE_SENDING)
    assert order.detail == "the alert became too old before it could be sent"
    assert script.identities() == [fresh.identity]


def test_an_expired_entry_keeps_the_reason_that_delayed_it(account: Account) -> None:
    order = pending(
        account, reason="VENUE_UNREACHABLE", expires_at=timezone.now() - timedelta(seconds=1)
    )
    run(account)
    assert (state_of(order), order.reason) == (S.EXPIRED, "VENUE_UNREACHABLE")


@pytest.mark.parametrize("role", [Order.Role.ENTRY, Order.Role.EXIT])
def test_an_entry_expires_behind_a_blocked_lane(account: Account, role: str) -> None:
    pending(account, state=S.NEEDS_OPERATOR, role=role)
    order = pending(account, expires_at=timezone.now() - timedelta(seconds=1))
    run(account)
    assert state_of(order) == S.EXPIRED


@pytest.mark.parametrize("scope", TradingState.Scope)
def test_a_halt_between_decision_and_claim_denies(
    account: Account, script: Script, scope: TradingState.Scope
) -> None:
    strategy = StrategyFactory.create()
    orders = [pending(account, strategy=strategy), exit_order(account, strategy=strategy)]
    key = {
        "global": "",
        "account": account.name,
        "strategy": strategy.slug,
        "venue": account.venue,
        "symbol": orders[0].symbol,
    }[scope]
    switch.change(TradingState.State.HALTED, scope=scope, key=key, reason="outage")
    run(account)
    assert [(state_of(order), order.reason) for order in orders] == [
        (S.DENIED, ReasonCode.TRADING_HALTED)
    ] * 2
    assert "outage" in orders[0].detail
    assert orders[0].journal.get().evidence == {"scope": scope.value, "generation": "1"}
    assert script.sent == []


def test_reducing_denies_entries_and_sends_exits(account: Account, script: Script) -> None:
    entry, leaving = pending(account), exit_order(account)
    switch.change(TradingState.State.REDUCING, reason="closing down")
    run(account)
    assert (state_of(entry), entry.reason) == (S.DENIED, ReasonCode.REDUCE_ONLY)
    assert state_of(leaving) == S.FILLED


def test_an_account_switched_off_sends_nothing(account: Account, script: Script) -> None:
    order = pending(account)
    Account.objects.update(is_active=False)
    run(account)
    assert (state_of(order), order.reason) == (S.DENIED, ReasonCode.ACCOUNT_INACTIVE)


def test_an_exit_that_waits_for_a_comparison_ends_when_its_account_is_switched_off(
    account: Account, script: Script
) -> None:
    order = exit_order(account)
    Account.objects.update(reconciled_at=None)
    assert run(account) == []
    Account.objects.update(is_active=False)
    run(account)
    assert (state_of(order), order.reason) == (S.DENIED, ReasonCode.ACCOUNT_INACTIVE)
    Account.objects.update(is_active=True, reconciled_at=timezone.now())
    assert run(account) == []
    assert script.sent == []


@pytest.mark.parametrize("blocking", [S.SUBMITTING, S.UNKNOWN, S.NEEDS_OPERATOR])
def test_what_waits_for_another_order_ends_when_its_account_is_switched_off(
    account: Account, script: Script, blocking: OrderState
) -> None:
    in_front = exit_order(account, state=blocking)
    leaving = exit_order(account)
    canceled = exit_order(account, cancel_reason=ReasonCode.CANCELED_BY_SIGNAL.value)
    assert run(account) == []
    Account.objects.update(is_active=False)
    assert [order.pk for order in run(account)] == [leaving.pk, canceled.pk]
    assert (state_of(leaving), leaving.reason) == (S.DENIED, ReasonCode.ACCOUNT_INACTIVE)
    assert (state_of(canceled), canceled.reason) == (S.CANCELED, ReasonCode.CANCELED_BY_SIGNAL)
    assert state_of(in_front) == blocking
    Account.objects.update(is_active=True)
    Order.objects.filter(pk=in_front.pk).update(state=S.NOT_PLACED)
    assert run(account) == []
    assert script.sent == []


def test_an_account_switched_off_while_its_lane_runs_sends_no_more(
    account: Account, script: Script
) -> None:
    def switch_off(request: object) -> ExecutionResult:
        Account.objects.update(is_active=False)
        return fill_whole(request)  # type: ignore[arg-type]

    script.outcomes.append(switch_off)
    first, second = pending(account), pending(account)
    run(account)
    assert (state_of(first), state_of(second)) == (S.FILLED, S.DENIED)


@pytest.mark.parametrize(("allowed", "state"), [(False, S.DENIED), (True, S.FILLED)])
def test_a_live_account_trades_only_where_live_trading_is_on(
    scripted: Accounts, allowed: bool, state: OrderState
) -> None:
    account = scripted(environment="live")
    order = pending(account)
    with override_settings(FKS_LIVE_TRADING=allowed):
        run(account)
    assert state_of(order) == state
    assert order.reason == ("" if allowed else ReasonCode.LIVE_TRADING_OFF)


def test_a_misconfigured_account_denies_instead_of_failing_for_ever(
    account: Account, script: Script
) -> None:
    script.init_failure = ConfigurationError("the stored credential cannot be read")
    orders = [pending(account), exit_order(account)]
    run(account)
    assert [(state_of(order), order.reason, order.detail) for order in orders] == [
        (S.DENIED, "ACCOUNT_MISCONFIGURED", "the stored credential cannot be read")
    ] * 2


# --- the breaker ----------------------------------------------------------------------------------


def test_an_open_breaker_holds_the_lane(account: Account, script: Script) -> None:
    open_breaker(account)
    orders = [pending(account), exit_order(account)]
    assert run(account) == []
    assert [state_of(order) for order in orders] == [S.PENDING] * 2
    assert script.sent == []


def test_entries_expire_behind_an_open_breaker_and_exits_go_first_when_it_closes(
    account: Account, script: Script
) -> None:
    now = timezone.now()
    open_breaker(account)
    old = pending(account, expires_at=now - timedelta(seconds=1))
    fresh = pending(account, expires_at=now + timedelta(minutes=5))
    leaving = exit_order(account)
    assert [order.pk for order in run(account)] == [old.pk]
    assert state_of(old) == S.EXPIRED
    open_breaker(account, since=timedelta(seconds=61))
    assert run(account) == []
    assert probing.probe(account.pk)
    run(account)
    assert script.identities() == [leaving.identity, fresh.identity]
    assert breakers.of_account(account.pk).state == CircuitBreaker.State.CLOSED


def test_ending_an_order_does_not_use_up_the_breakers_probe(
    account: Account, script: Script
) -> None:
    open_breaker(account, since=timedelta(seconds=61))
    denied = exit_order(account)
    switch.change(TradingState.State.HALTED, reason="test")
    run(account)
    assert state_of(denied) == S.DENIED
    switch.change(TradingState.State.ACTIVE, reason="test")
    leaving = exit_order(account)
    assert probing.probe(account.pk)
    run(account)
    assert state_of(leaving) == S.FILLED


def test_a_lost_claim_does_not_use_up_the_breakers_probe(account: Account) -> None:
    pending(account, state=S.SUBMITTING)
    pending(account)
    open_breaker(account, since=timedelta(seconds=61))
    assert run(account) == []
    assert breakers.of_account(account.pk).state == CircuitBreaker.State.OPEN


def test_failures_open_the_breaker(account: Account, script: Script) -> None:
    lost = ExecutionResult(Outcome.NOT_SENT, code="VENUE_UNREACHABLE", retry_after=0)
    script.outcomes.extend([lost] * 5)
    pending(account)
    with time_machine.travel(AT, tick=False) as clock:
        for _ in range(6):
            run(account)
            clock.shift(3)
    assert len(script.sent) == 5
    assert breakers.of_account(account.pk).state == CircuitBreaker.State.OPEN


# --- outcomes -------------------------------------------------------------------------------------


def test_accepted_without_a_report_is_open_and_asked_about(
    account: Account, script: Script
) -> None:
    script.outcomes.append(ExecutionResult(Outcome.ACCEPTED, broker_order_id="V1"))
    order = pending(account)
    run(account)
    assert (state_of(order), order.broker_order_id) == (S.OPEN, "V1")
    assert order.acknowledged_at is not None
    assert order.next_check_at is not None


def test_accepted_with_a_report_is_booked_with_its_fills(account: Account) -> None:
    order = pending(account)
    run(account)
    assert (state_of(order), order.filled_quantity) == (S.FILLED, order.quantity)
    assert Position.objects.get().quantity == order.quantity
    assert journal_of(order) == ["claim", "fill"]


def test_rejected_ends_with_the_venues_words(account: Account, script: Script) -> None:
    script.outcomes.append(
        ExecutionResult(
            Outcome.REJECTED,
            code="VENUE_REJECTED",
            detail="-2010 insufficient balance",
            evidence={"status": 400},
        )
    )
    order = pending(account)
    run(account)
    assert (state_of(order), order.reason, order.detail) == (
        S.REJECTED,
        "VENUE_REJECTED",
        "-2010 insufficient balance",
    )
    assert order.journal.last().evidence == {
        "status": 400,
        "outcome": "rejected",
        "code": "VENUE_REJECTED",
    }


def test_rejected_without_a_code_has_one_nevertheless(account: Account, script: Script) -> None:
    script.outcomes.append(ExecutionResult(Outcome.REJECTED))
    order = pending(account)
    run(account)
    assert (state_of(order), order.reason) == (S.REJECTED, "VENUE_REJECTED")


def test_not_sent_without_patience_ends_not_placed(account: Account, script: Script) -> None:
    script.outcomes.append(
        ExecutionResult(Outcome.NOT_SENT, code="NOT_SUPPORTED", detail="no such order type")
    )
    order = pending(account)
    run(account)
    assert (state_of(order), order.reason, order.detail) == (
        S.NOT_PLACED,
        "NOT_SUPPORTED",
        "no such order type",
    )


@pytest.mark.usefixtures("standing_clock")
@pytest.mark.parametrize(("asked", "seconds"), [(None, 1), (30, 30), (259_200, 60)])
def test_an_order_the_venue_took_for_one_too_many_is_looked_for_when_it_may_be_asked(
    account: Account, script: Script, asked: int | None, seconds: int
) -> None:
    script.outcomes.append(
        ExecutionResult(Outcome.UNKNOWN, code="RATE_LIMITED", detail="HTTP 429", retry_after=asked)
    )
    order = pending(account)
    run(account)
    assert (state_of(order), order.reason) == (S.UNKNOWN, "RATE_LIMITED")
    assert order.next_check_at == timezone.now() + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "outcome",
    [
        ExecutionResult(Outcome.UNKNOWN, code="VENUE_UNREACHABLE", detail="read timeout"),
        RuntimeError("a plugin must not raise, and yet"),
        KeyError("orderId"),
        QueryFailedError("not even this"),
    ],
)
def test_everything_else_is_unknown(
    account: Account, script: Script, outcome: ExecutionResult | Exception
) -> None:
    script.outcomes.append(outcome)
    order = pending(account)
    run(account)
    assert state_of(order) == S.UNKNOWN
    assert order.unknown_since is not None
    assert order.next_check_at is not None
    assert order.reason == (
        outcome.code if isinstance(outcome, ExecutionResult) else "PLUGIN_ERROR"
    )
    assert breakers.of_account(account.pk).failures == 1


def test_an_answer_after_the_lease_is_booked_all_the_same(account: Account, script: Script) -> None:
    def too_late(request: object) -> ExecutionResult:
        lanes.lose_sight(Order.objects.get())
        return fill_whole(request)  # type: ignore[arg-type]

    script.outcomes.append(too_late)
    order = pending(account)
    run(account)
    assert state_of(order) == S.FILLED
    assert journal_of(order) == ["claim", "lose_sight", "fill"]


def test_a_rejection_after_the_lease_is_left_to_the_search(
    account: Account, script: Script
) -> None:
    def too_late(request: object) -> ExecutionResult:
        lanes.lose_sight(Order.objects.get())
        return ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED")

    script.outcomes.append(too_late)
    order = pending(account)
    run(account)
    assert state_of(order) == S.UNKNOWN


def test_a_lease_that_ended_leaves_an_unknown_order(account: Account) -> None:
    now = timezone.now()
    dead = pending(account, state=S.SUBMITTING, lease_until=now - timedelta(seconds=1))
    alive = pending(
        account,
        symbol="ETH/USDT",
        state=S.SUBMITTING,
        lease_until=now + timedelta(seconds=1),
    )
    assert lanes.lease_ended_before(now) == [dead]
    lanes.lose_sight(dead)
    assert (state_of(dead), dead.reason) == (S.UNKNOWN, ReasonCode.VENUE_UNREACHABLE)
    assert state_of(alive) == S.SUBMITTING


# --- cancelling -----------------------------------------------------------------------------------


def cancel(order: Order) -> None:
    dispatch.cancel(order, reason=ReasonCode.CANCELED_BY_OPERATOR, detail="enough")


def test_an_unsent_order_is_canceled_here(account: Account, script: Script) -> None:
    order = pending(account)
    cancel(order)
    assert (state_of(order), order.reason, order.detail) == (
        S.CANCELED,
        "CANCELED_BY_OPERATOR",
        "enough",
    )
    assert script.canceled == []


def test_a_resting_order_stays_canceling_until_it_is_read_back(
    account: Account, script: Script
) -> None:
    script.outcomes.append(rest)
    order = pending(account)
    run(account)
    order.refresh_from_db()
    cancel(order)
    assert (state_of(order), order.reason) == (S.CANCELING, "CANCELED_BY_OPERATOR")
    assert [ref.broker_order_id for ref in script.canceled] == [order.broker_order_id]
    assert journal_of(order) == ["claim", "acknowledge", "request_cancel", "cancel_sent"]


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (CancelResult(Outcome.REJECTED, code="NOTHING_TO_CANCEL"), "NOTHING_TO_CANCEL"),
        (CancelResult(Outcome.UNKNOWN), ""),
        (ConfigurationError("no key"), "ACCOUNT_MISCONFIGURED"),
        (KeyError("a defect"), "PLUGIN_ERROR"),
    ],
)
def test_a_cancel_proves_nothing_by_itself(
    account: Account, script: Script, result: CancelResult | Exception, code: str
) -> None:
    script.cancel_results.append(result)
    order = pending(account, state=S.OPEN, broker_order_id="V1")
    cancel(order)
    assert state_of(order) == S.CANCELING
    assert order.next_check_at is not None
    assert order.journal.last().evidence["code"] == code


@pytest.mark.parametrize("state", [S.SUBMITTING, S.UNKNOWN, S.NEEDS_OPERATOR, S.FILLED])
def test_nothing_is_canceled_whose_place_is_not_known(
    account: Account, script: Script, state: OrderState
) -> None:
    order = pending(account, state=state)
    cancel(order)
    assert (state_of(order), script.canceled) == (state, [])


def test_a_cancel_that_comes_while_the_order_is_accepted_reaches_the_venue(
    account: Account, script: Script
) -> None:
    script.outcomes.append(rest)
    order = pending(account)
    stale = Order.objects.get(pk=order.pk)
    run(account)
    cancel(stale)
    assert (state_of(order), len(script.canceled)) == (S.CANCELING, 1)


# --- at the same time -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_workers_on_one_lane_one_sends(scripted: Accounts) -> None:
    account = scripted()
    script = script_of(account)
    orders = [pending(account) for _ in range(4)]
    together(*[lambda: run(account) for _ in range(4)])
    run(account)
    assert sorted(script.identities()) == sorted(order.identity for order in orders)
    assert [state_of(order) for order in orders] == [S.FILLED] * 4
    assert {order.attempt for order in orders} == {1}


@pytest.mark.django_db(transaction=True)
def test_while_one_order_is_being_sent_no_other_of_its_lane_is(scripted: Accounts) -> None:
    account = scripted()
    script = script_of(account)
    orders = [pending(account) for _ in range(3)]
    script.gate.clear()
    first = beside(lambda: run(account))
    assert script.entered.wait(10)
    assert together(*[lambda: run(account) for _ in range(3)]) == [[], [], []]
    assert Order.objects.filter(state=S.SUBMITTING).get() == orders[0]
    script.gate.set()
    assert [order.pk for order in first.result(30)] == [order.pk for order in orders]


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_hangs_holds_no_other_lane(scripted: Accounts) -> None:
    slow, quick = scripted(), scripted()
    pending(slow)
    other = pending(quick)
    script_of(slow).gate.clear()
    hanging = beside(lambda: run(slow))
    assert script_of(slow).entered.wait(10)
    run(quick)
    assert state_of(other) == S.FILLED
    script_of(slow).gate.set()
    hanging.result(30)


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_looked_before_the_lane_lost_an_order_does_not_stand(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first order is being sent when the second is chosen, and unknown when it is claimed."""
    account = scripted()
    first = pending(account, state=S.SUBMITTING, attempt=1)
    second = pending(account)
    choose = lanes._reason_not_to_send

    def interleaved(order: Order, of: Account) -> object:
        together(lambda: move(Order.objects.get(pk=first.pk), Event.LOSE_SIGHT))
        return choose(order, of)

    monkeypatch.setattr(lanes, "_reason_not_to_send", interleaved)
    assert lanes.claim_next(account, LANE) is None
    assert (state_of(first), state_of(second)) == (S.UNKNOWN, S.PENDING)
    assert (second.attempt, journal_of(second)) == (0, [])


@pytest.mark.django_db(transaction=True)
def test_a_claim_waits_for_the_outcome_that_is_being_committed(scripted: Accounts) -> None:
    """The unique index makes the second claim wait for the first order's fate, and heed it."""
    account = scripted()
    first = pending(account, state=S.SUBMITTING, attempt=1)
    second = pending(account)
    with transaction.atomic():
        move(first, Event.LOSE_SIGHT)
        claim = beside(lambda: lanes.claim_next(account, LANE))
        wait_for_a_blocked_backend()
    assert claim.result(30) is None
    assert state_of(second) == S.PENDING


@pytest.mark.django_db(transaction=True)
def test_no_claim_commits_after_the_switch_was_thrown(scripted: Accounts) -> None:
    accounts = [scripted() for _ in range(4)]
    for account in accounts:
        for _ in range(25):
            pending(account)
    begun = threading.Event()

    def work(account: Account) -> None:
        while lanes.claim_next(account, LANE) is not None:
            begun.set()
            Order.objects.filter(account=account, state=S.SUBMITTING).update(state=S.OPEN)

    def halt() -> tuple[datetime, set[object]]:
        assert begun.wait(10)
        switch.change(TradingState.State.HALTED, reason="stop")
        claimed = set(Order.objects.filter(attempt=1).values_list("pk", flat=True))
        return timezone.now(), claimed

    stopped = beside(halt)
    together(*[lambda a=account: work(a) for account in accounts])
    moment, claimed = stopped.result(30)
    assert set(Order.objects.filter(attempt=1).values_list("pk", flat=True)) == claimed
    assert not Order.objects.filter(submitted_at__gt=moment).exists()
    rest_of_them = Order.objects.exclude(pk__in=claimed)
    assert rest_of_them.count() == 100 - len(claimed)
    assert {order.state for order in rest_of_them} <= {S.DENIED}


@pytest.mark.django_db(transaction=True)
def test_the_switch_waits_for_a_claim_that_has_begun(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = scripted()
    order = pending(account)
    waiting: list[object] = []
    choose = lanes._reason_not_to_send

    def throw_the_switch_meanwhile(chosen: Order, of: Account) -> object:
        reason = choose(chosen, of)
        halting = beside(lambda: switch.change(TradingState.State.HALTED, reason="stop"))
        wait_for_a_blocked_backend()
        waiting.append(halting)
        return reason

    monkeypatch.setattr(lanes, "_reason_not_to_send", throw_the_switch_meanwhile)
    claimed = lanes.claim_next(account, LANE)
    assert claimed is not None
    waiting[0].result(30)  # type: ignore[attr-defined]
    assert state_of(order) == S.SUBMITTING


def test_partial_fills_of_a_market_order_stay_working(account: Account, script: Script) -> None:
    def half(request: object) -> ExecutionResult:
        part = report_of(request, VenueStatus.PARTIALLY_FILLED, trade("1", "0.004"))  # type: ignore[arg-type]
        return accepted(replace(part, quantity=part.quantity))

    script.outcomes.append(half)
    order = pending(account)
    run(account)
    assert (state_of(order), str(order.remaining)) == (S.PARTIALLY_FILLED, "0.006")
