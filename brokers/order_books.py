"""Order books from what a venue tells: several levels, or no more than its best prices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from brokers.decimals import plain
from brokers.errors import QuoteUnavailableError
from brokers.types import BookLevel, OrderBook, Quote

Level = tuple[Decimal, Decimal]
"""A price and the base quantity offered at it."""


def order_book(
    symbol: str, bids: Iterable[Level], asks: Iterable[Level], at: datetime
) -> OrderBook:
    """The book with its best prices first, without levels that offer nothing.

    Raises QuoteUnavailableError when there is no two-sided market.
    """
    buyers = sorted(_offered(bids), key=lambda one: one.price, reverse=True)
    sellers = sorted(_offered(asks), key=lambda one: one.price)
    if not buyers or not sellers or buyers[0].price > sellers[0].price:
        raise QuoteUnavailableError(f"no two-sided market in {symbol}")
    return OrderBook(symbol, tuple(buyers), tuple(sellers), at)


def best_prices(quote: Quote, bid_size: Decimal, ask_size: Decimal) -> OrderBook:
    """One level on each side, at the time of the quote. Raises QuoteUnavailableError without a size."""
    bids, asks = [(quote.bid, bid_size)], [(quote.ask, ask_size)]
    return order_book(quote.symbol, bids, asks, quote.at)


def _offered(levels: Iterable[Level]) -> list[BookLevel]:
    found = [(price, quantity) for price, quantity in levels if price > 0 and quantity > 0]
    return [BookLevel(plain(price), plain(quantity)) for price, quantity in found]
