"""The depth of market of MetaTrader 5 (mql5.com, Python integration, market_book_get)."""

from __future__ import annotations

from typing import Any

from brokers import order_books
from brokers.bridge.drivers.mt5_terminal import Terminal
from brokers.bridge.drivers.mt5_terms import decimal
from brokers.types import OrderBook, Quote

SELL, BUY = 1, 2
"""Types of the rows that have a price of their own (ENUM_BOOK_TYPE)."""


def order_book(terminal: Terminal, symbol: Any, told: Quote) -> OrderBook:
    """The book of the terminal's row ``symbol`` in units, at the time of the quote.

    A broker that shows no depth names one price for any order it takes. Raises QuoteUnavailableError.
    """
    units = decimal(symbol.trade_contract_size)
    rows = terminal.depth(symbol.name)
    if not rows:
        most = decimal(symbol.volume_max) * units
        return order_books.best_prices(told, most, most)
    bids, asks = (
        [(decimal(one.price), decimal(one.volume_dbl) * units) for one in rows if one.type == side]
        for side in (BUY, SELL)
    )
    return order_books.order_book(told.symbol, bids, asks, told.at)
