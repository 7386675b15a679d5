"""Alerts that grow too old while they wait here: they open nothing any more, and still take off what is
held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.models import Account
from brokers.types import VenueStatus
from execution import approvals, tasks
from execution.models import Order, Position, Route, Signal, Strategy
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


@pytest.fixture
def group(strategy: Strategy, account: Account, scripted: Accounts) -> dict[str, Account]:
    """Two accounts that follow the sender's target together."""
    accounts = {"a": account, "b": scripted()}
    RouteFactory.create(strategy=strategy, account=accounts["b"])
    Route.objects.update(group="both", sizing=Route.Sizing.FIXED_QUANTITY)
    return accounts


def waits_too_long(strategy: Strategy, action: str, quantity: str, size: str) -> Signal:
    """An alert with a long target that nobody has looked at before it is too old."""
    target = {"market_position": "long", "market_position_size": size}
    body = {"symbol": LANE, "action": action, "quantity": quantity} | target
    signal = SignalFactory.create(strategy=strategy, action=action, alert=body)
    Signal.objects.update(received_at=timezone.now() - timedelta(seconds=TOO_LONG))
    return processed(signal)


@pytest.mark.parametrize(
    ("holdings", "alert", "left"),
    [
        (("0.4", "0.6"), ("sell", "0.1", "0.9"), ("0.4", "0.5")),
        (("0.4", "0.6"), ("sell", "0.4", "0.6"), ("0.4", "0.2")),
        # What closed more was lost: the sender adds, and is below what is held here.
        (("0.4", "0.6"), ("buy", "0.1", "0.9"), ("0.4", "0.5")),
        (("0.4", "-0.2"), ("buy", "0.5", "0.9"), ("0.4", "0")),
    ],
)
def test_an_exit_by_target_of_a_group_outlives_its_wait(
    strategy: Strategy,
    group: dict[str, Account],
    holdings: tuple[str, str],
    alert: tuple[str, str, str],
    left: tuple[str, str],
) -> None:
    for one, quantity in zip(group.values(), holdings, strict=True):
        PositionFactory.create(account=one, quantity=quantity)
    assert waits_too_long(strategy, *alert).state == SignalState.EXECUTED
    assert tuple(map(held, group.values())) == tuple(map(Decimal, left))


@pytest.mark.parametrize(
    ("holdings", "alert"),
    [
        (("0.4", "0.6"), ("buy", "0.2", "1.2")),
        # What would have been closed is not held here any more.
        (("0.2", "0.3"), ("sell", "0.1", "0.9")),
    ],
)
def test_an_addition_to_a_group_expires(
    strategy: Strategy,
    group: dict[str, Account],
    holdings: tuple[str, str],
    alert: tuple[str, str, str],
) -> None:
    for one, quantity in zip(group.values(), holdings, strict=True):
        PositionFactory.create(account=one, quantity=quantity)
    adding = waits_too_long(strategy, *alert)
    assert (adding.state, adding.reason, adding.orders.count()) == (*EXPIRED, 0)


def test_an_exit_by_target_of_a_group_waits_for_entries_that_may_fill(
    strategy: Strategy, group: dict[str, Account]
) -> None:
    PositionFactory.create(account=group["a"], quantity="0.4")
    lost = OrderFactory.create(
        account=group["b"], strategy=strategy, state=S.UNKNOWN, quantity=Decimal("0.6")
    )
    leaving = waits_too_long(strategy, "sell", "0.1", "0.9")
    assert (leaving.state, leaving.reason) == (SignalState.RECEIVED, "")
    turns_up(lost, "0.6")
    assert processed(leaving).state == SignalState.EXECUTED
    assert (held(group["a"]), held(group["b"])) == (Decimal("0.4"), Decimal("0.5"))
