"""A venue's largest order is the smallest of what it names for limit and market orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from ccxt import TICK_SIZE

from brokers.dialects import answers, bybit_rows, okx_rows, unified_rows
from brokers.types import Outcome
from tests.brokers.contract import SYMBOL, ccxt_plugin, order
from tests.venues.client import RunningVenue

D = Decimal


def market(**info: Any) -> dict[str, Any]:
    names = {"symbol": "BTC/USDT", "id": "BTCUSDT", "base": "BTC", "quote": "USDT"}
    return {**names, "info": info}


@pytest.mark.parametrize(
    ("limits", "smallest"),
    [((), None), ((None,), None), ((D(0), D(7)), "7"), ((D("1E+3"), None, D("2E+2")), "200")],
)
def test_the_smallest_that_is_named(limits: tuple[Any, ...], smallest: str | None) -> None:
    found = answers.smallest(*limits)
    assert (None if found is None else str(found)) == smallest


def test_binance_takes_less_at_the_market(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("binance", venue.base_url)
    largest = plugin.instrument(SYMBOL).max_quantity
    assert largest is not None
    venue.control.set_balances("binance", {"USDT": "1e12"})
    assert plugin.execute_order(order(quantity=largest)).outcome is Outcome.ACCEPTED
    one_more = order(quantity=largest + D("0.00001"))
    assert plugin.execute_order(one_more).outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("market_type", "named", "largest"),
    [
        ("spot", {"maxOrderQty": "71.73"}, "71.73"),
        ("spot", {"maxLimitOrderQty": "83", "maxMarketOrderQty": "41.5"}, "41.5"),
        ("swap", {"maxOrderQty": "1190", "maxMktOrderQty": "119"}, "119"),
        ("swap", {}, None),
    ],
)
def test_bybit(market_type: str, named: dict[str, str], largest: str | None) -> None:
    lot = {"basePrecision": "0.01", "qtyStep": "0.01", "minOrderQty": "0.01"} | named
    found = market(lotSizeFilter=lot, priceFilter={"tickSize": "0.1"})
    told = bybit_rows.instrument(found, market_type).max_quantity
    assert told == (None if largest is None else D(largest))


def test_okx_names_the_largest_market_order_on_spot_in_usdt() -> None:
    sizes = {"lotSz": "0.01", "tickSz": "0.1", "minSz": "0.01", "ctVal": "0.1"}
    info = sizes | {"maxLmtSz": "90000", "maxMktSz": "10000"}
    assert okx_rows.instrument(market(**info), "spot").max_quantity == D(90000)
    assert okx_rows.instrument(market(**info) | {"contract": True}, "swap").max_quantity == D(1000)


@pytest.mark.parametrize(
    ("at_market", "largest"), [({}, "1000"), ({"market": {"max": 120}}, "120"), (None, "1000")]
)
def test_others_as_ccxt_reads_them(at_market: dict[str, Any] | None, largest: str) -> None:
    limits = {"amount": {"min": 0.001, "max": 1000}, "cost": {}, **(at_market or {"market": None})}
    steps = {"precision": {"amount": 0.001, "price": 0.1}, "precisionMode": TICK_SIZE}
    found = market() | steps | {"limits": limits}
    assert unified_rows.instrument(found, "spot").max_quantity == D(largest)
