"""A venue that was down: asked by a question first; then exits go before entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from brokers.capabilities import Balances
from brokers.errors import LoginNeededError, QueryFailedError
from brokers.models import Account
from brokers.types import Health
from execution import account_tasks, dispatch, probing, sweeping, tasks
from execution.models import Order
from execution.states import OrderState
from risk import breakers
from risk.models import CircuitBreaker
from tests.brokers.scripted import ScriptedPlugin, script_of
from tests.factories import OrderFactory, PositionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(scripted: Callable[..., Account]) -> Account:
    """Its breaker has been open for long enough to be probed."""
    account = scripted()
    breakers.trip(breakers.of_account(account.pk), "test")
    rewind()
    return account


def rewind() -> None:
    shut = CircuitBreaker.objects.exclude(state="closed")
    shut.update(opened_at=timezone.now() - timedelta(seconds=60))


def test_questions_close_it_and_no_order_goes_before(account: Account) -> None:
    order = OrderFactory.create(account=account)
    assert dispatch.run_lane(account.pk, order.symbol) == []
    assert script_of(account).sent == []
    assert probing.probe(account.pk)
    assert breakers.are_closed(account)
    dispatch.run_lane(account.pk, order.symbol)
    order.refresh_from_db()
    assert order.state == OrderState.FILLED


def test_one_failed_question_opens_it_again(account: Account) -> None:
    script_of(account).failure = QueryFailedError("timeout")
    assert not probing.probe(account.pk)
    assert breakers.of_account(account.pk).state == "open"
    assert not probing.probe(account.pk)


def test_a_venue_that_only_does_not_tell_the_time_works(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedPlugin, "health_check", lambda _: Health(False, "HTTP 404"))
    assert probing.probe(account.pk)
    assert breakers.are_closed(account)


def test_what_an_operator_wrote_down_is_no_answer_of_the_venue(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = script_of(account)
    script.capabilities = replace(script.capabilities, balances=Balances.STATED)
    away = Health(False, "NinjaTrader is not connected")
    monkeypatch.setattr(ScriptedPlugin, "health_check", lambda _: away)
    assert not probing.probe(account.pk)
    breaker = breakers.of_account(account.pk)
    assert breaker.state == "open"
    assert away.detail in breaker.last_error


def test_a_venues_breaker_is_probed_through_any_of_its_accounts(
    account: Account, scripted: Callable[..., Account]
) -> None:
    breakers.reset(breakers.of_account(account.pk), "test")
    other = scripted()
    breakers.trip(breakers.of_venue(account), "test")
    rewind()
    assert breakers.due(timezone.now()) == {account.pk, other.pk}
    assert probing.probe(other.pk)
    assert breakers.are_closed(account)
    assert breakers.are_closed(other)


def test_an_account_that_cannot_even_ask_does_not_hold_up_the_others(
    account: Account, scripted: Callable[..., Account]
) -> None:
    breakers.reset(breakers.of_account(account.pk), "test")
    other = scripted()
    breakers.trip(breakers.of_venue(account), "test")
    rewind()
    script_of(account).init_failure = LoginNeededError("somebody must log in")
    assert not probing.probe(account.pk)
    assert probing.probe(other.pk)


def test_once_it_is_closed_exits_go_first_and_old_entries_are_gone(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = timezone.now() - timedelta(seconds=1)
    OrderFactory.create(account=account, symbol="AAA/USDT")
    OrderFactory.create(account=account, symbol="BBB/USDT", expires_at=old)
    OrderFactory.create(account=account, symbol="ZZZ/USDT")
    OrderFactory.create(account=account, symbol="ZZZ/USDT", role=Order.Role.EXIT, side="sell")
    PositionFactory.create(account=account, symbol="ZZZ/USDT")
    lanes: list[Any] = []
    monkeypatch.setattr(
        tasks.run_lane, "apply_async", lambda args, **_: lanes.append(args) or tasks.run_lane(*args)
    )
    monkeypatch.setattr(tasks.check_order, "apply_async", lambda *_, **__: None)
    account_tasks.probe_venue(account.pk)
    assert next(symbol for _, symbol in lanes) == "ZZZ/USDT"
    sent = [(one.symbol, one.side.value) for one in script_of(account).sent]
    assert sent == [
        ("ZZZ/USDT", "sell"),
        ("ZZZ/USDT", "buy"),
        ("AAA/USDT", "buy"),
    ]
    assert Order.objects.get(symbol="BBB/USDT").state == OrderState.EXPIRED
    assert sweeping.lanes_of(account.pk) == []
