"""Binance's public market data, told from the ledger's markets."""

from __future__ import annotations

from decimal import Decimal

from tests.venues.binance.errors import BinanceError
from tests.venues.binance.rules import INSTRUMENTS, market_id, places, symbol_info
from tests.venues.market import Level, Market

ZERO = Decimal(0)
DAY_MS = 86_400_000
INTERVALS_MS = {
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": DAY_MS,
}
RATE_LIMITS = (
    ("REQUEST_WEIGHT", "MINUTE", 1, 6000),
    ("ORDERS", "SECOND", 10, 100),
    ("ORDERS", "DAY", 1, 200_000),
    ("RAW_REQUESTS", "MINUTE", 5, 61_000),
)


def exchange_info(now_ms: int) -> dict[str, object]:
    names = ("rateLimitType", "interval", "intervalNum", "limit")
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [dict(zip(names, limit, strict=True)) for limit in RATE_LIMITS],
        "exchangeFilters": [],
        "symbols": [symbol_info(item) for item in INSTRUMENTS.values()],
    }


def _best(levels: list[Level]) -> tuple[str, str]:
    if not levels:
        return places(ZERO), places(ZERO)
    return places(levels[0].price), places(levels[0].shown)


def price(market: Market) -> dict[str, object]:
    return {"symbol": market_id(market.instrument), "price": places(market.last)}


def book_ticker(market: Market) -> dict[str, object]:
    (bid, bid_left), (ask, ask_left) = _best(market.bids), _best(market.asks)
    return {
        "symbol": market_id(market.instrument),
        "bidPrice": bid,
        "bidQty": bid_left,
        "askPrice": ask,
        "askQty": ask_left,
    }


def day_ticker(market: Market, now_ms: int) -> dict[str, object]:
    change = market.last - market.opening
    return book_ticker(market) | {
        "priceChange": places(change),
        "priceChangePercent": f"{change / market.opening * 100:.3f}",
        "weightedAvgPrice": places((market.last + market.opening) / 2),
        "prevClosePrice": places(market.opening),
        "lastPrice": places(market.last),
        "lastQty": places(market.instrument.minimum),
        "openPrice": places(market.opening),
        "highPrice": places(max(market.last, market.opening)),
        "lowPrice": places(min(market.last, market.opening)),
        "volume": places(Decimal(1000)),
        "quoteVolume": places(1000 * market.last),
        "openTime": now_ms - DAY_MS,
        "closeTime": now_ms,
        "firstId": 0,
        "lastId": 0,
        "count": 1,
    }


def depth(market: Market, limit: int, update_id: int) -> dict[str, object]:
    def rows(levels: list[Level]) -> list[list[str]]:
        return [[places(level.price), places(level.shown)] for level in levels[:limit]]

    return {"lastUpdateId": update_id, "bids": rows(market.bids), "asks": rows(market.asks)}


def klines(market: Market, interval: str, limit: int, now_ms: int) -> list[list[object]]:
    """Flat candles at the opening price, the newest closing at the last price."""
    if interval not in INTERVALS_MS:
        raise BinanceError(-1120)
    width = INTERVALS_MS[interval]
    newest = now_ms // width * width
    return [
        _candle(market, newest - age * width, width, market.last if age == 0 else market.opening)
        for age in reversed(range(limit))
    ]


def _candle(market: Market, start: int, width: int, close: Decimal) -> list[object]:
    first = market.opening
    prices = [places(value) for value in (first, max(first, close), min(first, close), close)]
    volume = [places(Decimal(1)), start + width - 1, places(close), 1, places(ZERO), places(ZERO)]
    return [start, *prices, *volume, "0"]
