"""Orders of Binance USD-M that are so old that it tells no more of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.errors import NotShownError, QueryFailedError
from brokers.types import OrderRef, OrderRequest, OrderType, Outcome, Side, VenueStatus
from tests.brokers.test_unified_stops import (
    NOW,
    TRADE,
    UNKNOWN,
    USDM,
    Answer,
    Venue,
    algo,
    child,
    usdm,
)
from tests.brokers.test_wire import IDENTITY, asked, symbol_of

__all__ = ["asked", "usdm"]

pytestmark = pytest.mark.usefixtures("asked")
D = Decimal


def sent(broker_order_id: str, age: timedelta, **changes: Any) -> OrderRef:
    request = OrderRequest(
        IDENTITY, symbol_of(USDM), Side.SELL, OrderType.STOP, D("0.002"), stop_price=D(55000)
    )
    at = datetime.now(UTC) - age
    return replace(OrderRef(IDENTITY, request.symbol, broker_order_id, at, request), **changes)


OLD = timedelta(days=4)
NONE_OPEN: dict[str, Answer] = {
    "GET /fapi/v1/openOrders": [],
    "GET /fapi/v1/openAlgoOrders": [],
}


@pytest.mark.parametrize("known", ["stop-2146760", "974828356187"], ids=["a stop", "a limit"])
def test_an_old_order_the_venue_has_forgotten_ended_without_a_trade(
    usdm: Venue, known: str
) -> None:
    """Binance tells no more of one that was cancelled or expired unfilled, three days after it came."""
    usdm.answers |= NONE_OPEN
    usdm.answers["GET /fapi/v1/userTrades"] = []
    found = usdm.plugin.fetch_order(sent(known, OLD))
    assert found is not None
    assert (found.broker_order_id, found.client_order_id) == (known, IDENTITY)
    assert (found.status, found.side, found.quantity) == (
        VenueStatus.CANCELED,
        Side.SELL,
        D("0.002"),
    )
    assert (found.filled_quantity, found.fills) == (D(0), ())
    usdm.answers["DELETE /fapi/v1/order"] = UNKNOWN
    assert usdm.plugin.cancel_order(sent(known, OLD)).outcome is Outcome.REJECTED


@pytest.mark.parametrize("age", [timedelta(days=2, hours=23), timedelta(days=90)], ids=str)
def test_a_younger_one_has_vanished_and_of_an_older_one_nothing_is_known(
    usdm: Venue, age: timedelta
) -> None:
    usdm.answers |= NONE_OPEN
    assert usdm.plugin.fetch_order(sent("974828356187", age)) is None
    with pytest.raises(NotShownError, match="left its list"):
        usdm.plugin.fetch_order(sent("stop-2146760", age))


@pytest.mark.parametrize(
    "changes",
    [{"request": None}, {"submitted_at": None}],
    ids=["not sent by us", "of unknown age"],
)
def test_only_of_an_order_of_ours_with_an_age_is_that_said(
    usdm: Venue, changes: dict[str, Any]
) -> None:
    usdm.answers |= NONE_OPEN
    assert usdm.plugin.fetch_order(sent("974828356187", OLD, **changes)) is None


def test_an_old_order_of_unknown_fate_is_absent_and_not_cancelled(usdm: Venue) -> None:
    assert usdm.plugin.fetch_order(sent("", OLD)) is None


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ("stop-2146760", {"GET /fapi/v1/openAlgoOrders": [algo("NEW")]}),
        ("974828356187", {"GET /fapi/v1/openOrders": [child("NEW")]}),
        ("974828356187", {"GET /fapi/v1/userTrades": lambda fields: [TRADE | {"time": NOW}]}),
    ],
    ids=["a stop at work", "an order at work", "its trade"],
)
def test_a_forgotten_order_that_is_shown_elsewhere_is_not_ended(
    usdm: Venue, known: str, shown: dict[str, Answer]
) -> None:
    usdm.answers |= NONE_OPEN
    usdm.answers["GET /fapi/v1/userTrades"] = []
    usdm.answers |= shown
    with pytest.raises(NotShownError, match="shows it all the same"):
        usdm.plugin.fetch_order(sent(known, OLD))


@pytest.mark.parametrize("silent", ["GET /fapi/v1/algoOrder", "GET /fapi/v1/openAlgoOrders"])
def test_a_forgotten_stop_is_not_ended_by_half_an_answer(usdm: Venue, silent: str) -> None:
    usdm.answers |= NONE_OPEN
    usdm.answers[silent] = {"code": -1001, "msg": "Internal error; unable to process your request."}
    with pytest.raises(QueryFailedError):
        usdm.plugin.fetch_order(sent("stop-2146760", OLD))
