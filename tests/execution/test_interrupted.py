"""Work broken off, slow, or done by another: it goes on once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import OperationalError

from brokers.models import Account
from execution import fills, periodic_tasks, pipeline, queues, tasks
from execution.models import Order, Signal, Strategy
from execution.states import OrderState, SignalState
from tests.brokers.scripted import CAPABILITIES, script_of
from tests.execution.guarding import clock, desk
from tests.execution.trading import LANE, held, process, send
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    allow_trading,
)
from tests.threads import beside

__all__ = ["clock", "desk"]
pytestmark = pytest.mark.django_db
S = OrderState


@pytest.fixture
def account(scripted: Callable[..., Account]) -> Account:
    allow_trading()
    return scripted()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    return RouteFactory.create(account=account).strategy


def test_connection_lost_between_accept_and_commit(
    account: Account,
    strategy: Strategy,
    nudges: list[Any],
    clock: time_machine.Coordinates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    signal = send(strategy, "buy", quantity="0.01")
    with monkeypatch.context() as patch:
        patch.setattr(fills, "apply_report", lost)
        with pytest.raises(OperationalError):
            process(signal)
    order = Order.objects.get()
    assert order.state == S.SUBMITTING
    clock.shift(60)
    periodic_tasks.sweep()
    tasks.check_order(str(order.pk))
    order.refresh_from_db()
    assert order.state == S.FILLED
    assert len(script_of(account).sent) == 1
    assert held(account) == Decimal("0.01")


@pytest.mark.django_db(transaction=True)
def test_a_slow_thread_whose_lease_ended(
    account: Account, strategy: Strategy, nudges: list[Any], clock: time_machine.Coordinates
) -> None:
    script = script_of(account)
    script.gate.clear()
    signal = send(strategy, "buy", quantity="0.01")
    sending = beside(lambda: process(signal))
    assert script.entered.wait(10)
    clock.shift(20)
    periodic_tasks.sweep()
    order = Order.objects.get()
    assert order.state == S.UNKNOWN
    tasks.check_order(str(order.pk))
    script.gate.set()
    sending.result(20)
    order.refresh_from_db()
    assert order.state == S.FILLED
    assert len(script.sent) == 1
    assert held(account) == Decimal("0.01")


def test_a_reversal_killed_half_way_and_then_closed(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    PositionFactory.create(account=account)
    reversal = send(strategy, "sell", quantity="0.03")
    pipeline.decide(reversal)  # and the worker dies
    close = send(strategy, "close")
    process(close)
    for _ in range(4):
        tasks.run_lane(account.pk, LANE)
        process(close)
        periodic_tasks.sweep()
    reversal.refresh_from_db()
    assert held(account) == 0


def test_a_reversal_killed_half_way_goes_on(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    PositionFactory.create(account=account)
    reversal = send(strategy, "sell", quantity="0.03")
    pipeline.decide(reversal)
    for _ in range(4):
        tasks.run_lane(account.pk, LANE)
        process(reversal)
    assert held(account) == Decimal("-0.02")
    assert Order.objects.filter(role__in=("entry", "exit")).count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_exits_that_overtake_are_counted_together(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    PositionFactory.create(account=account, quantity=Decimal("0.015"))
    send(strategy, "buy", quantity="0.01")
    one = send(strategy, "sell", quantity="0.01")
    two = send(strategy, "sell", quantity="0.01")
    assert queues.overtaking(one.pk) == one
    assert queues.overtaking(two.pk) is None


def test_an_exit_overtakes_though_its_own_message_is_lost(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    """The entry before it waits for another exit; whoever looks at the entry looks behind it."""
    PositionFactory.create(account=account, quantity=Decimal("0.03"))
    OrderFactory.create(account=account, role="exit", side="sell", state=S.OPEN)
    entry = send(strategy, "buy", quantity="0.01")
    leaving = send(strategy, "sell", quantity="0.01")
    assert process(entry).state == SignalState.RECEIVED
    leaving.refresh_from_db()
    assert (leaving.state, held(account)) == (SignalState.EXECUTED, Decimal("0.02"))


def test_own_close_of_a_disabled_strategy_and_reducing(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    from risk import switch
    from risk.models import TradingState

    PositionFactory.create(account=account)
    Strategy.objects.update(is_enabled=False)
    switch.change(TradingState.State.REDUCING, reason="t")
    own = process(send(strategy, "close", auth="own", account=account.name))
    assert own.state == SignalState.EXECUTED
    assert held(account) == 0


@pytest.mark.django_db(transaction=True)
def test_cross_process_close_while_the_entry_is_being_asked_about(
    account: Account, strategy: Strategy, nudges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has no part in our turns: its decision makes ours GONE."""
    PositionFactory.create(account=account)
    entry = send(strategy, "buy", quantity="0.02")
    close = send(strategy, "close")
    read, asking, go_on = pipeline.open_legs, threading.Event(), threading.Event()

    def slowly(signal: Signal, alert: Any) -> Any:
        found = read(signal, alert)
        if signal == entry:
            asking.set()
            assert go_on.wait(20)
        return found

    monkeypatch.setattr(pipeline, "open_legs", slowly)
    first = beside(lambda: pipeline.decide(entry))
    assert asking.wait(10)
    assert process(close).state == SignalState.EXECUTED
    go_on.set()
    assert first.result(20).step == pipeline.Step.GONE
    assert held(account) == 0
    assert Order.objects.count() == 1
