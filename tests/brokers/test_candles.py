"""Candles as ccxt tells them, numbers as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import ccxt
import pytest
import time_machine

from brokers.errors import QueryFailedError
from brokers.exchanges import ExchangeProfile
from brokers.plugins.ccxt import _candle
from brokers.types import Candle
from tests.brokers.contract import CCXT_VENUES, SYMBOLS, ccxt_plugin
from tests.brokers.test_wire import BY_REQUESTS, asked, plugin_of, symbol_of
from tests.venues.client import RunningVenue

__all__ = ["asked"]


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


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_the_hours_of_a_venue(venue: RunningVenue, exchange: str) -> None:
    found = ccxt_plugin(exchange, venue.base_url).candles(SYMBOLS[exchange], 16)
    assert len(found) == 16
    starts = [one.at for one in found]
    hour = timedelta(hours=1)
    assert all(later - earlier == hour for earlier, later in pairwise(starts))
    assert all(one.low <= one.close <= one.high for one in found)


@pytest.mark.parametrize(("exchange", "tick"), [("bybit", "0.01"), ("bybit-linear", "0.1")])
def test_bybits_columns_are_told_apart(venue: RunningVenue, exchange: str, tick: str) -> None:
    last, step = Decimal(60000), Decimal(tick)
    for one in ccxt_plugin(exchange, venue.base_url).candles(SYMBOLS[exchange], 3):
        assert (one.high, one.low, one.close) == (last + step, last - step, last)


ANSWERS = {
    "Coinbase spot": '{"candles": [{"start": "1767225600", "low": "9.5", "high": "12.5", "open": "11",'
    ' "close": "10.000000000001", "volume": "7"}]}',
    "KuCoin spot": '{"code": "200000", "data": [["1767225600", "11", "10.000000000001", "12.5", "9.5",'
    ' "7", "70"]]}',
    "Gate spot": '[["1767225600", "70", "10.000000000001", "12.5", "9.5", "11", "7", "true"]]',
    "Bitget spot": '{"code": "00000", "msg": "success", "data": [["1767225600000", "11", "12.5", "9.5",'
    ' "10.000000000001", "7", "70", "70"]]}',
    "Bitget linear swap": '{"code": "00000", "msg": "success", "data": [["1767225600000", "11", "12.5",'
    ' "9.5", "10.000000000001", "7", "70"]]}',
    "Kraken Futures swap": '{"candles": [{"time": 1767225600000, "open": "11", "high": "12.5",'
    ' "low": "9.5", "close": "10.000000000001", "volume": "7"}], "more_candles": false}',
    "Binance USD-M swap": '[[1767225600000, "11", "12.5", "9.5", "10.000000000001", "7",'
    ' 1767229199999, "70", 3, "1", "10", "0"]]',
    "HTX spot": '{"ch": "market.btcusdt.kline.60min", "status": "ok", "ts": 1767229000000, "data":'
    ' [{"id": 1767225600, "open": 11, "close": 10.000000000001, "low": 9.5, "high": 12.5, "amount": 7,'
    ' "vol": 70, "count": 3}]}',
    "Hyperliquid swap": '[{"t": 1767225600000, "T": 1767229199999, "s": "BTC", "i": "1h", "o": "11",'
    ' "c": "10.000000000001", "h": "12.5", "l": "9.5", "v": "7", "n": 3}]',
}
"""One hour as each exchange's documentation has it: opened at 11, closed at 10.000000000001."""


def test_every_exchange_of_tier_2_has_an_answer_here() -> None:
    assert set(ANSWERS) == {one.label for one in BY_REQUESTS}


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("profile", BY_REQUESTS, ids=lambda p: p.label)
def test_the_hours_of_tier_2_are_read_exactly(
    monkeypatch: pytest.MonkeyPatch, profile: ExchangeProfile
) -> None:
    answer = json.loads(ANSWERS[profile.label], parse_float=str, parse_int=str)
    plugin = plugin_of(profile)
    monkeypatch.setattr(ccxt.Exchange, "fetch", lambda *_args, **_kwargs: answer)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    expected = Candle(at, Decimal("12.5"), Decimal("9.5"), Decimal("10.000000000001"))
    with time_machine.travel(at + timedelta(minutes=90), tick=False):
        assert plugin.candles(symbol_of(profile), 16) == [expected]
