"""Exits beside trouble: none is lost, none turns a position over, none waits for what it need not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import OperationalError
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, Outcome, Quote, VenueStatus
from execution import account_tasks, commands, legs, periodic_tasks, pipeline, queues, tasks
from execution.models import Order, Protection, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import breakers, switch
from risk.limits import set_limit
from risk.models import TradingState
from tests.brokers.scripted import (
    CAPABILITIES,
    ScriptedPlugin,
    report_of,
    rest,
    script_of,
    swallow,
    trade,
)
from tests.execution.guarding import Desk, clock, desk
from tests.execution.trading import LANE, held, process, send
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    StrategyFactory,
    allow_trading,
)
from tests.threads import beside

__all__ = ["clock", "desk"]
pytestmark = pytest.mark.django_db
S = OrderState
Accounts = Callable[..., Account]


@pytest.fixture
def account(scripted: Accounts) -> Account:
    allow_trading()
    return scripted()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    return RouteFactory.create(account=account).strategy


# --- waiting for the lane ---------------------------------------------------------------------------


def test_an_exit_that_has_to_wait_for_its_entry_asks_the_venue_once(
    account: Account, strategy: Strategy, nudges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    quote = ScriptedPlugin.fetch_data

    def counting(plugin: ScriptedPlugin, symbol: str, *hint: Any) -> Quote:
        asked.append(symbol)
        return quote(plugin, symbol, *hint)

    pipeline.decide(send(strategy, "buy", quantity="0.01"))
    monkeypatch.setattr(ScriptedPlugin, "fetch_data", counting)
    leaving = send(strategy, "sell", quantity="0.01")
    assert pipeline.decide(leaving) == pipeline.Decision(pipeline.Step.WAIT)
    assert asked == []
    tasks.run_lane(account.pk, LANE)
    assert nudges[-1] == ("process_queue", queues.key_of(leaving))
    assert process(leaving).state == SignalState.EXECUTED
    assert (held(account), asked) == (0, [LANE])


def test_what_is_cancelled_for_an_exit_is_cancelled_though_it_has_to_wait(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    """A close takes back the entry that has not left: it must not be late for the sake of that."""
    pipeline.decide(send(strategy, "buy", quantity="0.01"))
    entry = Order.objects.get()
    closing = pipeline.decide(send(strategy, "close"))
    assert closing == pipeline.Decision(pipeline.Step.WAIT, cancels=(entry.pk,))


def test_an_account_whose_lane_is_quiet_waits_for_no_other(
    account: Account, strategy: Strategy, scripted: Accounts, nudges: list[Any]
) -> None:
    pipeline.decide(send(strategy, "buy", quantity="0.01"))
    quiet = RouteFactory.create(strategy=strategy, account=scripted()).account
    PositionFactory.create(account=quiet, quantity="0.01")
    decision = pipeline.decide(send(strategy, "sell", quantity="0.01"))
    assert decision == pipeline.Decision(pipeline.Step.WAIT, lanes=((quiet.pk, LANE),))


# --- no price --------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [{"action": "close"}, {"action": "sell", "quantity": "0.01"}])
def test_a_close_behind_a_first_entry_of_unknown_fate_while_there_is_no_quote(
    account: Account, strategy: Strategy, eager: None, action: dict[str, str]
) -> None:
    script = script_of(account)
    script.outcomes.append(swallow)
    process(send(strategy, "buy", quantity="0.01"))
    entry = Order.objects.get()
    assert entry.state == S.UNKNOWN
    script.quote_failure = QueryFailedError("timeout")
    leaving = process(send(strategy, **action))
    script.quote_failure = None
    script.reports[entry.identity] = report_of(entry, VenueStatus.FILLED, trade("t1", "0.01"))
    tasks.check_order(str(entry.pk))
    process(leaving)
    assert held(account) == 0


def test_a_close_while_the_plugin_breaks_over_a_price(desk: Desk) -> None:
    desk.buy()
    desk.script.quote_failure = KeyError("bidPrice")
    assert desk.send("close").state == SignalState.EXECUTED
    assert desk.held() == 0


def test_the_same_behind_an_open_breaker(account: Account, strategy: Strategy, eager: None) -> None:
    script = script_of(account)
    script.outcomes.append(swallow)
    process(send(strategy, "buy", quantity="0.01"))
    entry = Order.objects.get()
    breakers.trip(breakers.of_account(account.pk), "test")
    leaving = process(send(strategy, "close"))
    breakers.reset(breakers.of_account(account.pk), "test")
    script.reports[entry.identity] = report_of(entry, VenueStatus.FILLED, trade("t1", "0.01"))
    tasks.check_order(str(entry.pk))
    process(leaving)
    assert held(account) == 0


def test_an_entry_not_sent_yet_is_not_sent_after_a_close(
    account: Account, strategy: Strategy, eager: None
) -> None:
    """The breaker opens between the entry's decision and its sending; then the close comes."""
    entry_signal = send(strategy, "buy", quantity="0.01")
    pipeline.decide(entry_signal)
    breakers.trip(breakers.of_account(account.pk), "test")
    process(send(strategy, "close"))
    breakers.reset(breakers.of_account(account.pk), "test")
    tasks.run_lane(account.pk, LANE)
    Order.objects.get(signal=entry_signal)
    assert held(account) == 0


