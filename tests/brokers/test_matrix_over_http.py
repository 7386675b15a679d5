"""The rows of tier 2 over HTTP, symbol list and all, at a place that answers little; those of tier 1
have venues of their own in ``tests/venues/``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from brokers import client_pool
from brokers.errors import BrokerError, QueryFailedError
from brokers.exchanges import PROFILES, ExchangeProfile
from brokers.markets import MarketCache
from brokers.plugins.ccxt import CcxtPlugin
from brokers.transport import Gate, RequestRefusedError
from brokers.types import AccountConfig, Environment
from tests.brokers.test_symbol_lists import RAW
from tests.brokers.test_wire import (
    BY_REQUESTS,
    EMPTY,
    QUESTIONS,
    plugin_of,
    secret_of,
    symbol_of,
)

LISTS: dict[str, Any] = {path: answer for _, raw in RAW.values() for path, answer in raw.items()}
LISTS |= {
    "/api/v2/spot/public/symbols": {
        "code": "00000",
        "data": [
            {
                "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT",
                "minTradeAmount": "0", "maxTradeAmount": "900000000", "takerFeeRate": "0.002",
                "makerFeeRate": "0.002", "pricePrecision": "2", "quantityPrecision": "6",
                "quotePrecision": "8", "status": "online", "minTradeUSDT": "1",
                "buyLimitPriceRatio": "0.05", "sellLimitPriceRatio": "0.05",
            }
        ],
    },
    "/api/v2/margin/currencies": {
        "code": "00000",
        "data": [{"symbol": "BTCUSDT", "isBorrowable": True, "isCrossBorrowable": True}],
    },
    "/api/v3/brokerage/market/products": {
        "products": [
            {
                "product_id": "BTC-USDT", "product_type": "SPOT", "status": "online",
                "base_currency_id": "BTC", "quote_currency_id": "USDT", "price": "60000",
                "base_increment": "0.00000001", "quote_increment": "0.01",
                "price_increment": "0.01", "base_min_size": "0.00000001", "base_max_size": "3400",
                "quote_min_size": "1", "quote_max_size": "150000000", "trading_disabled": False,
            }
        ]
    },
    "/api/v3/brokerage/market/products?product_type=FUTURE": {"products": []},
    "/v1/common/symbols": {
        "status": "ok",
        "data": [
            {
                "base-currency": "btc", "quote-currency": "usdt", "price-precision": 2,
                "amount-precision": 6, "symbol-partition": "main", "symbol": "btcusdt",
                "state": "online", "value-precision": 8, "min-order-amt": 0.000001,
                "max-order-amt": 1000, "min-order-value": 10, "api-trading": "enabled", "tags": "",
            }
        ],
    },
    "/info": [
        {"universe": [{"maxLeverage": 50, "name": "BTC", "onlyIsolated": False, "szDecimals": 5}]},
        [{"dayNtlVlm": "1", "funding": "0", "markPx": "60000", "midPx": "60000", "oraclePx": "1"}],
    ],
}  # fmt: skip
"""Symbol lists in the form the exchanges document, by the path they are asked for at."""


class Place:
    """A server on loopback: what it answers by path, and what it was asked. What it does not know it
    has an error for, as a gateway has that does not pass a path on.
    """

    def __init__(self) -> None:
        self.answers = EMPTY | LISTS
        self.asked: list[str] = []
        place = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                place.asked.append(f"{self.command} {path}")
                answer = place.answers.get(self.path, place.answers.get(path))
                status, body = (
                    (404, b"{}") if answer is None else (200, json.dumps(answer).encode())
                )
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(client_pool, "MARKETS", MarketCache())
    place = Place()
    thread = threading.Thread(target=place.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield place
    place.server.shutdown()
    place.server.server_close()
    thread.join()


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What our own gate does not let out."""
    noted: list[str] = []
    inspect = Gate.inspect

    def watched(self: Gate, url: str, method: str, body: str | None) -> None:
        try:
            inspect(self, url, method, body)
        except RequestRefusedError as refusal:
            noted.append(str(refusal))
            raise

    monkeypatch.setattr(Gate, "inspect", watched)
    return noted


