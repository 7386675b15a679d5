"""What a close makes void: earlier alerts of its own queue, and nothing of other accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from brokers.models import Account
from brokers.types import VenueStatus
from execution import account_tasks, tasks
from execution.ids import uuid7
from execution.models import Route, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import switch
from risk.models import TradingState
from tests.brokers.scripted import CAPABILITIES, report_of, script_of
from tests.execution.trading import LANE, held, send
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db
S = OrderState
Accounts = Callable[..., Account]
SHORTS = replace(CAPABILITIES, short_selling=True, reduce_only=True, locks_balance=False)


@pytest.fixture
def two(scripted: Accounts) -> tuple[Strategy, Account, Account]:
    allow_trading()
    strategy = StrategyFactory.create()
    a, b = scripted(name="aa"), scripted(name="bb")
    for account in (a, b):
        RouteFactory.create(strategy=strategy, account=account)
    return strategy, a, b


def process(signal: Signal) -> Signal:
    tasks.process_signal(str(signal.pk))
    for account in Account.objects.all():
        tasks.run_lane(account.pk, LANE)
    signal.refresh_from_db()
    return signal


def test_own_take_profits_of_two_accounts(two: Any, nudges: list[Any]) -> None:
    """Both accounts reach the target in the same second: each must be closed."""
    strategy, a, b = two
    entry = process(
        send(strategy, "buy", quantity="0.01", take_profit=[{"price": "61000", "percent": "100"}])
    )
    assert entry.state == SignalState.EXECUTED
    assert (held(a), held(b)) == (Decimal("0.01"), Decimal("0.01"))
    for account in (a, b):
        script_of(account).price = Decimal(61500)
    account_tasks.watch(a.pk)
    account_tasks.watch(b.pk)
    own = list(Signal.objects.filter(auth="own").order_by("id"))
    assert len(own) == 2
    for one in own:
        process(one)
    account_tasks.watch(a.pk)
    account_tasks.watch(b.pk)
    for one in Signal.objects.filter(state="received"):
        process(one)
    assert (held(a), held(b)) == (0, 0)


def test_a_webhook_close_is_not_made_void_by_fks_own_close_of_one_account(
    two: Any, nudges: list[Any]
) -> None:
    strategy, a, b = two
    for account in (a, b):
        PositionFactory.create(account=account)
    close = send(strategy, "close")
    own = send(strategy, "close", auth="own", account="aa")
    process(close)
    process(own)
    assert (held(a), held(b)) == (0, 0)


def test_an_exit_by_hand_on_another_account_is_not_made_void(two: Any, nudges: list[Any]) -> None:
    """The queue ``manual``: FKS's own close of aa (its entry was placed by hand) and an operator's
    order that closes bb."""
    _, a, b = two
    manual = StrategyFactory.create(slug="manual", max_age=60)
    for account in (a, b):
        PositionFactory.create(account=account)
    operator = send(manual, "sell", auth="operator", account="bb", reduce_only=True)
    own = send(manual, "close", auth="own", account="aa")
    process(operator)
    process(own)
    assert (held(a), held(b)) == (0, 0)


def test_an_own_close_of_an_account_without_route_is_not_made_void(
    two: Any, nudges: list[Any]
) -> None:
    strategy, a, b = two
    Route.objects.filter(account=b).update(is_enabled=False)
    for account in (a, b):
        PositionFactory.create(account=account)
    own = send(strategy, "close", auth="own", account="bb")
    close = send(strategy, "close")
    process(own)
    process(close)
    assert (held(a), held(b)) == (0, 0)


def test_entry_for_all_accounts_is_not_made_void_by_an_own_close_of_one(
    two: Any, nudges: list[Any]
) -> None:
    strategy, a, b = two
    PositionFactory.create(account=a)
    entry = send(strategy, "buy", quantity="0.02")
    own = send(strategy, "close", auth="own", account="aa")
    process(entry)
    process(own)
    entry.refresh_from_db()
    assert held(b) == Decimal("0.02")


def test_a_cancel_is_not_made_void_by_a_close_that_is_then_denied(
    two: Any, nudges: list[Any]
) -> None:
    """Halted: cancels pass, closes do not. The cancel is there first and its order rests."""
    strategy, a, _b = two
    resting = OrderFactory.create(
        account=a, state=S.OPEN, broker_order_id="V1", type="limit", price="50000"
    )
    script_of(a).reports[resting.identity] = report_of(resting, VenueStatus.OPEN)
    switch.change(TradingState.State.HALTED, reason="test")
    cancel = send(strategy, "cancel")
    close = send(strategy, "close")
    for _ in range(3):
        process(cancel)
        process(close)
        for name, args in list(nudges):
            if name == "cancel_order":
                tasks.cancel_order(*args)
    cancel.refresh_from_db()
    close.refresh_from_db()
    resting.refresh_from_db()
    assert resting.state == S.CANCELED


def test_without_the_close_the_cancel_does_its_work_while_halted(
    two: Any, nudges: list[Any]
) -> None:
    strategy, a, _b = two
    resting = OrderFactory.create(
        account=a, state=S.OPEN, broker_order_id="V1", type="limit", price="50000"
    )
    script_of(a).reports[resting.identity] = report_of(resting, VenueStatus.OPEN)
    switch.change(TradingState.State.HALTED, reason="test")
    cancel = send(strategy, "cancel")
    for _ in range(3):
        process(cancel)
        for name, args in list(nudges):
            if name == "cancel_order":
                tasks.cancel_order(*args)
    resting.refresh_from_db()
    assert resting.state == S.CANCELED


# --- stored late ----------------------------------------------------------------------------------


def late(signal_id: UUID, strategy: Strategy, action: str, **alert: Any) -> Signal:
    """One that came with ``signal_id`` and is seen only now: its process waited for the database."""
    body = {"symbol": LANE, "action": action} | alert
    return SignalFactory.create(id=signal_id, strategy=strategy, action=action, alert=body)


@pytest.mark.parametrize(
    ("ending", "entry"),
    [
        ({"action": "close"}, {}),
        ({"action": "sell", "market_position": "flat"}, {}),
        ({"action": "cancel"}, {}),
        ({"action": "cancel"}, {"order_type": "limit", "price": "50000"}),
    ],
)
def test_an_entry_stored_late_opens_nothing_after_what_ended_it(
    two: Any, ending: dict[str, str], entry: dict[str, str]
) -> None:
    strategy, a, b = two
    first = uuid7()
    closing = process(send(strategy, **ending))
    assert closing.state == SignalState.IGNORED
    signal = process(late(first, strategy, "buy", quantity="0.01", **entry))
    assert (signal.state, signal.reason) == (SignalState.IGNORED, "CANCELED_BY_SIGNAL")
    assert str(closing.pk) in signal.detail
    assert script_of(a).sent == script_of(b).sent == []


def test_a_sale_stored_late_opens_no_short_after_the_close_it_came_before(two: Any) -> None:
    strategy, a, b = two
    for account in (a, b):
        script_of(account).capabilities = SHORTS
    process(send(strategy, "buy", quantity="0.01"))
    first = uuid7()
    process(send(strategy, "close"))
    signal = process(late(first, strategy, "sell", quantity="0.01"))
    assert (signal.state, held(a), held(b)) == (SignalState.IGNORED, 0, 0)


def test_an_exit_stored_late_is_not_lost_to_a_cancel(two: Any) -> None:
    strategy, a, b = two
    process(send(strategy, "buy", quantity="0.01"))
    first = uuid7()
    process(send(strategy, "cancel"))
    signal = process(late(first, strategy, "sell", quantity="0.01"))
    assert (signal.state, held(a), held(b)) == (SignalState.EXECUTED, 0, 0)


@pytest.mark.parametrize("ending", ["close", "cancel"])
def test_of_another_queue_or_denied_it_ends_nothing(two: Any, ending: str) -> None:
    strategy, a, _ = two
    other = RouteFactory.create(account=a).strategy
    first = uuid7()
    process(send(other, ending))
    elsewhere = {"symbol": "ETH/USDT", "action": ending}
    process(
        SignalFactory.create(strategy=strategy, symbol="ETH/USDT", action=ending, alert=elsewhere)
    )
    denied = send(strategy, ending)
    Signal.objects.filter(pk=denied.pk).update(state=SignalState.DENIED)
    assert process(late(first, strategy, "buy", quantity="0.01")).state == SignalState.EXECUTED


def test_after_the_clock_was_set_back_new_entries_are_not_taken_for_late_ones(two: Any) -> None:
    strategy, a, _ = two
    first = uuid7()
    closing = process(send(strategy, "close"))
    ahead = timezone.now() + timedelta(hours=1)
    Signal.objects.filter(pk=closing.pk).update(received_at=ahead)
    assert process(late(first, strategy, "buy", quantity="0.01")).state == SignalState.EXECUTED
    assert held(a) == Decimal("0.01")
