"""A cancel that was asked for happens, wherever the worker that took it dies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers.models import Account
from brokers.types import VenueStatus
from execution import pipeline, tasks
from execution.models import Signal
from execution.pipeline import Step
from execution.states import OrderState, SignalState
from tests.brokers.scripted import report_of, script_of
from tests.factories import OrderFactory, RouteFactory, SignalFactory, allow_trading

pytestmark = pytest.mark.django_db
LANE = "BTC/USDT"


@pytest.fixture
def account(scripted: Callable[..., Account]) -> Account:
    allow_trading()
    return scripted()


@pytest.fixture
def cancel(account: Account) -> Signal:
    strategy = RouteFactory.create(account=account).strategy
    alert = {"symbol": LANE, "action": "cancel"}
    return SignalFactory.create(strategy=strategy, action="cancel", alert=alert)


@pytest.mark.parametrize("state", [OrderState.PENDING, OrderState.OPEN])
def test_a_cancel_is_not_done_before_it_is_on_the_orders_row(
    account: Account, cancel: Signal, eager: None, state: OrderState
) -> None:
    order = OrderFactory.create(account=account, state=state, broker_order_id="V1")
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
