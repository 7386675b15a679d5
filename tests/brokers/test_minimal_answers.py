"""Venues that imitate an exchange with as few words as they can: what they tell is enough to trade."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from brokers import client_pool
from brokers.errors import QueryFailedError
from brokers.exchanges import PROFILES
from brokers.markets import MarketCache
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import OrderType, Outcome, Side
from tests.brokers.contract import (
    CCXT_VENUES,
    PERPETUAL,
    SYMBOL,
    SYMBOLS,
    ccxt_plugin,
    limit,
    order,
)
from tests.brokers.test_matrix_over_http import Place, place, plugin_at
from tests.brokers.test_spare_answers import RIGHTS, saying, without
from tests.venues.client import RunningVenue

__all__ = ["place"]

D = Decimal
Change = Callable[[str], str]


class Bodies:
    """Changes what venues answer, as text and by the path that is asked; a number is an HTTP status."""

    def __init__(self) -> None:
        self.changes: dict[str, Change | int] = {}
        self.everywhere: Change = str

    def __setitem__(self, path: str, change: Change | int) -> None:
        self.changes[path] = change

    def told(self, path: str, answer: requests.Response) -> requests.Response:
        change = self.changes.get(path, self.everywhere)
        if isinstance(change, int):
            answer.status_code, answer._content = change, b"<html>no such page</html>"
        else:
            answer._content = change(answer.text).encode()
        return answer


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> Bodies:
    monkeypatch.setattr(client_pool, "MARKETS", MarketCache())
    made, whole = Bodies(), requests.Session.request

    def request(self: requests.Session, method: str, url: str, **more: Any) -> requests.Response:
        return made.told(urlsplit(url).path, whole(self, method, url, **more))

    monkeypatch.setattr(requests.Session, "request", request)
    return made


def parsed(change: Callable[[Any], Any]) -> Change:
    return lambda text: json.dumps(change(json.loads(text)))


# --- numbers --------------------------------------------------------------------------------------


def as_numbers(text: str) -> str:
    return re.sub(r'"(-?\d+\.\d+)"', r"\1", text)


def everything_read(plugin: CcxtPlugin, symbol: str) -> list[object]:
    quote, book = plugin.fetch_data(symbol), plugin.order_book(symbol)
    return [
        plugin.instrument(symbol),
        (quote.bid, quote.ask, quote.last),
        (book.bids[0], book.asks[0]),
        plugin.balances(),
        plugin.positions(),
        plugin.open_orders(),
        plugin.trading_fees(symbol),
        [(one.high, one.low, one.close) for one in plugin.candles(symbol, 2)],
    ]


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_numbers_may_be_told_as_text_or_not(
    venue: RunningVenue, bodies: Bodies, monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    symbol, since = SYMBOLS[exchange], datetime.now(UTC) - timedelta(minutes=1)
    venue.control.set_price(exchange, "BTC/USDT", 60000.1, spread=0.2)
    plugin = ccxt_plugin(exchange, venue.base_url)
    assert plugin.execute_order(limit("50000.1", symbol=symbol)).outcome is Outcome.ACCEPTED
    whole = everything_read(plugin, symbol)
    monkeypatch.setattr(client_pool, "MARKETS", MarketCache())
    bodies.everywhere = as_numbers
    plugin = ccxt_plugin(exchange, venue.base_url)
    assert everything_read(plugin, symbol) == whole
    request = order(symbol=symbol)
    assert plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert sum(fill.quantity for fill in plugin.trades_since(symbol, since)) == request.quantity


def test_a_number_that_is_no_text_stays_exact(venue: RunningVenue, bodies: Bodies) -> None:
    said = (
        '{"bidPrice": 0.12345678901234567891, "askPrice": 1.2345678901234567891e0, "lastPrice": 2}'
    )
    bodies["/api/v3/ticker/24hr"] = lambda _: said
    quote = ccxt_plugin("binance", venue.base_url).fetch_data(SYMBOL)
    assert quote.bid == D("0.12345678901234567891")
    assert (quote.ask, quote.last) == (D("1.2345678901234567891"), D(2))


def test_an_answer_that_is_no_json_is_no_answer(venue: RunningVenue, bodies: Bodies) -> None:
    plugin = ccxt_plugin("binance", venue.base_url)
    plugin.instrument(SYMBOL)
    for text in ("", "<html></html>", '{"bidPrice": 1', "99.5", "null"):
        bodies["/api/v3/ticker/24hr"] = lambda _, text=text: text
        with pytest.raises(QueryFailedError):
            plugin.fetch_data(SYMBOL)


# --- Binance: a market without filters ------------------------------------------------------------

COARSE = [
    {"filterType": "LOT_SIZE", "stepSize": "0.001"},
    {"filterType": "PRICE_FILTER", "tickSize": "0.5"},
    {"filterType": "MIN_NOTIONAL"},
]
SWITCHED_OFF = [
    {"filterType": "LOT_SIZE", "stepSize": "0.00000000", "minQty": "0.0"},
    {"filterType": "PRICE_FILTER", "tickSize": "0.00000000"},
]
FINEST = D("0.00000001")


@pytest.mark.parametrize(
    ("filters", "steps"),
    [
        ([], (FINEST, FINEST)),
        (None, (FINEST, FINEST)),
        (COARSE, (D("0.001"), D("0.5"))),
        (SWITCHED_OFF, (FINEST, FINEST)),
    ],
    ids=["none", "not told", "few", "switched off"],
)
def test_binances_markets_are_traded_by_what_is_told_of_them(
    venue: RunningVenue, bodies: Bodies, filters: object, steps: tuple[Decimal, Decimal]
) -> None:
    change = without("filters") if filters is None else saying("filters", filters)
    bodies["/api/v3/exchangeInfo"] = parsed(change)
    plugin = ccxt_plugin("binance", venue.base_url)
    rules = plugin.instrument(SYMBOL)
    assert (rules.quantity_step, rules.price_tick) == steps
    assert (rules.min_quantity, rules.max_quantity, rules.min_value) == (None, None, None)
    for request in (order(), limit("50000.5")):
        placed = plugin.execute_order(request)
        assert placed.outcome is Outcome.ACCEPTED, placed
        (row,) = venue.control.ledger("binance").by_client_id(request.identity)
        assert (row.quantity, row.price) == (request.quantity, request.price)


BARE = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
SELL_STOP = {"side": Side.SELL, "stop_price": D(50000)}


@pytest.mark.parametrize("more", [{}, {"orderTypes": []}, {"orderTypes": ["LIMIT", "MARKET"]}])
def test_binance_judges_the_kind_of_an_order_and_not_its_list(
    venue: RunningVenue, bodies: Bodies, more: dict[str, object]
) -> None:
    bodies["/api/v3/exchangeInfo"] = lambda _: json.dumps({"symbols": [BARE | more]})
    plugin = ccxt_plugin("binance", venue.base_url)
    stop = order(type=OrderType.STOP, **SELL_STOP)
    stop_limit = order(type=OrderType.STOP_LIMIT, price=D(49000), **SELL_STOP)
    for request in (order(), order(), limit(), limit(post_only=True), stop, stop_limit):
        placed = plugin.execute_order(request)
        assert placed.outcome is Outcome.ACCEPTED, placed
        (row,) = venue.control.ledger("binance").by_client_id(request.identity)
        assert (row.quantity, row.price, row.trigger_price) == (
            request.quantity,
            request.price,
            request.stop_price,
        )
    assert plugin.instrument(SYMBOL).quantity_step == FINEST


@pytest.mark.parametrize(
    ("exchange", "path", "limits"),
    [
        ("kraken", "/0/public/AssetPairs", ["ordermin", "costmin"]),
        ("bybit", "/v5/market/instruments-info", ["minOrderQty", "minOrderAmt"]),
        ("bybit-linear", "/v5/market/instruments-info", ["minOrderQty", "minNotionalValue"]),
        ("okx", "/api/v5/public/instruments", ["minSz"]),
        ("okx-swap", "/api/v5/public/instruments", ["minSz"]),
    ],
)
def test_a_market_need_not_name_its_smallest_order(
    venue: RunningVenue, bodies: Bodies, exchange: str, path: str, limits: list[str]
) -> None:
    bodies[path] = parsed(without(*limits))
    plugin, symbol = ccxt_plugin(exchange, venue.base_url), SYMBOLS[exchange]
    rules = plugin.instrument(symbol)
    assert (rules.min_quantity, rules.min_value) == (None, None)
    assert plugin.execute_order(order(symbol=symbol)).outcome is Outcome.ACCEPTED


# --- the list of stops ----------------------------------------------------------------------------

OKX_ORDERS, OKX_STOPS = "/api/v5/trade/orders-pending", "/api/v5/trade/orders-algo-pending"
LISTS_OF_STOPS = {
    "binanceusdm": ("swap", "/fapi/v1/openOrders", "/fapi/v1/openAlgoOrders"),
    "kucoin": ("spot", "/api/v1/hf/orders/active", "/api/v1/stop-order"),
}


@pytest.mark.parametrize("exchange", ["okx", "okx-swap"])
@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_venue_without_a_list_of_stops_has_none(
    venue: RunningVenue, bodies: Bodies, exchange: str, status: int
) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    placed = plugin.execute_order(limit(symbol=SYMBOLS[exchange]))
    bodies[OKX_STOPS] = status
    assert [one.broker_order_id for one in plugin.open_orders()] == [placed.broker_order_id]


@pytest.mark.parametrize(
    ("path", "status"), [(OKX_ORDERS, 404), (OKX_STOPS, 403), (OKX_STOPS, 500), (OKX_STOPS, 503)]
)
def test_a_list_that_failed_tells_nothing(
    venue: RunningVenue, bodies: Bodies, path: str, status: int
) -> None:
    plugin = ccxt_plugin("okx", venue.base_url)
    plugin.instrument(SYMBOL)
    bodies[path] = status
    with pytest.raises(QueryFailedError):
        plugin.open_orders()


@pytest.mark.parametrize("exchange", LISTS_OF_STOPS)
def test_so_it_is_where_ccxt_reads_the_lists(place: Place, exchange: str) -> None:
    market_type, orders, stops = LISTS_OF_STOPS[exchange]
    plugin = plugin_at(place, PROFILES[exchange, market_type])
    assert plugin.open_orders() == []
    for path in [path for path in place.answers if path.partition("?")[0] == stops]:
        del place.answers[path]
    assert plugin.open_orders() == []
    for path in [path for path in place.answers if path.partition("?")[0] == orders]:
        del place.answers[path]
    with pytest.raises(QueryFailedError, match="HTTP 404"):
        plugin.open_orders()


# --- placements -----------------------------------------------------------------------------------


@pytest.mark.parametrize("description", ["buy order", "", "ok"])
def test_kraken_may_describe_an_order_it_took_as_it_likes(
    venue: RunningVenue, bodies: Bodies, description: str
) -> None:
    plugin = ccxt_plugin("kraken", venue.base_url)
    bodies["/0/private/AddOrder"] = parsed(saying("descr", {"order": description}))
    request = limit()
    placed = plugin.execute_order(request)
    (row,) = venue.control.ledger("kraken").by_client_id(request.identity)
    assert (placed.outcome, placed.broker_order_id) == (Outcome.ACCEPTED, row.id)


@pytest.mark.parametrize(
    "told",
    [
        {"error": [], "result": {"descr": {"order": "buy order"}}},
        {"error": [], "result": {"descr": {"order": "buy order"}, "txid": []}},
        {"error": [], "result": {"descr": {"order": "buy order"}, "txid": [7]}},
        {"error": [], "result": {"descr": {"order": "buy order"}, "txid": ["A", "B"]}},
        {"error": [], "result": {"descr": {"order": "buy order"}, "txid": "A"}},
    ],
)
def test_one_it_names_no_id_of_may_exist(venue: RunningVenue, bodies: Bodies, told: object) -> None:
    plugin = ccxt_plugin("kraken", venue.base_url)
    bodies["/0/private/AddOrder"] = lambda _: json.dumps(told)
    placed = plugin.execute_order(limit())
    assert (placed.outcome, placed.broker_order_id) == (Outcome.UNKNOWN, "")


# --- Bybit's leverage and position mode -----------------------------------------------------------

POSITIONS = "/v5/position/list"


@pytest.mark.parametrize("change", [saying("list", []), without("positionIdx", "leverage")])
def test_a_position_mode_that_is_not_told_is_no_hedge_mode(
    venue: RunningVenue, bodies: Bodies, change: Callable[[Any], Any]
) -> None:
    bodies[POSITIONS] = parsed(change)
    plugin = ccxt_plugin("bybit-linear", venue.base_url)
    assert plugin.execute_order(order(symbol=PERPETUAL)).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("side", [1, "2"])
def test_one_side_of_a_pair_is(venue: RunningVenue, bodies: Bodies, side: object) -> None:
    bodies[POSITIONS] = parsed(saying("positionIdx", side))
    placed = ccxt_plugin("bybit-linear", venue.base_url).execute_order(order(symbol=PERPETUAL))
    assert (placed.outcome, placed.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "hedge mode" in placed.detail


def test_a_leverage_is_set_where_the_position_mode_is_not_told(
    venue: RunningVenue, bodies: Bodies
) -> None:
    bodies[POSITIONS] = parsed(without("positionIdx"))
    plugin = ccxt_plugin("bybit-linear", venue.base_url, leverage=5)
    assert plugin.execute_order(order(symbol=PERPETUAL, side=Side.SELL)).outcome is Outcome.ACCEPTED


def test_a_leverage_that_cannot_be_read_back_opens_nothing(
    venue: RunningVenue, bodies: Bodies
) -> None:
    bodies[POSITIONS] = parsed(saying("list", []))
    plugin = ccxt_plugin("bybit-linear", venue.base_url, leverage=5)
    placed = plugin.execute_order(order(symbol=PERPETUAL))
    assert (placed.outcome, placed.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert venue.control.ledger("bybit-linear").orders == []


# --- a key's rights -------------------------------------------------------------------------------

NOTHING = {
    "kraken": [{"error": [], "result": {}}, {"error": [], "result": {"permissions": []}}],
    "bybit": [{"retCode": 0, "result": {}}, {"retCode": 0, "result": {"permissions": {}}}],
    "okx": [{"code": "0", "data": []}, {"code": "0", "data": [{"perm": ""}]}],
    "binance": [{}],
}


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_a_venue_that_says_nothing_of_a_keys_rights_does_not_tell(
    venue: RunningVenue, bodies: Bodies, exchange: str
) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    for answer in NOTHING[exchange.partition("-")[0]]:
        bodies[RIGHTS[exchange]] = lambda _, answer=answer: json.dumps(answer)
        told = plugin.check_permissions()
        assert (told.trade, told.withdraw, told.ip_restricted) == (None, None, None)


def test_bybit_may_tell_rights_without_telling_whether_they_are_for_reading_only(
    venue: RunningVenue, bodies: Bodies
) -> None:
    bodies[RIGHTS["bybit"]] = parsed(without("readOnly"))
    told = ccxt_plugin("bybit", venue.base_url).check_permissions()
    assert (told.trade, told.withdraw) == (None, False)
