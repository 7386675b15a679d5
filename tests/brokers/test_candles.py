"""Candles as ccxt tells them, numbers as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from brokers.errors import QueryFailedError
from brokers.plugins.ccxt import _candle
from brokers.types import Candle
from tests.brokers.contract import SYMBOLS, ccxt_plugin
from tests.venues.client import RunningVenue


def test_a_candle_is_read_exactly() -> None:
    row = [1767225600000, "1", "61000.10", "59999.9", "60000.000000000001", "7"]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    expected = Candle(at, Decimal("61000.10"), Decimal("59999.9"), Decimal("60000.000000000001"))
    assert _candle(row) == expected


@pytest.mark.parametrize(
    "row", [[], [1767225600000, "1", "2"], ["soon", "1", "1", "1", "1"], [0, "1", None, "1", "1"]]
)
def test_what_is_no_candle_is_no_answer(row: list[Any]) -> None:
    with pytest.raises(QueryFailedError):
        _candle(row)


@pytest.mark.parametrize("exchange", ["binance", "kraken", "okx", "okx-swap"])
def test_the_hours_of_a_venue(venue: RunningVenue, exchange: str) -> None:
    found = ccxt_plugin(exchange, venue.base_url).candles(SYMBOLS[exchange], 16)
    assert len(found) == 16
    starts = [one.at for one in found]
    hour = timedelta(hours=1)
    assert all(later - earlier == hour for earlier, later in pairwise(starts))
    assert all(one.low <= one.close <= one.high for one in found)
