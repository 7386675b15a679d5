"""What a cancel alert is for: what was asked for before it, and may rest."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from brokers.models import Account
from execution import tasks
from execution.models import Strategy
from execution.states import OrderState, SignalState
from risk import breakers
from tests.execution.guarding import clock, desk
from tests.execution.trading import LANE, held, process, send
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    allow_trading,
)

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


def known_market(account: Account, strategy: Strategy) -> None:
    """A position of 0.01 that FKS itself has bought."""
    process(send(strategy, "buy", quantity="0.01"))
    tasks.run_lane(account.pk, LANE)
    assert held(account) == Decimal("0.01")


def test_a_waiting_cancel_leaves_alone_what_came_after_it(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    """The cancel waits for an order of unknown fate. Another strategy's exit comes later."""
    known_market(account, strategy)
    OrderFactory.create(account=account, state=S.UNKNOWN, strategy=strategy)
    cancel = process(send(strategy, "cancel"))
    assert cancel.state == SignalState.RECEIVED
    other = RouteFactory.create(account=account).strategy
    # its exit rests, or waits in the lane behind a breaker
    breakers.trip(breakers.of_account(account.pk), "test")
    leaving = process(send(other, "sell", quantity="0.01"))
    exit_order = leaving.orders.get()
    assert exit_order.state == S.PENDING
    nudges.clear()
    process(cancel)
    for name, args in list(nudges):
        if name == "cancel_order":
            tasks.cancel_order(*args)
    exit_order.refresh_from_db()
    leaving.refresh_from_db()
    assert exit_order.state == S.PENDING


def test_a_cancel_after_a_close_leaves_the_market_exit_alone(
    account: Account, strategy: Strategy, eager: None
) -> None:
    """close_all and cancel_all of one bar: the exit is not sent yet because the breaker is open."""
    known_market(account, strategy)
    breakers.trip(breakers.of_account(account.pk), "test")
    close = process(send(strategy, "close"))
    process(send(strategy, "cancel"))
    breakers.reset(breakers.of_account(account.pk), "test")
    tasks.run_lane(account.pk, LANE)
    close.refresh_from_db()
    assert held(account) == 0


def test_a_cancel_right_behind_a_close_in_one_queue(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    """No breaker: both alerts are there when the thread comes; lanes are run by another thread."""
    PositionFactory.create(account=account)
    close = send(strategy, "close")
    send(strategy, "cancel")
    tasks.process_signal(str(close.pk))
    work = list(nudges)
    # the cancel reaches the row before the lane's thread does
    for name, args in work:
        if name == "cancel_order":
            tasks.cancel_order(*args)
    for name, args in work:
        if name == "run_lane":
            tasks.run_lane(*args)
    assert held(account) == 0


def test_a_cancel_alert_leaves_an_operators_flatten_alone(
    account: Account, strategy: Strategy, nudges: list[Any]
) -> None:
    PositionFactory.create(account=account)
    flatten = OrderFactory.create(account=account, role="flatten", side="sell")
    cancel = send(strategy, "cancel")
    tasks.process_signal(str(cancel.pk))
    flatten.refresh_from_db()
    assert flatten.state == S.PENDING
