"""Targets FKS watches itself, positions without their stop, and the alarm."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.utils import timezone

from brokers.errors import QueryFailedError, QuoteUnavailableError
from brokers.models import SymbolAlias
from brokers.types import (
    CancelResult,
    ExecutionResult,
    OrderRequest,
    Outcome,
    Quote,
    VenueStatus,
)
from execution import account_tasks, alarms, periodic_tasks, pipeline, tasks, watching
from execution.exclusive import Work, exclusive
from execution.models import Alarm, Order, Position, Protection, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import breakers, switch
from risk.models import AuditEvent, TradingState
from tests.brokers.scripted import CAPABILITIES, ScriptedPlugin, rest, swallow
from tests.execution.guarding import SYMBOL, Desk, clock, desk, fill_whole, part
from tests.execution.trading import process, send
from tests.threads import beside, together

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
REFUSED = ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail="no")
THREE = [
    {"price": "61000", "percent": "30"},
    {"price": "62000", "percent": "30"},
    {"price": "63000", "percent": "40"},
]


def watch(desk: Desk, price: int | str | None = None) -> list[str]:
    """One look while the market is at ``price``; what the looking sent, as (action, quantity)."""
    if price is not None:
        desk.script.price = Decimal(price)
    before = set(Signal.objects.values_list("pk", flat=True))
    account_tasks.watch(desk.account.pk)
    sent = Signal.objects.exclude(pk__in=before).order_by("id")
    return [str(one.alert.get("quantity", "all")) for one in sent]


def naked(desk: Desk, **alert: object) -> None:
    """A position of 0.01 BTC whose stop the venue refuses for ever."""
    desk.script.outcomes.extend([fill_whole, *[REFUSED] * 5])
    desk.buy(**alert)
    assert desk.plan().naked_since is not None


# --- targets ----------------------------------------------------------------------------------------


def test_a_target_reached_beside_a_reversal_leaves_the_other_side_alone(
    desk: Desk, nudges: list[Any]
) -> None:
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    targets = [{"price": "61000", "percent": "100"}]
    process(send(desk.strategy, quantity="0.01", take_profit=targets))
    reversal = send(desk.strategy, "sell", quantity="0.03")
    pipeline.decide(reversal)
    assert watch(desk, 61500) == ["all"]
    own = Signal.objects.get(auth=watching.OWN_ALERT)
    for _ in range(3):
        process(own)
        tasks.run_lane(desk.account.pk, SYMBOL)
        process(reversal)
    assert (desk.held(), process(reversal).state) == (Decimal("-0.02"), SignalState.EXECUTED)
    assert (process(own).state, own.reason) == (SignalState.IGNORED, "NOTHING_TO_CLOSE")


def test_a_close_of_fks_itself_misses_no_alert(desk: Desk) -> None:
    """It names the side it closes; what has closed that meanwhile was no sender's alert."""
    held = {"market_position": "flat", "prev_market_position": "long"}
    own = send(desk.strategy, "close", auth=watching.OWN_ALERT, account=desk.account.name, **held)
    theirs = send(desk.strategy, "close", **held)
    assert process(own).gap == ""
    assert process(theirs).gap != ""


def test_targets_are_reached_in_order_each_once_and_the_last_closes_all(desk: Desk) -> None:
    desk.buy("0.01", take_profit=THREE)

    assert watch(desk, 60999) == []
    assert watch(desk, 61000) == ["0.003"]
    assert desk.held() == Decimal("0.007")
    assert desk.guarded() == [("0.007", "58000")]
    assert watch(desk, 61500) == []
    assert watch(desk, 64000) == ["0.003"]
    assert watch(desk) == ["all"]

    assert desk.held() == 0
    assert not desk.plan().is_active
    assert desk.live() == []
    assert watch(desk) == []
    own = Signal.objects.filter(auth=watching.OWN_ALERT)
    assert {one.state for one in own} == {SignalState.EXECUTED}
    assert own.earliest("id").body.startswith("take profit at 61000, for the entry ")


def test_a_target_waits_for_the_close_of_the_one_before_it(desk: Desk) -> None:
    """Its share is of what is held then: before the first close has filled that is not known."""
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, reduce_only=True)
    desk.buy("0.01", take_profit=THREE)
    desk.script.outcomes.append(rest)
    assert watch(desk, 61000) == ["0.003"]
    assert watch(desk, 62000) == []
    assert watch(desk) == []
    desk.fills(Order.objects.get(role=Order.Role.EXIT), part(1, "0.003", price="61000"))
    assert watch(desk) == ["0.003"]
    assert desk.held() == Decimal("0.004")


