"""A cancel that was asked for happens, wherever the worker that took it dies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from brokers.models import Account
from brokers.types import VenueStatus
from execution import periodic_tasks, pipeline, tasks
from execution.models import Order, Signal, Strategy
from execution.pipeline import Step
from execution.states import OrderState, SignalState
from tests.brokers.scripted import report_of, script_of
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db
LANE = "BTC/USDT"


@pytest.fixture
def account(scripted: Callable[..., Account]) -> Account:
    allow_trading()
    return scripted()


@pytest.fixture
def strategy(account: Account) -> Strategy:
    return RouteFactory.create(account=account).strategy


def cancel_by(strategy: Strategy) -> Signal:
    alert = {"symbol": LANE, "action": "cancel"}
    return SignalFactory.create(strategy=strategy, action="cancel", alert=alert)


@pytest.mark.parametrize("state", [OrderState.PENDING, OrderState.OPEN])
def test_a_cancel_is_not_done_before_it_is_on_the_orders_row(
    account: Account, strategy: Strategy, eager: None, state: OrderState
) -> None:
    order = OrderFactory.create(account=account, state=state, broker_order_id="V1")
    cancel = cancel_by(strategy)
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.OPEN)
    decision = pipeline.decide(cancel)
    assert (decision.step, decision.cancels) == (Step.WAIT, (order.pk,))
    cancel.refresh_from_db()
    assert cancel.state == SignalState.RECEIVED
    # the worker dies here; the sweep hands the signal to another
    tasks.process_signal(str(cancel.pk))
    for row in (order, cancel):
        row.refresh_from_db()
    assert (order.state, cancel.state) == (OrderState.CANCELED, SignalState.EXECUTED)


def turns_up(order: Order) -> Order:
    """The venue says at last that ``order`` rests in its book."""
    script_of(order.account).reports[order.identity] = report_of(order, VenueStatus.OPEN)
    tasks.check_order(str(order.pk))
    periodic_tasks.sweep()
    order.refresh_from_db()
    return order


def lost(account: Account, **columns: object) -> Order:
    return OrderFactory.create(account=account, type="limit", price="50000", **columns)


def test_an_entry_a_close_could_not_find_is_canceled_when_it_turns_up(
    account: Account, strategy: Strategy, eager: None
) -> None:
    PositionFactory.create(account=account)
    entry = lost(account, state=OrderState.NEEDS_OPERATOR)
    alert = {"symbol": LANE, "action": "close"}
    close = SignalFactory.create(strategy=strategy, action="close", alert=alert)
    tasks.process_signal(str(close.pk))
    close.refresh_from_db()
    assert close.state == SignalState.EXECUTED
    assert turns_up(entry).state == OrderState.CANCELED


def test_an_order_a_cancel_could_not_find_is_canceled_when_it_turns_up(
    account: Account, strategy: Strategy, eager: None
) -> None:
    entry = lost(account, state=OrderState.UNKNOWN)
    cancel = cancel_by(strategy)
    tasks.process_signal(str(cancel.pk))
    cancel.refresh_from_db()
    assert cancel.state == SignalState.RECEIVED
    Order.objects.filter(pk=entry.pk).update(state=OrderState.NEEDS_OPERATOR)
    tasks.process_signal(str(cancel.pk))
    cancel.refresh_from_db()
    assert cancel.state == SignalState.EXECUTED
    assert turns_up(entry).state == OrderState.CANCELED


def test_a_canceled_entry_of_unknown_fate_is_not_sent_again(
    account: Account, strategy: Strategy, eager: None
) -> None:
    """Proven absent while still fresh, it would go back into its lane."""
    now = timezone.now()
    fresh = {"submitted_at": now, "settle_at": now, "expires_at": now + timedelta(minutes=5)}
    entry = lost(account, state=OrderState.UNKNOWN, looks=1, **fresh)
    cancel = cancel_by(strategy)
    tasks.process_signal(str(cancel.pk))
    tasks.check_order(str(entry.pk))
    entry.refresh_from_db()
    assert (entry.state, script_of(account).sent) == (OrderState.NOT_PLACED, [])
