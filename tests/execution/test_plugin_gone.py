"""One account whose plugin cannot be loaded any more keeps no alert from the other accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.models import Account
from brokers.symbols import Shares
from brokers.types import VenueStatus
from execution import periodic_tasks, pipeline, queues
from execution.models import Order, Position, Route, Signal, Strategy
from execution.states import OrderState, SignalState
from tests.brokers.scripted import ScriptedPlugin, report_of, script_of
from tests.execution.trading import LANE, held, process, send
from tests.factories import OrderFactory, PositionFactory, RouteFactory, allow_trading

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("eager")]
D = Decimal
NAMED = "BINANCE:BTCUSDT"
"""As a chart calls what both accounts hold."""
MISCONFIGURED = (OrderState.DENIED, "ACCOUNT_MISCONFIGURED")


@pytest.fixture
def healthy(scripted: Callable[..., Account]) -> Account:
    allow_trading()
    account = scripted()
    PositionFactory.create(account=account, symbol=LANE, quantity="0.4")
    return account


@pytest.fixture
def strategy(healthy: Account) -> Strategy:
    return RouteFactory.create(account=healthy).strategy


@pytest.fixture
def broken(scripted: Callable[..., Account], strategy: Strategy) -> Account:
    """It holds something as well, and its broker's package is not there any more."""
    account = scripted()
    PositionFactory.create(account=account, symbol=LANE, quantity="0.6")
    RouteFactory.create(strategy=strategy, account=account)
    Account.objects.filter(pk=account.pk).update(broker="gone")
    account.refresh_from_db()
    return account


def one_group() -> None:
    Route.objects.update(group="best", sizing=Route.Sizing.FIXED_QUANTITY)


def ends(signal: Signal) -> dict[int, tuple[str, str]]:
    """How each account's order of ``signal`` has ended, and why."""
    return {one.account_id: (one.state, one.reason) for one in Order.objects.filter(signal=signal)}


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("group", ["", "best"])
@pytest.mark.parametrize(
    ("action", "alert"), [("close", {}), ("sell", {"market_position": "flat", "quantity": "1"})]
)
def test_what_closes_everything_closes_the_other_account(
    healthy: Account,
    strategy: Strategy,
    broken: Account,
    action: str,
    alert: dict[str, Any],
    group: str,
    *,
    is_active: bool,
) -> None:
    Account.objects.filter(pk=broken.pk).update(is_active=is_active)
    Route.objects.update(group=group)
    closing = process(send(strategy, action, **{"symbol": NAMED} | alert))
    assert ends(closing) == {healthy.pk: (OrderState.FILLED, ""), broken.pk: MISCONFIGURED}
    assert (closing.state, held(healthy)) == (SignalState.EXECUTED, 0)


def test_an_exit_that_waited_too_long_takes_off_at_the_other(
    healthy: Account, strategy: Strategy, broken: Account
) -> None:
    leaving = send(strategy, "sell", symbol=NAMED, quantity="0.1")
    Signal.objects.update(received_at=timezone.now() - timedelta(seconds=301))
    process(leaving)
    assert ends(leaving)[healthy.pk] == (OrderState.FILLED, "")
    assert held(healthy) == D("0.3")


def test_a_target_that_waited_too_long_counts_what_is_held_at_the_broken_one(
    healthy: Account, strategy: Strategy, broken: Account
) -> None:
    one_group()
    Position.objects.filter(account=healthy).update(quantity=D("0.6"))
    Position.objects.filter(account=broken).update(quantity=D("0.4"))
    target = {"market_position": "long", "market_position_size": "0.9"}
    leaving = send(strategy, "sell", symbol=NAMED, quantity="0.1", **target)
    Signal.objects.update(received_at=timezone.now() - timedelta(seconds=301))
    assert process(leaving).state == SignalState.EXECUTED
    assert ends(leaving) == {healthy.pk: (OrderState.FILLED, "")}
    assert held(healthy) == D("0.5")


WORKING = [OrderState.OPEN, OrderState.PENDING, OrderState.SUBMITTING, OrderState.UNKNOWN]


def entry_at(broken: Account, strategy: Strategy, state: OrderState) -> Order:
    """An order to buy, which the plugin left when it went."""
    is_open = state == OrderState.OPEN
    limit = {"type": "limit", "price": D(50000)} if is_open else {}
    return OrderFactory.create(account=broken, strategy=strategy, state=state, **limit)


