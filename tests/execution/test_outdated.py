"""Alerts that grow too old while they wait here: they open nothing any more, and still take off what is
held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from brokers.models import Account
from brokers.types import VenueStatus
from execution import approvals, tasks
from execution.models import Order, Position, Signal, Strategy
from execution.states import OrderState, SignalState
from tests.brokers.scripted import report_of, rest, script_of, swallow, trade
from tests.execution.guarding import clock
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    UserFactory,
    allow_trading,
)

__all__ = ["clock"]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("eager")]
LANE = "BTC/USDT"
S = OrderState
Accounts = Callable[..., Account]
TOO_LONG = 301
EXPIRED = (SignalState.EXPIRED, "STALE")


@pytest.fixture
def account(scripted: Accounts) -> Account:
    allow_trading()
    return scripted()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    return RouteFactory.create(account=account).strategy


def send(strategy: Strategy, action: str, quantity: str | None = "0.01", **alert: Any) -> Signal:
    body = {"symbol": LANE, "action": action} | alert
    if quantity is not None:
        body["quantity"] = quantity
    signal = SignalFactory.create(strategy=strategy, action=action, alert=body)
    return processed(signal)


def processed(signal: Signal) -> Signal:
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal


def held(account: Account) -> Decimal:
    return Position.objects.get(account=account, symbol=LANE).quantity


def turns_up(order: Order, quantity: str = "0.01") -> None:
    """The venue says at last that ``order`` has filled."""
    report = report_of(order, VenueStatus.FILLED, trade(order.identity, quantity))
    script_of(order.account).reports[order.identity] = report
    tasks.check_order(str(order.pk))


def lost_entry(account: Account, strategy: Strategy) -> Order:
    script_of(account).outcomes.append(swallow)
    entry = send(strategy, "buy").orders.get()
    assert entry.state == S.UNKNOWN
    return entry


@pytest.mark.parametrize(
    "alert",
    [
        {"reduce_only": True},
        {"reduce_only": True, "quantity": None},
        {"quantity": "100", "quantity_type": "percent_of_position"},
        {},
        {"market_position": "short"},
        {"quantity": "0.5"},
    ],
)
def test_an_exit_outlives_its_wait_for_an_entry_of_unknown_fate(
    account: Account, strategy: Strategy, clock: time_machine.Coordinates, alert: dict[str, Any]
) -> None:
    entry = lost_entry(account, strategy)
    leaving = send(strategy, "sell", **alert)
    assert leaving.state == SignalState.RECEIVED
    clock.shift(TOO_LONG)
    assert processed(leaving).state == SignalState.RECEIVED
    turns_up(entry)
    assert (processed(leaving).state, held(account)) == (SignalState.EXECUTED, 0)


def test_what_would_turn_the_position_over_only_closes_it(
    account: Account, strategy: Strategy, clock: time_machine.Coordinates
) -> None:
    script = script_of(account)
    script.capabilities = replace(script.capabilities, short_selling=True)
    entry = lost_entry(account, strategy)
    turning = send(strategy, "sell", quantity="0.03")
    clock.shift(TOO_LONG)
    turns_up(entry)
    processed(turning)
    (closing,) = turning.orders.all()
    assert (closing.role, closing.reverses, closing.quantity) == ("exit", False, Decimal("0.01"))
    assert (turning.state, held(account)) == (SignalState.EXECUTED, 0)


def test_an_exit_that_waited_here_and_then_for_a_person_is_sent_as_it_was_shown(
    account: Account, strategy: Strategy, clock: time_machine.Coordinates
) -> None:
    """It asks for more than is held, which would be an entry if it came now."""
    entry = lost_entry(account, strategy)
    leaving = send(strategy, "sell", quantity="0.5")
    Strategy.objects.update(needs_approval=True, exits_need_approval=True)
    clock.shift(TOO_LONG)
    turns_up(entry)
    processed(leaving)
    shown = leaving.orders.get()
    assert (shown.state, shown.role, shown.quantity) == (
        S.AWAITING_APPROVAL,
        "exit",
        Decimal("0.01"),
    )
    approvals.approve(shown, UserFactory.create(is_superuser=True), "")
    tasks.release_order(str(shown.pk))
    shown.refresh_from_db()
    assert (shown.state, shown.reason, held(account)) == (S.FILLED, "", 0)


def test_an_exit_that_waited_here_ends_an_entry_in_slices(
    account: Account, strategy: Strategy, clock: time_machine.Coordinates
) -> None:
    """Nothing of it has traded when the exit is decided at last; the rest would open afterwards."""
    Strategy.objects.update(execution="iceberg", slice_quantity=Decimal("0.01"))
    script_of(account).outcomes.append(rest)
    entering = send(strategy, "buy", "0.05", order_type="limit", price="50000")
    entry = entering.orders.get(parent=None)
    assert entry.state == S.SLICING
    leaving = SignalFactory.create(
        strategy=strategy,
        action="sell",
        alert={"symbol": LANE, "action": "sell", "quantity": "0.05"},
    )
    clock.shift(TOO_LONG)
    processed(leaving)
    entry.refresh_from_db()
    assert entry.state == S.CANCELED
    assert (processed(leaving).state, processed(leaving).reason) == EXPIRED


def test_an_exit_that_finds_nothing_to_take_off_expires(
    account: Account, strategy: Strategy, clock: time_machine.Coordinates
) -> None:
    entry = lost_entry(account, strategy)
    leaving = send(strategy, "sell")
    clock.shift(TOO_LONG)
    Order.objects.filter(pk=entry.pk).update(state=S.NOT_PLACED)
    processed(leaving)
    assert (leaving.state, leaving.reason) == EXPIRED
    assert leaving.detail == "the alert waited 301 s here; the most is 300 s"
    assert not leaving.orders.exists()


def test_what_adds_to_a_position_expires(
    account: Account, strategy: Strategy, clock: time_machine.Coordinates
) -> None:
    PositionFactory.create(account=account)
    unknown = OrderFactory.create(account=account, state=S.UNKNOWN, side="sell", role="exit")
    adding = send(strategy, "buy")
    assert adding.state == SignalState.RECEIVED
    clock.shift(TOO_LONG)
    Order.objects.filter(pk=unknown.pk).update(state=S.NOT_PLACED)
    processed(adding)
    assert (adding.state, adding.reason) == EXPIRED


def test_the_part_of_an_account_that_was_late_is_not_lost(
    account: Account,
    strategy: Strategy,
    scripted: Accounts,
    clock: time_machine.Coordinates,
) -> None:
    other = scripted()
    RouteFactory.create(strategy=strategy, account=other)
    for one in (account, other):
        PositionFactory.create(account=one)
    unknown = OrderFactory.create(account=other, state=S.UNKNOWN, strategy=strategy)
    leaving = send(strategy, "sell", quantity="0.02", reduce_only=True)
    assert (held(account), held(other)) == (0, Decimal("0.01"))
    clock.shift(TOO_LONG)
    processed(leaving)
    turns_up(unknown)
    processed(leaving)
    assert (held(account), held(other)) == (0, 0)


def test_one_account_closes_and_the_other_opens_nothing(
    account: Account,
    strategy: Strategy,
    scripted: Accounts,
    clock: time_machine.Coordinates,
) -> None:
    other = scripted()
    RouteFactory.create(strategy=strategy, account=other)
    script_of(account).capabilities = script_of(other).capabilities = replace(
        script_of(account).capabilities, short_selling=True
    )
    for one in (account, other):
        OrderFactory.create(account=one, state=S.UNKNOWN, strategy=strategy)
    selling = send(strategy, "sell")
    clock.shift(TOO_LONG)
    Order.objects.filter(account=other).update(state=S.NOT_PLACED)
    turns_up(Order.objects.get(account=account))
    processed(selling)
    ends = {one.account_id: (one.state, one.reason) for one in selling.orders.all()}
    assert ends == {account.pk: (S.FILLED, ""), other.pk: (S.DENIED, "STALE")}
    assert held(account) == 0
    assert not Position.objects.filter(account=other).exclude(quantity=0).exists()
