"""What somebody else holds in contracts FKS does not trade: shown, and no end of all comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from brokers import client_pool
from brokers.errors import NotShownError, QueryFailedError
from brokers.exchanges import PROFILES
from brokers.plugins.ccxt import CcxtPlugin
from brokers.symbol_lists import SymbolList
from brokers.venue_client import VenueClient
from tests.brokers.test_matrix_over_http import POSITION
from tests.brokers.test_unified_lookups import answering
from tests.brokers.test_unified_stops import algo
from tests.brokers.test_wire import asked, market_of

__all__ = ["asked"]

pytestmark = pytest.mark.usefixtures("asked")
D = Decimal
DATED: Mapping[str, Any] = {"type": "future", "swap": False, "future": True}
INVERSE: Mapping[str, Any] = {
    "symbol": "BTC/USD:BTC", "quote": "USD", "quoteId": "USD", "settle": "BTC", "settleId": "BTC",
    "linear": False, "inverse": True, "contractSize": 100.0,
}  # fmt: skip


def plugin(
    monkeypatch: pytest.MonkeyPatch,
    exchange: str,
    answers: Mapping[str, Any],
    *listed: Mapping[str, Any],
) -> CcxtPlugin:
    """An account whose venue lists these contracts as well, and answers so by the path."""

    def load(client: VenueClient, facts: frozenset[str] | None) -> SymbolList:
        known = market_of(client.ccxt, client.profile)
        client.ccxt.set_markets([known, *(known | one for one in listed)])
        return SymbolList.of(client.ccxt, facts)

    monkeypatch.setattr(client_pool, "load_markets", load)
    return answering(monkeypatch, PROFILES[exchange, "swap"], answers)


def held(plugin: CcxtPlugin) -> list[tuple[str, Decimal]]:
    return [(one.symbol, one.quantity) for one in plugin.positions()]


def working(plugin: CcxtPlugin) -> list[tuple[str, str, Decimal]]:
    return [(one.broker_order_id, one.symbol, one.quantity) for one in plugin.open_orders()]


# --- Binance USD-M: dated and delisted contracts ---------------------------------------------------

QUARTERLY = DATED | {"id": "BTCUSDT_261225", "symbol": "BTC/USDT:USDT-261225"}


def usdm_order(order_id: int, symbol: str) -> dict[str, Any]:
    return {
        "orderId": order_id, "clientOrderId": "web_1", "symbol": symbol, "status": "NEW",
        "price": "50000", "avgPrice": "0", "origQty": "0.5", "executedQty": "0", "cumQuote": "0",
        "timeInForce": "GTC", "type": "LIMIT", "reduceOnly": False, "closePosition": False,
        "side": "BUY", "positionSide": "BOTH", "stopPrice": "0", "workingType": "CONTRACT_PRICE",
        "priceProtect": False, "origType": "LIMIT", "time": 1722062678998,
        "updateTime": 1722062678998,
    }  # fmt: skip


def test_binance_contracts_fks_does_not_trade_are_shown_by_their_own_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"positionAmt": "0.5", "notional": "30000"}
    answers = {
        "/fapi/v3/positionRisk": [
            POSITION,
            POSITION | there | {"symbol": "BTCUSDT_261225"},
            POSITION | there | {"symbol": "LUNAUSDT"},
        ],
        "/fapi/v1/openOrders": [
            usdm_order(1, "BTCUSDT"),
            usdm_order(2, "BTCUSDT_261225"),
            usdm_order(3, "LUNAUSDT"),
        ],
        "/fapi/v1/openAlgoOrders": [algo("NEW", symbol="BTCUSDT_261225")],
    }
    account = plugin(monkeypatch, "binanceusdm", answers, QUARTERLY)
    assert held(account) == [
        ("BTC/USDT:USDT", D("-0.002")),
        ("BTCUSDT_261225", D("0.5")),
        ("LUNAUSDT", D("0.5")),
    ]
    assert working(account) == [
        ("1", "BTC/USDT:USDT", D("0.5")),
        ("2", "BTCUSDT_261225", D("0.5")),
        ("3", "LUNAUSDT", D("0.5")),
        ("stop-2146760", "BTCUSDT_261225", D("0.002")),
    ]


def test_a_row_that_names_no_symbol_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = {"/fapi/v3/positionRisk": [POSITION | {"symbol": None}]}
    with pytest.raises(QueryFailedError):
        plugin(monkeypatch, "binanceusdm", nameless).positions()


# --- KuCoin: open orders are asked for market by market --------------------------------------------


def test_orders_in_a_market_that_is_not_listed_yet_are_not_known_until_the_list_is_newer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    doubts: list[str] = []
    monkeypatch.setattr(client_pool.MARKETS, "doubt", doubts.append)
    markets = {"code": "200000", "data": {"symbols": ["NEW-USDT"]}}
    asked = {"/api/v1/hf/orders/active/symbols": markets}
    account = answering(monkeypatch, PROFILES["kucoin", "spot"], asked)
    with pytest.raises(NotShownError, match=r"does not list NEW-USDT, where orders are open"):
        account.open_orders()
    assert [name.split(":")[0] for name in doubts] == ["kucoin"]


# --- OKX: inverse and delisted swaps, counted in contracts -----------------------------------------

COIN_MARGINED = INVERSE | {"id": "BTC-USD-SWAP"}


def okx_position(instrument: str, quantity: str) -> dict[str, Any]:
    return {"instId": instrument, "pos": quantity, "posSide": "net", "avgPx": "60000"}


def okx_order(order_id: str, instrument: str) -> dict[str, Any]:
    return {
        "ordId": order_id, "clOrdId": "", "instId": instrument, "side": "buy", "state": "live",
        "sz": "3", "accFillSz": "0", "avgPx": "",
    }  # fmt: skip


def okx_stop(algo_id: str, instrument: str) -> dict[str, Any]:
    return {
        "algoId": algo_id, "algoClOrdId": "", "instId": instrument, "side": "sell",
        "state": "live", "sz": "2", "ordIdList": [],
    }  # fmt: skip


def data(*rows: Mapping[str, Any]) -> dict[str, Any]:
    return {"code": "0", "msg": "", "data": list(rows)}


def test_okx_swaps_fks_does_not_trade_are_shown_by_their_own_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "/api/v5/account/positions": data(
            okx_position("BTC-USDT-SWAP", "5"),
            okx_position("BTC-USD-SWAP", "-3"),
            okx_position("LUNA-USDT-SWAP", "7"),
        ),
        "/api/v5/trade/orders-pending": data(
            okx_order("1", "BTC-USDT-SWAP"), okx_order("2", "BTC-USD-SWAP")
        ),
        "/api/v5/trade/orders-algo-pending": data(okx_stop("3", "LUNA-USDT-SWAP")),
    }
    account = plugin(monkeypatch, "okx", answers, COIN_MARGINED)
    assert held(account) == [
        ("BTC/USDT:USDT", D("0.05")),
        ("BTC-USD-SWAP", D(-3)),
        ("LUNA-USDT-SWAP", D(7)),
    ]
    assert working(account) == [
        ("1", "BTC/USDT:USDT", D("0.03")),
        ("2", "BTC-USD-SWAP", D(3)),
        ("algo-3", "LUNA-USDT-SWAP", D(2)),
    ]


# --- Kraken Futures: inverse perpetuals and dated contracts ----------------------------------------

INVERSE_PERPETUAL = INVERSE | {"id": "PI_XBTUSD", "contractSize": 1.0}
FIXED_MATURITY = DATED | {"id": "FF_XBTUSD_261225", "symbol": "BTC/USD:USD-261225"}


def test_kraken_futures_contracts_fks_does_not_trade_are_shown_by_their_own_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = "2026-09-05T17:01:17.410Z"
    position = {"side": "short", "symbol": "PI_XBTUSD", "price": "60000", "size": "100"}
    order = {
        "order_id": "o1", "symbol": "FF_XBTUSD_261225", "side": "buy", "orderType": "lmt",
        "limitPrice": "50000", "unfilledSize": "0.5", "filledSize": "0", "receivedTime": at,
        "status": "untouched", "reduceOnly": False, "lastUpdateTime": at,
    }  # fmt: skip
    answers = {
        "/derivatives/api/v3/openpositions": {"result": "success", "openPositions": [position]},
        "/derivatives/api/v3/openorders": {"result": "success", "openOrders": [order]},
    }
    account = plugin(monkeypatch, "krakenfutures", answers, INVERSE_PERPETUAL, FIXED_MATURITY)
    assert held(account) == [("PI_XBTUSD", D(-100))]
    assert working(account) == [("o1", "FF_XBTUSD_261225", D("0.5"))]
