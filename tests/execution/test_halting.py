"""What the kill switch cancels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, Outcome, VenueStatus
from execution import halting
from execution.models import Order
from execution.states import OrderState
from risk.models import TradingState
from tests.brokers.scripted import report_of, script_of, trade
from tests.factories import OrderFactory, StrategyFactory

pytestmark = pytest.mark.django_db
S, Scope = OrderState, TradingState.Scope
Accounts = Callable[..., Account]


def resting(account: Account, **columns: object) -> Order:
    order = OrderFactory.create(account=account, state=S.OPEN, broker_order_id="V1", **columns)
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.OPEN)
    return order


def states(*orders: Order) -> list[str]:
    for order in orders:
        order.refresh_from_db()
    return [order.state for order in orders]


def test_everything_that_works_is_canceled_and_read_back(scripted: Accounts) -> None:
    orders = [resting(scripted()), resting(scripted()), OrderFactory.create(account=scripted())]
    done = OrderFactory.create(state=S.FILLED)
    assert halting.cancel_all(Scope.GLOBAL, "") == []
    assert states(*orders, done) == [S.CANCELED] * 3 + [S.FILLED]
    assert {order.reason for order in orders} == {"CANCELED_BY_OPERATOR"}
    assert {order.detail for order in orders} == {"cancelled by the kill switch"}


def test_a_scope_spares_the_rest(scripted: Accounts) -> None:
    strategy = StrategyFactory.create()
    mine, other = scripted(), scripted()
    orders = [resting(mine), resting(other), resting(other, strategy=strategy)]
    halting.cancel_all(Scope.ACCOUNT, mine.name)
    assert states(*orders) == [S.CANCELED, S.OPEN, S.OPEN]
    halting.cancel_all(Scope.STRATEGY, strategy.slug)
    assert states(*orders) == [S.CANCELED, S.OPEN, S.CANCELED]


def test_stop_losses_stay(scripted: Accounts) -> None:
    stop = resting(scripted(), role=Order.Role.STOP_LOSS, side="sell", type="stop")
    assert halting.cancel_all(Scope.GLOBAL, "") == []
    assert states(stop) == [S.OPEN]


def test_what_is_left_is_named(scripted: Accounts) -> None:
    silent, stubborn, unknown = scripted(), scripted(), scripted()
    left = [
        resting(silent),
        resting(stubborn),
        OrderFactory.create(account=unknown, state=S.UNKNOWN),
    ]
    script_of(silent).failure = QueryFailedError("timeout")
    script_of(stubborn).cancel_results.append(CancelResult(Outcome.UNKNOWN))
    gone = resting(scripted())
    assert halting.cancel_all(Scope.GLOBAL, "") == left
    assert states(*left, gone) == [S.CANCELING, S.CANCELING, S.UNKNOWN, S.CANCELED]


def test_an_order_that_fills_while_it_is_canceled_is_filled(scripted: Accounts) -> None:
    account = scripted()
    order = resting(account)
    script_of(account).cancel_results.append(CancelResult(Outcome.REJECTED))
    script_of(account).reports[order.identity] = report_of(order, VenueStatus.FILLED, trade("1"))
    assert halting.cancel_all(Scope.GLOBAL, "") == []
    assert states(order) == [S.FILLED]