def test_a_target_waits_for_no_close_that_only_a_person_can_clear_up(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, locks_balance=False, reduce_only=True)
    desk.buy("0.01", take_profit=THREE[:2])
    desk.script.outcomes.append(rest)
    assert watch(desk, 61000) == ["0.003"]
    Order.objects.filter(role=Order.Role.EXIT).update(state=OrderState.NEEDS_OPERATOR)
    assert len(watch(desk, 62000)) == 1
    assert desk.plan().targets == []


@pytest.mark.parametrize("symbol", ["BRK.B/USDT", "ES 12-26/USDT"])
def test_a_position_only_an_alias_led_to_is_closed_by_its_own_name(desk: Desk, symbol: str) -> None:
    SymbolAlias.objects.create(account=desk.account, alias="SHARE", symbol=symbol)
    desk.buy(symbol="SHARE", take_profit=[{"price": "61000", "percent": "100"}])
    assert Position.objects.get(symbol=symbol).quantity == Decimal("0.01")

    assert watch(desk, 61000) == ["all"]

    assert Signal.objects.get(auth=watching.OWN_ALERT).state == SignalState.EXECUTED
    assert Position.objects.get(symbol=symbol).quantity == 0


def test_the_last_target_closes_what_fees_and_rounding_left(desk: Desk) -> None:
    entry = desk.buy(
        "0.00101",
        take_profit=[{"price": "61000", "percent": "50"}, {"price": "62000", "percent": "50"}],
        order_type="limit",
        price="60000",
    )
    desk.fills(entry, part(1, "0.00101"))
    assert watch(desk, 61000) == ["0.000505"]
    assert desk.held() == Decimal("0.00051")
    assert watch(desk, 62000) == ["all"]
    assert desk.held() == 0


def test_targets_below_a_hundred_percent_leave_the_rest_to_the_stop(desk: Desk) -> None:
    desk.buy("0.01", take_profit=[{"price": "61000", "percent": "40"}])
    assert watch(desk, 61000) == ["0.004"]
    assert desk.guarded() == [("0.006", "58000")]
    assert watch(desk, 70000) == []
    assert desk.plan().is_active


@pytest.mark.parametrize(
    ("bid", "ask", "age", "sent"),
    [
        (61000, 61001, 59, ["all"]),
        (61000, 61001, 61, []),
        (61000, 60990, 0, []),
    ],
    ids=["recent", "old", "crossed"],
)
def test_a_price_that_is_old_or_crossed_reaches_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, bid: int, ask: int, age: int, sent: list[str]
) -> None:
    """A share's quote of yesterday, a feed that stands still: who sold would sell at another."""

    def told(_: object, symbol: str, hint: object = None) -> Quote:
        at = timezone.now() - timedelta(seconds=age)
        return Quote(symbol, Decimal(bid), Decimal(ask), Decimal(ask), at)

    Strategy.objects.update(break_even_percent=1)
    desk.buy("0.01", take_profit=[{"price": "61000", "percent": "100"}])
    with monkeypatch.context() as patch:
        patch.setattr(ScriptedPlugin, "fetch_data", told)
        assert watch(desk) == sent
    assert (desk.plan().moved_at is not None) is bool(sent)
    assert watch(desk, 61000) == ([] if sent else ["all"])


def test_two_targets_at_one_price_are_two(desk: Desk) -> None:
    both = [{"price": "61000", "percent": "50"}, {"price": "61000", "percent": "50"}]
    desk.buy("0.01", take_profit=both)
    assert [watch(desk, 61000), watch(desk)] == [["0.005"], ["all"]]


def test_a_short_reaches_its_targets_downward(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True)
    desk.send(
        "sell",
        quantity="0.01",
        stop_loss="62000",
        take_profit=[THREE[0] | {"price": "59000", "percent": "100"}],
    )
    assert watch(desk, 59001) == []
    assert watch(desk, 59000) == ["all"]
    assert desk.held() == 0