def test_a_close_beside_a_resting_first_entry_while_there_is_no_quote(
    account: Account, strategy: Strategy, eager: None
) -> None:
    """Flat, a limit entry rests; the close must at least take the entry away."""
    script = script_of(account)
    script.outcomes.append(rest)
    process(send(strategy, "buy", quantity="0.01", order_type="limit", price="50000"))
    entry = Order.objects.get()
    script.quote_failure = QueryFailedError("timeout")
    process(send(strategy, "close"))
    script.quote_failure = None
    entry.refresh_from_db()
    assert entry.state == S.CANCELED


# --- stale -----------------------------------------------------------------------------------------


# --- one account's trouble and the other's exit ----------------------------------------------------


def test_an_operators_exit_on_one_account_behind_an_amend_on_another(
    account: Account, scripted: Accounts, eager: None, clock: time_machine.Coordinates
) -> None:
    manual = StrategyFactory.create(slug="manual", max_age=60)
    other = scripted()
    PositionFactory.create(account=account)
    resting = OrderFactory.create(
        account=other, state=S.OPEN, broker_order_id="V1", type="limit", price="50000"
    )
    script_of(other).failure = QueryFailedError("down")
    from brokers.types import CancelResult, Outcome

    script_of(other).cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 50)
    amend = process(
        send(
            manual,
            "buy",
            auth="operator",
            account=other.name,
            quantity="0.01",
            price="51000",
            order_type="limit",
            replaces=str(resting.pk),
        )
    )
    assert amend.state == SignalState.RECEIVED
    leaving = process(send(manual, "sell", auth="operator", account=account.name, reduce_only=True))
    assert held(account) == 0, (leaving.state, held(account))


# --- one thread decides ----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_close_while_the_entry_before_it_hangs_in_its_question(
    account: Account, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    PositionFactory.create(account=account)
    entry = send(strategy, "buy", quantity="0.01")
    close = send(strategy, "close")
    # the entry is being decided already when the close comes
    read, asking, go_on = legs.open_legs, threading.Event(), threading.Event()

    def slowly(signal: Signal, alert: Any) -> Any:
        if signal == entry:
            asking.set()
            assert go_on.wait(30)
        return read(signal, alert)

    monkeypatch.setattr(pipeline, "open_legs", slowly)
    from execution import queues

    following, alone = queues.next_undecided, queues.Next(entry, has_more=False)
    monkeypatch.setattr(
        queues, "next_undecided", lambda queue: following(queue) if asking.is_set() else alone
    )
    first = beside(lambda: process(entry))
    assert asking.wait(20)
    try:
        state = process(close).state
    finally:
        go_on.set()
        first.result(30)
    assert state == SignalState.EXECUTED


# --- stops taken off -------------------------------------------------------------------------------


