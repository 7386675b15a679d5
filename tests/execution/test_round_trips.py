"""How often one alert asks the database on its way to a filled order: what an order costs a worker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from brokers.models import Account
from execution import tasks
from execution.models import Order
from execution.states import OrderState
from tests.factories import RouteFactory, SignalFactory, allow_trading

ROUND_TRIPS = 52


@pytest.mark.django_db(transaction=True)
def test_from_a_stored_alert_to_its_fill(
    scripted: Callable[..., Account], nudges: list[object]
) -> None:
    allow_trading(daily_loss="100000")
    strategy = RouteFactory.create(account=scripted()).strategy
    tasks.process_signal(str(SignalFactory.create(strategy=strategy).pk))
    signal = SignalFactory.create(strategy=strategy)

    with CaptureQueriesContext(connection) as asked:
        tasks.process_signal(str(signal.pk))

    assert Order.objects.get(signal=signal).state == OrderState.FILLED
    assert len(asked) == ROUND_TRIPS
    assert sum(query["sql"] == "COMMIT" for query in asked.captured_queries) == 3