def plugin_at(place: Place, profile: ExchangeProfile) -> CcxtPlugin:
    plugin = CcxtPlugin()
    where = {"exchange": profile.id, "market_type": profile.market_type, "base_url": place.url}
    secrets = dict.fromkeys(profile.keys, "0x" + "1" * 40) | {"api_secret": secret_of(profile)}
    plugin.init(AccountConfig("1", "t", Environment.LIVE, where, secrets))
    return plugin


@pytest.mark.parametrize("profile", BY_REQUESTS, ids=lambda p: p.label)
def test_an_account_reads_its_symbol_list(
    place: Place, refusals: list[str], profile: ExchangeProfile
) -> None:
    plugin, symbol = plugin_at(place, profile), symbol_of(profile)
    assert plugin.instrument(symbol).symbol == symbol
    assert refusals == []
    plugin.close()


@pytest.mark.parametrize("profile", BY_REQUESTS, ids=lambda p: p.label)
def test_no_question_is_kept_in_by_our_own_gate(
    place: Place, refusals: list[str], profile: ExchangeProfile
) -> None:
    plugin = plugin_of(profile, base_url=place.url)
    for question in QUESTIONS.values():
        try:
            question(plugin, symbol_of(profile))
        except BrokerError:
            continue
    plugin.health_check()
    assert refusals == []
    plugin.close()


@pytest.mark.parametrize(
    ("exchange", "path"),
    [
        ("gate", "/api/v4/margin/currency_pairs"),
        ("kucoin", "/api/v1/market/allTickers"),
        ("bitget", "/api/v2/margin/currencies"),
    ],
)
def test_a_list_loads_without_what_nobody_reads_of_it(
    place: Place, exchange: str, path: str
) -> None:
    del place.answers[path]
    plugin = plugin_at(place, PROFILES[exchange, "spot"])
    assert plugin.instrument("BTC/USDT").symbol == "BTC/USDT"
    assert f"GET {path}" in place.asked
    plugin.close()


POSITION = {
    "symbol": "BTCUSDT", "positionSide": "BOTH", "positionAmt": "-0.002",
    "entryPrice": "60000.0", "breakEvenPrice": "60000.0", "markPrice": "61000.0",
    "unRealizedProfit": "-2", "liquidationPrice": "0", "isolatedMargin": "0", "notional": "-122",
    "marginAsset": "USDT", "isolatedWallet": "0", "initialMargin": "12.2", "maintMargin": "0.5",
    "positionInitialMargin": "12.2", "openOrderInitialMargin": "0", "adl": "2",
    "bidNotional": "0", "askNotional": "0", "updateTime": 1722062678998,
}  # fmt: skip


def test_positions_are_asked_for_alone(place: Place) -> None:
    place.answers["/fapi/v3/positionRisk"] = [POSITION]
    plugin = plugin_at(place, PROFILES["binanceusdm", "swap"])
    (held,) = plugin.positions()
    assert (held.symbol, str(held.quantity), str(held.average_price)) == (
        "BTC/USDT:USDT",
        "-0.002",
        "60000",
    )
    assert place.asked == ["GET /fapi/v1/exchangeInfo", "GET /fapi/v3/positionRisk"]
    plugin.close()


def test_a_failed_question_is_named_without_what_it_carried(place: Place) -> None:
    plugin = plugin_at(place, PROFILES["binanceusdm", "swap"])
    with pytest.raises(QueryFailedError) as failed:
        plugin.positions()
    assert str(failed.value) == (
        "Binance USD-M swap: HTTP 404 to GET /fapi/v3/positionRisk (ExchangeNotAvailable)"
    )
    place.answers["/fapi/v3/positionRisk"] = {"code": -5000, "msg": "Path is invalid."}
    with pytest.raises(QueryFailedError) as refused:
        plugin.positions()
    assert str(refused.value) == (
        "the venue answered GET /fapi/v3/positionRisk with -5000 Path is invalid."
    )
    plugin.close()


def test_our_own_refusal_is_not_told_as_the_venues(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = PROFILES["binanceusdm", "swap"]
    monkeypatch.setattr(type(profile), "reads", lambda *_: False)
    plugin = plugin_at(place, profile)
    with pytest.raises(QueryFailedError) as refused:
        plugin.instrument("BTC/USDT:USDT")
    assert str(refused.value) == (
        "FKS refused its own question to Binance USD-M swap: "
        "GET /fapi/v1/exchangeInfo was not announced"
    )
    assert refused.value.code == "INTERNAL_ERROR"
    assert place.asked == []
    plugin.close()