@pytest.mark.parametrize("group", ["", "best"])
@pytest.mark.parametrize("state", WORKING)
def test_a_close_wants_an_entry_there_gone_and_waits_for_no_word_of_it(
    healthy: Account, strategy: Strategy, broken: Account, state: OrderState, group: str
) -> None:
    Route.objects.update(group=group)
    entry = entry_at(broken, strategy, state)
    closing = process(send(strategy, "close", symbol=NAMED))
    assert ends(closing) == {healthy.pk: (OrderState.FILLED, ""), broken.pk: MISCONFIGURED}
    assert closing.state == SignalState.EXECUTED
    entry.refresh_from_db()
    assert entry.cancel_asked_by == f"alert {closing.pk}"


@pytest.mark.parametrize("state", WORKING)
def test_a_cancel_wants_an_entry_there_gone_and_waits_for_no_word_of_it(
    strategy: Strategy, broken: Account, state: OrderState
) -> None:
    entry = entry_at(broken, strategy, state)
    canceling = process(send(strategy, "cancel", symbol=NAMED))
    assert (canceling.state, canceling.reason) == (SignalState.EXECUTED, "")
    entry.refresh_from_db()
    assert entry.cancel_asked_by == f"alert {canceling.pk}"


@pytest.mark.parametrize("action", ["close", "cancel"])
def test_what_rests_there_is_canceled_once_the_plugin_is_back(
    strategy: Strategy, broken: Account, action: str
) -> None:
    entry = entry_at(broken, strategy, OrderState.OPEN)
    script_of(broken).reports[entry.identity] = report_of(entry, VenueStatus.OPEN)
    process(send(strategy, action, symbol=NAMED))
    periodic_tasks.sweep()
    entry.refresh_from_db()
    assert entry.state == OrderState.CANCELING
    Account.objects.filter(pk=broken.pk).update(broker="scripted")
    for minutes in (5, 10):  # the cancel is repeated, and then read back
        with time_machine.travel(timezone.now() + timedelta(minutes=minutes), tick=False):
            periodic_tasks.sweep()
    entry.refresh_from_db()
    assert (entry.state, entry.reason) == (OrderState.CANCELED, "CANCELED_BY_SIGNAL")


def test_a_cancel_with_nothing_there_has_nothing_to_cancel(
    strategy: Strategy, broken: Account
) -> None:
    canceling = process(send(strategy, "cancel", symbol=NAMED))
    assert (canceling.state, canceling.reason) == (SignalState.IGNORED, "NOTHING_TO_CANCEL")


def test_an_exit_waits_for_no_order_there(
    healthy: Account, strategy: Strategy, broken: Account
) -> None:
    entry_at(broken, strategy, OrderState.UNKNOWN)
    leaving = process(send(strategy, "sell", symbol=NAMED, quantity="0.1"))
    assert ends(leaving) == {healthy.pk: (OrderState.FILLED, ""), broken.pk: MISCONFIGURED}


def test_what_it_holds_counts_for_the_target_of_its_group(
    healthy: Account, strategy: Strategy, broken: Account
) -> None:
    """The other account would buy a second time what is held at the broken one."""
    one_group()
    target = {"market_position": "long", "market_position_size": "1.1"}
    bought = process(send(strategy, "buy", symbol=NAMED, quantity="0.1", **target))
    assert ends(bought) == {healthy.pk: (OrderState.FILLED, "")}
    assert held(healthy) == D("0.5")


def test_a_lane_that_has_become_free_wakes_what_waited(strategy: Strategy, broken: Account) -> None:
    waiting = send(strategy, "sell", quantity="0.1")
    assert [last.signal_id for last in queues.waiting_for(broken, LANE)] == [waiting.pk]


def test_a_plugin_that_fails_when_it_is_asked_about_shares_is_misconfigured(
    healthy: Account,
    strategy: Strategy,
    scripted: Callable[..., Account],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = scripted(options={"market": "?"})
    RouteFactory.create(strategy=strategy, account=other)

    def trades_shares(options: Mapping[str, Any]) -> Shares:
        if options:
            raise KeyError("no such market")
        return Shares.NONE

    monkeypatch.setattr(ScriptedPlugin, "trades_shares", trades_shares)
    closing = process(send(strategy, "close", symbol=NAMED))
    assert ends(closing) == {healthy.pk: (OrderState.FILLED, ""), other.pk: MISCONFIGURED}


def test_what_cannot_even_be_refused_leg_by_leg_ends_after_three_tries(
    healthy: Account, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a defect of ours")

    closing = send(strategy, "close")
    with monkeypatch.context() as defect:
        defect.setattr(pipeline, "lane_legs", broken)
        for _ in range(3):
            process(closing)
    assert (closing.state, closing.reason) == (SignalState.FAILED, "INTERNAL_ERROR")
    assert closing.detail == "FKS could not decide this: KeyError"
    assert process(send(strategy, "close")).state == SignalState.EXECUTED
    assert held(healthy) == 0
