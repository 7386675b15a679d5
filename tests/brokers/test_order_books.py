"""Order books and fees, exact, in base units, as each venue tells them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from brokers import order_books
from brokers.base import ExecutionPlugin
from brokers.errors import QueryFailedError, QuoteUnavailableError, UnknownSymbolError
from brokers.plugins.paper import PaperPlugin
from brokers.types import AccountConfig, BookLevel, Environment, OrderBook, Side, TradingFees
from tests.brokers.contract import (
    CCXT_VENUES,
    SYMBOL,
    SYMBOLS,
    alpaca_plugin,
    ccxt_plugin,
    oanda_plugin,
    schwab_plugin,
)
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault, When

D = Decimal
FEES = {
    "binance": ("0.001", "0.001"),
    "kraken": ("0.0025", "0.004"),
    "bybit": ("0.001", "0.001"),
    "bybit-linear": ("0.0001", "0.0006"),
    "okx": ("0.001", "0.0015"),
    "okx-swap": ("0.0002", "0.0005"),
}

SHARES_AND_INDEX = [("alpaca", "BRK.A/USD"), ("schwab", "BRK.A/USD"), ("oanda", "JP225/USD")]
BROKERS: dict[str, Callable[[str], ExecutionPlugin]] = {
    "alpaca": alpaca_plugin,
    "oanda": oanda_plugin,
    "schwab": schwab_plugin,
}


def level(price: str, quantity: str) -> BookLevel:
    return BookLevel(D(price), D(quantity))


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_the_levels_are_exact_in_base_units_best_first(venue: RunningVenue, exchange: str) -> None:
    bids = [("99999.9", "0.5"), ("9999.1", "1.25")]
    asks = [("100000.1", "0.75"), ("100001.5", "2")]
    venue.control.set_depth(exchange, SYMBOL, bids=bids, asks=asks)
    book = ccxt_plugin(exchange, venue.base_url).order_book(SYMBOLS[exchange])
    assert book.symbol == SYMBOLS[exchange]
    assert book.bids == (level("99999.9", "0.5"), level("9999.1", "1.25"))
    assert book.offers(Side.BUY) == (level("100000.1", "0.75"), level("100001.5", "2"))


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_what_is_no_order_book_is_no_answer(venue: RunningVenue, exchange: str) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    plugin.instrument(SYMBOLS[exchange])
    with pytest.raises(UnknownSymbolError):
        plugin.order_book("nothing")
    venue.control.set_depth(exchange, SYMBOL, asks=[])
    with pytest.raises(QuoteUnavailableError):
        plugin.order_book(SYMBOLS[exchange])
    for action in (Action.EMPTY, Action.CUT_JSON, Action.HTML):
        venue.control.queue_faults(Fault(action, When.AFTER, Endpoint.PUBLIC))
        with pytest.raises(QueryFailedError):
            plugin.order_book(SYMBOLS[exchange])


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_the_common_fees_are_known(venue: RunningVenue, exchange: str) -> None:
    maker, taker = FEES[exchange]
    plugin = ccxt_plugin(exchange, venue.base_url)
    assert plugin.trading_fees(SYMBOLS[exchange]) == TradingFees(D(maker), D(taker))


def brokers_book(venue: RunningVenue, broker: str, symbol: str) -> OrderBook:
    """What a plugin makes of two whole-numbered levels on each side."""
    bids, asks = [("59990", "3"), ("59980", "7")], [("60010", "4"), ("60020", "9")]
    venue.control.set_depth(broker, symbol, bids=bids, asks=asks)
    return BROKERS[broker](venue.base_url).order_book(symbol)


def test_oandas_buckets_are_levels(venue: RunningVenue) -> None:
    book = brokers_book(venue, "oanda", "JP225/USD")
    assert book.bids == (level("59990", "3"), level("59980", "7"))
    assert book.asks == (level("60010", "4"), level("60020", "9"))


@pytest.mark.parametrize("broker", ["alpaca", "schwab"])
def test_shares_show_their_best_prices_with_what_is_offered_there(
    venue: RunningVenue, broker: str
) -> None:
    book = brokers_book(venue, broker, "BRK.A/USD")
    assert (book.bids, book.asks) == ((level("59990", "3"),), (level("60010", "4"),))


def test_alpacas_coins_have_a_book_of_their_own(venue: RunningVenue) -> None:
    bids, asks = [("59999.5", "0.26265668")], [("60000.5", "0.5"), ("60001", "1.25")]
    venue.control.set_depth("alpaca", "BTC/USD", bids=bids, asks=asks)
    book = alpaca_plugin(venue.base_url, market="crypto").order_book("BTC/USD")
    assert book.bids == (level("59999.5", "0.26265668"),)
    assert book.asks == (level("60000.5", "0.5"), level("60001", "1.25"))


@pytest.mark.parametrize(("broker", "symbol"), [*SHARES_AND_INDEX, ("alpaca-crypto", "BTC/USD")])
def test_a_market_without_one_side_is_no_book(
    venue: RunningVenue, broker: str, symbol: str
) -> None:
    name, _, market = broker.partition("-")
    venue.control.set_depth(name, symbol, asks=[])
    plugin = (
        alpaca_plugin(venue.base_url, market=market) if market else BROKERS[name](venue.base_url)
    )
    with pytest.raises(QuoteUnavailableError):
        plugin.order_book(symbol)


@pytest.mark.parametrize(("broker", "symbol"), SHARES_AND_INDEX)
def test_what_cannot_be_read_is_no_book(venue: RunningVenue, broker: str, symbol: str) -> None:
    plugin = BROKERS[broker](venue.base_url)
    for action in (Action.EMPTY, Action.CUT_JSON, Action.HTML):
        venue.control.queue_faults(Fault(action, When.AFTER, Endpoint.PUBLIC))
        with pytest.raises(QueryFailedError):
            plugin.order_book(symbol)
    with pytest.raises(UnknownSymbolError):
        plugin.order_book("nothing")


def test_the_time_of_a_book_is_the_venues(venue: RunningVenue) -> None:
    venue.control.set_clock_offset(-60_000)
    for broker, symbol in SHARES_AND_INDEX:
        at = BROKERS[broker](venue.base_url).order_book(symbol).at
        assert 55 < (datetime.now(UTC) - at).total_seconds() < 90


def test_levels_are_sorted_and_empty_ones_left_out() -> None:
    at = datetime.now(UTC)
    rows = [(D(1), D(5)), (D(3), D(0)), (D(2), D(6)), (D(0), D(9))]
    book = order_books.order_book("X/USD", rows, [(D(5), D(1)), (D(4), D("2.50"))], at)
    assert book.bids == (level("2", "6"), level("1", "5"))
    assert book.asks == (level("4", "2.5"), level("5", "1"))
    assert book.at == at
    with pytest.raises(QuoteUnavailableError, match="no two-sided market in X/USD"):
        order_books.order_book("X/USD", [(D(6), D(1))], [(D(5), D(1))], at)


@pytest.mark.django_db
def test_the_paper_book_is_deep_and_its_fee_is_the_options() -> None:
    plugin: ExecutionPlugin = PaperPlugin()
    options = {"prices": {SYMBOL: "60000"}, "spread_bps": "2", "fee_bps": "7.5"}
    plugin.init(AccountConfig("1", "paper", Environment.DRY_RUN, options))
    book = plugin.order_book(SYMBOL)
    assert [one.price for one in book.bids + book.asks] == [D(59994), D(60006)]
    assert book.asks[0].quantity > 10**9
    assert plugin.trading_fees(SYMBOL) == TradingFees(D("0.00075"), D("0.00075"))