def test_stops_stay_while_an_exit_has_to_wait_for_something_else(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy()
    assert desk.guarded() == [("0.01", "58000")]
    desk.script.outcomes.append(swallow)
    desk.send("buy", quantity="0.01")
    unknown = Order.objects.get(state=S.UNKNOWN)
    close = desk.send("close")
    assert close.state == SignalState.RECEIVED
    naked = 0
    for _ in range(60):
        clock.shift(4)
        tasks.process_signal(str(close.pk))
        desk.guard()
        account_tasks.watch(desk.account.pk)
        if not [one for one in desk.live() if one.state == S.OPEN]:
            naked += 4
    desk.script.price = Decimal(50000)
    account_tasks.watch(desk.account.pk)
    unknown.refresh_from_db()
    assert naked <= 20


def lose(order: Order, state: S) -> None:
    """Nobody knows any more what becomes of ``order``."""
    long = timezone.now() + timedelta(hours=1)
    rows = Order.objects.filter(pk=order.pk)
    rows.update(state=state, unknown_since=timezone.now(), settle_at=long, next_check_at=None)
    order.refresh_from_db()


@pytest.mark.parametrize("state", [S.UNKNOWN, S.NEEDS_OPERATOR])
def test_a_stop_stays_while_the_exit_would_wait_for_an_order_nobody_knows_of(
    desk: Desk, clock: time_machine.Coordinates, state: S
) -> None:
    desk.buy()
    desk.buy()
    lost, resting = desk.live()
    lose(lost, state)
    close = desk.send("close")
    for _ in range(10):
        clock.shift(4)
        tasks.process_signal(str(close.pk))
        desk.guard()
    resting.refresh_from_db()
    assert (resting.state, desk.script.canceled) == (S.OPEN, [])
    assert desk.plan().suspended_until is None
    close.refresh_from_db()
    assert close.state == SignalState.RECEIVED

    desk.ends(lost, VenueStatus.CANCELED)
    assert process(close).state == SignalState.EXECUTED
    assert (desk.held(), desk.live()) == (0, [])


def test_a_stop_stays_while_an_exit_before_needs_an_operator(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy()
    desk.send("sell", quantity="0.004", order_type="limit", price="70000")
    before = Order.objects.get(role=Order.Role.EXIT)
    lose(before, S.NEEDS_OPERATOR)
    close = desk.send("close")
    for _ in range(10):
        clock.shift(4)
        tasks.process_signal(str(close.pk))
        desk.guard()
    assert desk.guarded() == [("0.006", "58000")]
    assert len(desk.script.canceled) == 1  # the stop for all, before the sale
    close.refresh_from_db()
    assert close.state == SignalState.RECEIVED

    commands.mark_ended(before, "it is not there")
    clock.shift(2)
    periodic_tasks.sweep()
    close.refresh_from_db()
    assert (close.state, desk.held(), desk.live()) == (SignalState.EXECUTED, 0, [])


def test_an_exit_that_can_only_reduce_takes_the_stop_off_beside_one_that_needs_an_operator(
    desk: Desk,
) -> None:
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True)
    desk.buy()
    OrderFactory.create(
        account=desk.account, side="sell", role=Order.Role.EXIT, state=S.NEEDS_OPERATOR
    )
    assert desk.send("close").state == SignalState.EXECUTED
    assert (desk.held(), desk.live()) == (0, [])


@pytest.mark.parametrize("obstacle", ["breaker", "not compared"])
def test_a_stop_stays_while_its_venue_takes_no_exit(
    desk: Desk, clock: time_machine.Coordinates, obstacle: str
) -> None:
    desk.buy()
    if obstacle == "breaker":
        breakers.trip(breakers.of_account(desk.account.pk), "test")
    else:
        Account.objects.update(reconciled_at=None)
    close = desk.send("close")
    for _ in range(3):
        clock.shift(4)
        tasks.process_signal(str(close.pk))
        desk.guard()
    assert desk.guarded() == [("0.01", "58000")]
    assert desk.script.canceled == []
    close.refresh_from_db()
    assert close.state == SignalState.RECEIVED

    breakers.reset(breakers.of_account(desk.account.pk), "test")
    Account.objects.update(reconciled_at=timezone.now())
    clock.shift(2)
    periodic_tasks.sweep()
    close.refresh_from_db()
    assert (close.state, desk.held(), desk.live()) == (SignalState.EXECUTED, 0, [])


# --- two exits, one position -----------------------------------------------------------------------


def shorting(account: Account) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)


@pytest.mark.parametrize(
    ("offers", "ends"),
    [
        ({"reduce_only": True, "locks_balance": False}, (SignalState.EXECUTED, Decimal(0))),
        ({}, (SignalState.RECEIVED, Decimal("0.01"))),
    ],
    ids=["stops stay", "stops go first"],
)
def test_a_stop_its_venue_does_not_cancel_holds_up_a_close_only_where_stops_go_first(
    desk: Desk, offers: dict[str, bool], ends: tuple[SignalState, Decimal]
) -> None:
    desk.script.capabilities = replace(CAPABILITIES, **offers)
    desk.buy()
    Order.objects.filter(role=Order.Role.STOP_LOSS).update(state=S.CANCELING)
    no = CancelResult(Outcome.REJECTED, detail="the market is closed")
    desk.script.cancel_results.extend([no] * 5)
    signal = desk.send("close")
    assert (signal.state, desk.held()) == ends


