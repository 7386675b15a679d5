"""One account whose plugin cannot be loaded any more keeps no alert from the other accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from brokers.models import Account
from brokers.symbols import Shares
from execution import pipeline, queues
from execution.models import Order, Route, Signal, Strategy
from execution.states import OrderState, SignalState
from tests.brokers.scripted import ScriptedPlugin
from tests.execution.trading import LANE, held, process, send
from tests.factories import PositionFactory, RouteFactory, allow_trading

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
