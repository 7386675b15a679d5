"""A position in a contract whose alias means the next one by now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from brokers.models import Account, SymbolAlias
from execution import tasks
from execution.models import Order, Position, Signal, Strategy
from execution.queues import waiting_for
from execution.states import OrderState, SignalState
from tests.brokers.scripted import CAPABILITIES, script_of
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db(transaction=True)
OLD, NEW = "ESZ6/USDT", "ESH7/USDT"


@pytest.fixture
def account(scripted: Callable[..., Account], eager: None) -> Account:
    return scripted()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    """It trades ES1!, which means the next contract since today."""
    allow_trading()
    today = timezone.now().date()
    until_yesterday = {"valid_until": today - timedelta(days=1)}
    SymbolAlias.objects.create(alias="ES1!", symbol=OLD, **until_yesterday)
    since_today = {"valid_from": today, "valid_until": today + timedelta(days=90)}
    SymbolAlias.objects.create(alias="ES1!", symbol=NEW, **since_today)
    return RouteFactory.create(account=account).strategy


def hold(account: Account, symbol: str, quantity: str) -> None:
    PositionFactory.create(account=account, symbol=symbol, quantity=Decimal(quantity))


def send(strategy: Strategy, action: str, **alert: Any) -> Signal:
    fields = {"symbol": "CME_MINI:ES1!", "action": action} | alert
    signal = SignalFactory.create(
        strategy=strategy, action=action, symbol=fields["symbol"], alert=fields
    )
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal


def held() -> dict[str, Decimal]:
    return dict(Position.objects.exclude(quantity=0).values_list("symbol", "quantity"))


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "close"},
        {"action": "sell", "quantity": "1"},
        {"action": "sell", "quantity": "1", "reduce_only": True},
        {"action": "sell", "quantity": "1", "market_position": "flat"},
    ],
)
def test_what_takes_off_goes_where_the_position_is(
    account: Account, strategy: Strategy, alert: dict[str, Any]
) -> None:
    hold(account, OLD, "1")

    signal = send(strategy, **alert)

    assert (signal.state, held()) == (SignalState.EXECUTED, {})


def test_also_where_the_alias_has_no_other_row(account: Account, strategy: Strategy) -> None:
    SymbolAlias.objects.filter(symbol=NEW).delete()
    hold(account, OLD, "1")

    assert send(strategy, "close").state == SignalState.EXECUTED
    assert held() == {}
    assert send(strategy, "close").reason == "UNKNOWN_SYMBOL"


def test_what_opens_or_adds_goes_into_todays_contract(account: Account, strategy: Strategy) -> None:
    hold(account, OLD, "1")

    send(strategy, "buy", quantity="1")

    assert held() == {OLD: 1, NEW: 1}


@pytest.mark.parametrize(("action", "size"), [("buy", 3), ("sell", 1), ("buy", 1), ("buy", 2)])
def test_a_target_counts_what_is_held_in_the_old_contract(
    account: Account, strategy: Strategy, action: str, size: int
) -> None:
    hold(account, OLD, "2")

    send(strategy, action, quantity="1", market_position="long", market_position_size=str(size))

    assert held() == {OLD: size}


def test_a_target_on_the_other_side_is_opened_in_todays_contract(
    account: Account, strategy: Strategy
) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True)
    hold(account, OLD, "2")

    send(strategy, "sell", market_position="short", market_position_size="1")

    assert held() == {NEW: -1}


def test_todays_contract_comes_first_where_something_is_held_in_it(
    account: Account, strategy: Strategy
) -> None:
    hold(account, OLD, "1")
    hold(account, NEW, "2")

    send(strategy, "close")
    assert held() == {OLD: 1}
    send(strategy, "close")
    assert held() == {}


def test_what_ends_in_the_old_contract_wakes_what_waits_for_it(
    account: Account, strategy: Strategy
) -> None:
    waiting = SignalFactory.create(strategy=strategy, symbol="CME_MINI:ES1!", action="close")

    assert [last.signal_id for last in waiting_for(account, OLD)] == [waiting.pk]
    assert waiting_for(account, "ESU6/USDT") == []


def test_a_reversal_closes_the_old_contract_and_opens_todays(
    account: Account, strategy: Strategy
) -> None:
    script_of(account).capabilities = replace(CAPABILITIES, short_selling=True)
    hold(account, OLD, "1")

    send(strategy, "sell", quantity="3", market_position="short")

    assert held() == {NEW: -2}


def test_a_cancel_reaches_what_works_in_the_old_contract(
    account: Account, strategy: Strategy
) -> None:
    hold(account, NEW, "1")
    resting = OrderFactory.create(
        account=account, strategy=strategy, symbol=OLD, state=OrderState.PENDING, type="limit",
        price=Decimal(50000),
    )  # fmt: skip

    signal = send(strategy, "cancel")

    assert Order.objects.get(pk=resting.pk).state == OrderState.CANCELED
    assert signal.state == SignalState.EXECUTED