def test_two_reduce_only_exits_are_not_sized_against_one_position(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    shorting(account)
    PositionFactory.create(account=account)
    one = send(strategy, "sell", quantity="0.01", reduce_only=True)
    two = send(strategy, "sell", quantity="0.01", reduce_only=True)
    process(one)
    process(two)
    tasks.run_lane(account.pk, LANE)
    process(two)
    assert held(account) == 0


def test_closelong_twice_closes_once(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    """PineConnector's ``closelong`` (sell, reduce only, no quantity), posted twice."""
    shorting(account)
    PositionFactory.create(account=account)
    one, two = (send(strategy, "sell", reduce_only=True) for _ in range(2))
    process(one)
    process(two)
    tasks.run_lane(account.pk, LANE)
    process(two)
    assert held(account) == 0


def test_closelong_then_sell_opens_a_guarded_short(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    """What docs tell PineConnector's users to send instead of ``closelongsell``."""
    shorting(account)
    PositionFactory.create(account=account)
    one = send(strategy, "sell", reduce_only=True)
    two = send(strategy, "sell", quantity="0.01", stop_loss="61000")
    process(one)
    for _ in range(3):
        tasks.run_lane(account.pk, LANE)
        process(two)
    orders = list(
        Order.objects.exclude(role="stop_loss")
        .order_by("id")
        .values_list("role", "quantity", "state")
    )
    assert [role for role, _, _ in orders] == ["exit", "entry"]
    assert Protection.objects.filter(stop_price=61000).exists()


def test_two_strategies_leave_one_position_once(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    shorting(account)
    PositionFactory.create(account=account)
    other = RouteFactory.create(account=account).strategy
    pipeline.decide(send(strategy, "sell", quantity="0.01", reduce_only=True))
    pipeline.decide(send(other, "sell", quantity="0.01", reduce_only=True))
    tasks.run_lane(account.pk, LANE)
    assert held(account) == 0


def test_reduce_only_trading_opens_no_short_by_two_sells(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    shorting(account)
    PositionFactory.create(account=account)
    switch.change(TradingState.State.REDUCING, reason="test")
    one, two = (send(strategy, "sell", quantity="0.01") for _ in range(2))
    process(one)
    process(two)
    tasks.run_lane(account.pk, LANE)
    process(two)
    tasks.run_lane(account.pk, LANE)
    assert held(account) == 0


@pytest.mark.parametrize(
    ("alert", "waits_as"),
    [({}, None), ({"order_type": "limit", "price": "59000"}, S.PENDING)],
    ids=["undecided", "in its lane"],
)
def test_an_exit_that_waited_behind_a_breaker_is_not_sent_once_the_stop_has_filled(
    desk: Desk, alert: dict[str, str], waits_as: S | None
) -> None:
    shorting(desk.account)
    desk.buy()
    (stop,) = desk.live()
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    close = desk.send("close", **alert)
    made = close.orders.exclude(role="stop_loss")
    assert made.values_list("state", flat=True).first() == waits_as
    desk.fills(stop, trade("stop", "0.01", 58000))
    breakers.reset(breakers.of_account(desk.account.pk), "test")
    tasks.run_lane(desk.account.pk, LANE)
    assert process(close).state not in (SignalState.RECEIVED, SignalState.EXECUTED)
    assert desk.held() == 0
    assert [one.type.value for one in desk.script.sent] == ["market", "stop"]


# --- database failures -----------------------------------------------------------------------------


def test_a_close_survives_three_failures_of_the_database(
    account: Account, strategy: Strategy, nudges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    PositionFactory.create(account=account)
    close = send(strategy, "close")

    def too_many(*_: object, **__: object) -> None:
        raise OperationalError("FATAL: sorry, too many clients already")

    with monkeypatch.context() as patch:
        patch.setattr(legs, "read_leg", too_many)
        for _ in range(3):
            process(close)
    process(close)
    assert held(account) == 0


def test_an_exit_beside_a_flatten(account: Account, strategy: Strategy, nudges: list[Any]) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    PositionFactory.create(account=account)
    OrderFactory.create(account=account, role="flatten", side="sell")
    leaving = send(strategy, "sell", quantity="0.01", reduce_only=True)
    process(leaving)
    tasks.run_lane(account.pk, LANE)
    process(leaving)
    assert held(account) == 0


# --- amounts of money -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "unit", "left"),
    [("300", "quote", "0.005"), ("0.01", "percent_of_equity", "0.00834"), ("900", "quote", "0")],
)
def test_a_sale_of_money_leaves_the_rest(desk: Desk, quantity: str, unit: str, left: str) -> None:
    desk.buy("0.01", stop=None)
    desk.send("sell", quantity=quantity, quantity_type=unit)
    assert desk.held() == Decimal(left)
    assert [one.side for one in desk.script.sent] == ["buy", "sell"]


def test_a_sale_of_more_money_than_is_held_turns_the_position_over(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    desk.buy("0.01", stop=None)
    desk.send("sell", quantity="900", quantity_type="quote")
    for _ in range(3):
        periodic_tasks.sweep()
    assert desk.held() == Decimal("-0.005")


def test_an_exit_leaves_where_nobody_knows_the_accounts_time_zone(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """The machine's list of zones may lose a name, and the day's loss is counted by it."""
    set_limit("daily_loss", Decimal(500), reason="test")
    desk.buy(stop=None)
    desk.script.balances["BTC"] = Decimal("0.01")
    clock.shift(10)
    Account.objects.update(day_zone="Mars/Olympus", reconciled_at=None)
    account_tasks.reconcile_account(desk.account.pk)
    assert desk.send("close").state == SignalState.EXECUTED
    assert desk.held() == 0
