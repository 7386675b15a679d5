"""Order books and fees, exact, in base units, as each venue tells them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brokers.base import ExecutionPlugin
from brokers.errors import QueryFailedError, QuoteUnavailableError, UnknownSymbolError
from brokers.plugins.paper import PaperPlugin
from brokers.types import AccountConfig, BookLevel, Environment, Side, TradingFees
from tests.brokers.contract import CCXT_VENUES, SYMBOL, SYMBOLS, ccxt_plugin
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


@pytest.mark.django_db
def test_the_paper_book_is_deep_and_its_fee_is_the_options() -> None:
    plugin: ExecutionPlugin = PaperPlugin()
    options = {"prices": {SYMBOL: "60000"}, "spread_bps": "2", "fee_bps": "7.5"}
    plugin.init(AccountConfig("1", "paper", Environment.DRY_RUN, options))
    book = plugin.order_book(SYMBOL)
    assert [one.price for one in book.bids + book.asks] == [D(59994), D(60006)]
    assert book.asks[0].quantity > 10**9
    assert plugin.trading_fees(SYMBOL) == TradingFees(D("0.00075"), D("0.00075"))
