"""Deciding signals: facts, size, risk, rows."""

from __future__ import annotations

from decimal import Decimal

import pytest

from execution import pipeline
from execution.models import Order
from execution.states import OrderState, SignalState
from tests.factories import RouteFactory, SignalFactory, allow_trading

pytestmark = pytest.mark.django_db


def test_a_buy_becomes_one_pending_order_with_its_arithmetic() -> None:
    allow_trading()
    route = RouteFactory.create()
    signal = SignalFactory.create(strategy=route.strategy)

    decision = pipeline.decide(signal)

    order = Order.objects.get(signal=signal)
    assert decision.lanes == ((route.account.pk, "BTC/USDT"),)
    assert (order.state, order.side, order.quantity) == (OrderState.PENDING, "buy", Decimal("0.01"))
    assert order.client_order_id == order.id.hex
    signal.refresh_from_db()
    assert signal.state == SignalState.WORKING
