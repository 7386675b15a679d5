"""Candles as ccxt tells them, numbers as text."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from brokers.errors import QueryFailedError
from brokers.plugins.ccxt import _candle
from brokers.types import Candle


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