@pytest.mark.parametrize(("side", "reached"), [("bid", False), ("ask", True)])
def test_the_side_that_would_trade_counts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, side: str, reached: bool
) -> None:
    desk.buy(take_profit=[{"price": "61000", "percent": "100"}])
    bid, ask = (
        (Decimal(60900), Decimal(61100)) if side == "bid" else (Decimal(61000), Decimal(61200))
    )

    def quote(self: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        return Quote(symbol, bid, ask, ask, desk.plan().entry.created_at)

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", quote)
    assert bool(watch(desk)) is reached


def test_a_halt_uses_up_no_target(desk: Desk) -> None:
    desk.buy(take_profit=[{"price": "61000", "percent": "100"}])
    switch.change(TradingState.State.HALTED, reason="test")
    assert watch(desk, 61000) == []
    switch.change(TradingState.State.REDUCING, reason="test")
    assert watch(desk, 61000) == ["all"]
    assert desk.held() == 0


def test_a_disabled_strategy_still_takes_its_profit(desk: Desk) -> None:
    desk.buy(take_profit=[{"price": "61000", "percent": "100"}])
    Strategy.objects.update(is_enabled=False)
    assert watch(desk, 61000) == ["all"]
    assert desk.held() == 0


def test_an_account_switched_off_is_not_watched(desk: Desk) -> None:
    desk.buy(take_profit=[{"price": "61000", "percent": "100"}])
    desk.account.is_active = False
    desk.account.save()
    assert watching.watched_accounts() == []
    assert watch(desk, 61000) == []


def test_without_target_and_with_its_stop_nobody_asks_for_a_quote(desk: Desk) -> None:
    desk.buy()
    assert watching.watched_accounts() == []


def test_the_sweep_has_targets_watched(desk: Desk) -> None:
    desk.buy(take_profit=[{"price": "61000", "percent": "100"}])
    desk.script.price = Decimal(61000)
    periodic_tasks.sweep()
    assert desk.held() == 0


# --- watchers beside each other ---------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_many_watchers_at_once_reach_a_target_once(desk: Desk) -> None:
    desk.buy("0.01", take_profit=THREE)
    desk.script.price = Decimal(61000)
    plan = desk.plan()
    sent = together(*[lambda: watching.look(plan.pk)] * 4)
    assert sorted(len(one) for one in sent) == [0, 0, 0, 1]
    assert [one["price"] for one in desk.plan().targets] == ["62000", "63000"]


@pytest.mark.django_db(transaction=True)
def test_a_venue_that_hangs_holds_one_watcher_per_account(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.buy(take_profit=THREE)
    asked, answer = threading.Semaphore(0), threading.Event()

    def hangs(self: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        asked.release()
        assert answer.wait(20)
        raise QueryFailedError("timeout")

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", hangs)
    first = beside(lambda: account_tasks.watch(desk.account.pk))
    assert asked.acquire(timeout=20)
    for _ in range(3):
        account_tasks.watch(desk.account.pk)
    answer.set()
    first.result(20)
    assert not asked.acquire(blocking=False)
    assert breakers.of_account(desk.account.pk).failures == 1


@pytest.mark.django_db(transaction=True)
def test_the_lock_of_a_watcher_that_died_is_free_again(desk: Desk) -> None:
    def dies() -> None:
        with exclusive(Work.WATCH, 1) as mine:
            assert mine
            connection.close()

    beside(dies).exception(20)
    with exclusive(Work.WATCH, 1) as mine:
        assert mine


def test_a_venue_that_fails_is_asked_once_a_round_and_a_missing_quote_does_not_end_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for symbol in ("BTC/USDT", "ETH/USDT", "SOL/USDT"):
        desk.buy(symbol=symbol, take_profit=[{"price": "61000", "percent": "100"}])
    asked: list[str] = []
    error: Exception = QueryFailedError("timeout")

    def fails(self: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        asked.append(symbol)
        raise error

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", fails)
    watch(desk)
    assert asked == ["BTC/USDT"]
    error = QuoteUnavailableError("one-sided")
    watch(desk)
    assert asked == ["BTC/USDT", "ETH/USDT", "SOL/USDT", "BTC/USDT"]
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    watch(desk)
    assert len(asked) == 4


@pytest.mark.parametrize("is_answer", [True, False])
def test_one_symbol_without_a_price_keeps_no_other_from_being_looked_at(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_answer: bool
) -> None:
    for symbol in ("BTC/USDT", "ETH/USDT", "SOL/USDT"):
        desk.buy(symbol=symbol, take_profit=[{"price": "61000", "percent": "100"}])
    Protection.objects.filter(symbol="BTC/USDT").update(naked_since=timezone.now())
    error = QueryFailedError("the venue answered -1121 Invalid symbol.")
    error.is_answer = is_answer
    asked: list[str] = []
    plain = ScriptedPlugin.fetch_data

    def quote(self: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        asked.append(symbol)
        if symbol == "BTC/USDT":
            raise error
        return plain(self, symbol, hint)

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", quote)
    breaker = breakers.of_account(desk.account.pk)
    watching.watch(desk.account.pk)
    breaker.refresh_from_db()
    first = ["BTC/USDT", "ETH/USDT", "SOL/USDT"] if is_answer else ["BTC/USDT"]
    assert (asked, breaker.failures) == (first, 0 if is_answer else 1)
    asked.clear()
    watching.watch(desk.account.pk)
    assert asked == ["ETH/USDT", "SOL/USDT", "BTC/USDT"]


def test_a_plugin_that_breaks_over_one_symbol_keeps_no_other_from_being_looked_at(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for symbol in ("BTC/USDT", "ETH/USDT"):
        desk.buy(symbol=symbol, take_profit=[{"price": "61000", "percent": "100"}])
    plain = ScriptedPlugin.fetch_data

    def quote(self: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        if symbol == "BTC/USDT":
            raise KeyError("bidPrice")
        return plain(self, symbol, hint)

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", quote)
    assert (watch(desk, 61000), watch(desk)) == ([], ["all"])
    assert Position.objects.get(symbol="ETH/USDT").quantity == 0


def test_a_plan_renewed_while_its_quote_was_fetched_is_left_to_the_next_look(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.buy(take_profit=[{"price": "61000", "percent": "100"}])
    plain = ScriptedPlugin.fetch_data

    def renews(self: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        monkeypatch.setattr(ScriptedPlugin, "fetch_data", plain)
        desk.buy(take_profit=[{"price": "90000", "percent": "100"}])
        return plain(self, symbol)

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", renews)
    desk.script.price = Decimal(61000)
    assert watching.look(desk.plan().pk) == []
    assert [one["price"] for one in desk.plan().targets] == ["90000"]


# --- a position whose stop is not at the venue ------------------------------------------------------


@pytest.mark.usefixtures("standing_clock")
@pytest.mark.parametrize("policy", list(Strategy.OnNaked))
def test_a_stop_whose_price_has_passed_closes_the_position(
    desk: Desk, policy: Strategy.OnNaked
) -> None:
    Strategy.objects.update(on_naked=policy)
    naked(desk)
    desk.script.outcomes.clear()
    assert watch(desk, "58000.01") == []
    assert watch(desk, 58000) == ["all"]
    assert desk.held() == 0
    assert not desk.plan().is_active


@pytest.mark.usefixtures("standing_clock")
def test_a_short_is_closed_above_its_stop(desk: Desk) -> None:
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True)
    desk.script.outcomes.extend([fill_whole, REFUSED])
    desk.send("sell", quantity="0.01", stop_loss="62000")
    assert watch(desk, 61999) == []
    assert watch(desk, 62000) == ["all"]
    assert desk.held() == 0


@pytest.mark.parametrize(
    ("policy", "closes"),
    [
        (Strategy.OnNaked.ALARM, []),
        (Strategy.OnNaked.REPLACE, []),
        (Strategy.OnNaked.CLOSE, ["all"]),
    ],
)
def test_only_the_policy_close_closes_after_5_s(
    desk: Desk,
    clock: time_machine.Coordinates,
    policy: Strategy.OnNaked,
    closes: list[str],
) -> None:
    Strategy.objects.update(on_naked=policy)
    naked(desk)
    desk.script.outcomes.clear()
    assert watch(desk, 60000) == []
    clock.shift(6)
    assert watch(desk, 60000) == closes


@pytest.fixture
def resting_exit(desk: Desk, clock: time_machine.Coordinates) -> Order:
    """Of 0.01 a limit order keeps 0.004, the stop guards the rest; the policy closes what is naked."""
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    desk.buy()
    desk.send("sell", quantity="0.004", order_type="limit", price="70000")
    assert desk.guarded() == [("0.006", "58000")]
    return Order.objects.get(role=Order.Role.EXIT)


def test_the_policy_close_leaves_an_exit_that_rests_alone(
    desk: Desk, clock: time_machine.Coordinates, resting_exit: Order
) -> None:
    for _ in range(3):
        clock.shift(6)
        desk.guard()
        assert watch(desk, 60000) == []
    assert desk.guarded() == [("0.006", "58000")]
    assert watch(desk, 58000) == ["all"]
    assert desk.held() == 0


def test_the_policy_close_closes_what_no_exit_keeps(
    desk: Desk, clock: time_machine.Coordinates, resting_exit: Order
) -> None:
    clock.shift(60)
    desk.script.outcomes.extend([REFUSED] * 5)
    (stop,) = desk.live()
    desk.ends(stop, VenueStatus.CANCELED)
    desk.script.outcomes.clear()
    clock.shift(6)
    assert watch(desk, 60000) == ["all"]


def test_what_an_exit_kept_until_now_has_five_seconds_to_get_its_stop(
    desk: Desk, clock: time_machine.Coordinates, resting_exit: Order
) -> None:
    clock.shift(60)
    desk.script.outcomes.extend([REFUSED] * 5)
    desk.ends(resting_exit, VenueStatus.CANCELED)
    desk.script.outcomes.clear()
    assert watch(desk, 60000) == []
    clock.shift(6)
    assert watch(desk, 60000) == ["all"]


def test_what_is_bought_beside_a_resting_exit_has_five_seconds_as_well(
    desk: Desk, clock: time_machine.Coordinates, resting_exit: Order
) -> None:
    clock.shift(60)
    desk.script.outcomes.extend([fill_whole, *[REFUSED] * 5])
    desk.buy()
    desk.script.outcomes.clear()
    assert watch(desk, 60000) == []
    clock.shift(6)
    assert watch(desk, 60000) == ["all"]


def test_where_exits_keep_nothing_their_end_is_no_excuse(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """Parts of an exit end less than five seconds apart, and the venue refuses the stop of the rest."""
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    naked(desk)
    for _ in range(2):
        clock.shift(3)
        desk.script.outcomes.clear()
        desk.script.outcomes.extend([fill_whole, *[REFUSED] * 5])
        desk.send("sell", quantity="0.001")
    assert desk.held() == Decimal("0.008")
    desk.script.outcomes.clear()
    assert watch(desk, 60000) == ["all"]
    assert desk.held() == 0


def test_a_closing_that_failed_is_tried_again_after_30_s(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    naked(desk)
    desk.script.outcomes.clear()
    desk.script.outcomes.append(REFUSED)
    Strategy.objects.update(on_naked=Strategy.OnNaked.ALARM)
    assert watch(desk, 57000) == ["all"]
    assert desk.held() == Decimal("0.01")
    assert watch(desk) == []
    clock.shift(31)
    assert watch(desk) == ["all"]
    assert desk.held() == 0


def test_a_halt_leaves_a_naked_position_to_the_alarm_and_the_close_to_later(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    naked(desk)
    switch.change(TradingState.State.HALTED, reason="test")
    desk.script.outcomes.extend([REFUSED] * 5)
    clock.shift(6)
    assert watch(desk, 57000) == []
    assert len(alarms.look()) == 1
    switch.change(TradingState.State.ACTIVE, reason="test")
    desk.script.outcomes.clear()
    assert watch(desk) == ["all"]


def test_no_second_exit_while_one_is_under_way(desk: Desk) -> None:
    desk.buy()
    desk.script.outcomes.append(swallow)
    desk.send("close")
    desk.guard()
    assert desk.plan().naked_since is not None
    assert watch(desk, 57000) == []


def test_closing_an_unguarded_position_cancels_the_exit_that_holds_its_coins(desk: Desk) -> None:
    desk.buy()
    desk.send("sell", quantity="0.01", order_type="limit", price="70000")
    assert watch(desk, 57000) == ["all"]
    exits = Order.objects.filter(role=Order.Role.EXIT).order_by("id")
    assert [one.state for one in exits] == [OrderState.CANCELED, OrderState.FILLED]
    assert desk.held() == 0


# --- the alarm --------------------------------------------------------------------------------------


def test_a_naked_position_raises_an_alarm_within_10_s_once(
    desk: Desk, clock: time_machine.Coordinates, caplog: pytest.LogCaptureFixture
) -> None:
    naked(desk)
    clock.shift(1)
    periodic_tasks.sweep()
    assert not AuditEvent.objects.filter(kind="alarm.naked_position").exists()
    clock.shift(4)
    periodic_tasks.sweep()
    periodic_tasks.sweep()
    (told,) = AuditEvent.objects.filter(kind="alarm.naked_position")
    assert told.subject == f"position without its stop: {SYMBOL} on {desk.account.name}"
    assert told.reason == "0.01 of 0.01 has no stop at the venue"
    logged = [one for one in caplog.records if one.name == "execution.alarms"]
    assert [(one.levelname, one.getMessage()) for one in logged] == [
        ("ERROR", f"alarm: {told.subject}, {told.reason}")
    ]


def test_it_is_raised_where_nothing_can_be_found_out_at_all(
    desk: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of a plugin, not only an answer that fails."""
    entry = desk.buy(order_type="limit", price="60000")

    def breaks(self: ScriptedPlugin, identity: str) -> str:
        raise KeyError(identity)

    monkeypatch.setattr(ScriptedPlugin, "client_order_id", breaks)
    desk.fills(entry, part(1, "0.01"))
    clock.shift(6)
    assert len(alarms.look()) == 1


def test_a_position_guarded_again_and_naked_again_raises_a_second_one(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.outcomes.extend([fill_whole, REFUSED, rest])
    desk.buy()
    clock.shift(6)
    assert len(alarms.look()) == 1
    desk.guard()
    assert alarms.look() == []
    assert Alarm.objects.get().cleared_at is not None
    desk.script.outcomes.append(REFUSED)
    Order.objects.filter(role=Order.Role.STOP_LOSS).update(
        state=OrderState.CANCELED, reason="CANCELED_BY_OPERATOR"
    )
    desk.guard()
    clock.shift(6)
    assert len(alarms.look()) == 1


def test_a_stop_nobody_knows_to_rest_any_more_raises_it_as_well(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    """Its cancel may have arrived, and the venue has fallen silent."""
    desk.buy()
    Protection.objects.update(stop_price=Decimal(59000))
    desk.script.cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 9)
    desk.script.answers.extend([QueryFailedError("timeout")] * 9)
    desk.guard()
    (old,) = desk.live()
    assert (old.state, alarms.look()) == (OrderState.CANCELING, [])

    clock.shift(5)
    (alarm,) = alarms.look()
    assert (alarm.kind, alarm.symbol) == (Alarm.Kind.NAKED_POSITION, SYMBOL)
    assert alarms.look() == []

    desk.script.answers.clear()
    desk.ends(old, VenueStatus.CANCELED)
    assert desk.guarded() == [("0.01", "59000")]
    alarms.look()
    alarm.refresh_from_db()
    assert alarm.cleared_at is not None


def test_an_old_stop_that_lingers_beside_its_successor_raises_nothing(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    desk.buy()
    Protection.objects.update(stop_price=Decimal(59000))
    desk.script.cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 9)
    desk.guard()
    assert [one.state for one in desk.live()] == [OrderState.CANCELING, OrderState.OPEN]
    clock.shift(5)
    assert alarms.look() == []


@pytest.mark.django_db(transaction=True)
def test_two_alarms_at_once_are_one(desk: Desk, clock: time_machine.Coordinates) -> None:
    naked(desk)
    clock.shift(6)
    raised = together(*[alarms.look] * 4)
    assert sum(len(one) for one in raised) == 1
    assert AuditEvent.objects.filter(kind="alarm.naked_position").count() == 1


def test_nobody_can_send_an_own_alert_by_hand(desk: Desk) -> None:
    """Only FKS itself writes the mark that lets an alert pass a disabled strategy."""
    assert watching.OWN_ALERT not in Strategy.Auth.values
    Strategy.objects.update(is_enabled=False)
    assert desk.send("close").reason == "STRATEGY_DISABLED"
    assert not Protection.objects.exists()


def test_a_request_is_what_the_venue_sees(desk: Desk) -> None:
    desk.buy(take_profit=[{"price": "61000", "percent": "40"}])
    watch(desk, 61000)
    sale: OrderRequest = desk.script.sent[2]
    assert (sale.side.value, sale.type.value, sale.quantity) == ("sell", "market", Decimal("0.004"))
