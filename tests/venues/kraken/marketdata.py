"""Kraken's public market data, told from the ledger's markets."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tests.venues.kraken.rules import (
    ASSETS,
    MAKER_FEE,
    PAIRS,
    TAKER_FEE,
    VOLUME_DECIMALS,
    Pair,
    altname_of,
    code_of,
    invalid,
    volume,
)
from tests.venues.market import Level, Market

DAY_VOLUME = Decimal(1000)
INTERVALS_MIN = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)
CANDLES = 720


def clock(now_ms: int) -> dict[str, object]:
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    return {"unixtime": now_ms // 1000, "rfc1123": moment.strftime("%a, %d %b %y %H:%M:%S +0000")}


def status(now_ms: int) -> dict[str, object]:
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    return {"status": "online", "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}


def assets() -> dict[str, object]:
    return {
        code_of(asset): {
            "aclass": "currency",
            "altname": altname_of(asset),
            "decimals": decimals,
            "display_decimals": shown,
            "status": "enabled",
        }
        for asset, (decimals, shown) in ASSETS.items()
    }


def pair_info(pair: Pair) -> dict[str, object]:
    instrument = pair.instrument
    return {
        "altname": pair.altname,
        "wsname": pair.wsname,
        "aclass_base": "currency",
        "base": code_of(instrument.base),
        "aclass_quote": "currency",
        "quote": code_of(instrument.quote),
        "lot": "unit",
        "cost_decimals": pair.money_decimals,
        "pair_decimals": pair.decimals,
        "lot_decimals": VOLUME_DECIMALS,
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, float(TAKER_FEE * 100)]],
        "fees_maker": [[0, float(MAKER_FEE * 100)]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": str(instrument.minimum),
        "costmin": str(instrument.minimum_cost),
        "tick_size": str(instrument.tick),
        "status": "online",
    }


def asset_pairs(wanted: list[Pair] | None) -> dict[str, object]:
    return {pair.id: pair_info(pair) for pair in (wanted or PAIRS.values())}


def ticker(pair: Pair, market: Market) -> dict[str, object]:
    last, first = market.last, market.opening
    high, low = pair.price(max(last, first)), pair.price(min(last, first))
    return {
        "a": _best(pair, market.asks),
        "b": _best(pair, market.bids),
        "c": [pair.price(last), volume(market.instrument.minimum)],
        "v": [volume(DAY_VOLUME)] * 2,
        "p": [pair.price(last)] * 2,
        "t": [1, 1],
        "l": [low] * 2,
        "h": [high] * 2,
        "o": pair.price(first),
    }


def _best(pair: Pair, levels: list[Level]) -> list[str]:
    if not levels:
        return [pair.price(Decimal(0)), "0", "0.000"]
    return [pair.price(levels[0].price), f"{levels[0].shown:.0f}", f"{levels[0].shown:.3f}"]


def depth(pair: Pair, market: Market, count: int, now_ms: int) -> dict[str, object]:
    def rows(levels: list[Level]) -> list[list[object]]:
        shown = levels[:count]
        return [[pair.price(at.price), f"{at.shown:.3f}", now_ms // 1000] for at in shown]

    return {"asks": rows(market.asks), "bids": rows(market.bids)}


def candles(pair: Pair, market: Market, interval: int, now_ms: int) -> list[list[object]]:
    """Flat candles at the opening price, the newest closing at the last price."""
    if interval not in INTERVALS_MIN:
        raise invalid()
    width = interval * 60
    newest = now_ms // 1000 // width * width
    first, last = market.opening, market.last
    rows: list[list[object]] = []
    for age in reversed(range(CANDLES)):
        close = last if age == 0 else first
        prices = [pair.price(v) for v in (first, max(first, close), min(first, close), close)]
        rows.append([newest - age * width, *prices, pair.price(close), volume(Decimal(1)), 1])
    return rows
