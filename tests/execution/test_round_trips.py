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
from risk import limits
from tests.factories import RouteFactory, SignalFactory, allow_trading

ROUND_TRIPS = 52
UNDER_USUAL_LIMITS = 62


@pytest.mark.django_db(transaction=True)
def test_from_a_stored_alert_to_its_fill(
    scripted: Callable[..., Account], nudges: list[object]
) -> None:
    allow_trading(daily_loss="100000")
    assert asked_for_an_order_on(scripted()) == ROUND_TRIPS


@pytest.mark.django_db(transaction=True)
def test_under_the_limits_an_installation_begins_with(
    scripted: Callable[..., Account], nudges: list[object]
) -> None:
    limits.first_limits({})
    allow_trading()
    assert asked_for_an_order_on(scripted()) == UNDER_USUAL_LIMITS


def asked_for_an_order_on(account: Account) -> int:
    """Of the second order of a strategy: the first makes rows that are there from then on."""
    strategy = RouteFactory.create(account=account).strategy
    tasks.process_signal(str(SignalFactory.create(strategy=strategy).pk))
    signal = SignalFactory.create(strategy=strategy)

    with CaptureQueriesContext(connection) as asked:
        tasks.process_signal(str(signal.pk))

    assert Order.objects.get(signal=signal).state == OrderState.FILLED
    assert sum(query["sql"] == "COMMIT" for query in asked.captured_queries) == 3
    return len(asked)
