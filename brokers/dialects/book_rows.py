"""What ccxt makes of an exchange's order book and its fees, as exact values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any

from brokers import order_books
from brokers.dialects.unified_rows import contract_size, mapping
from brokers.errors import QueryFailedError
from brokers.order_books import Level
from brokers.types import OrderBook, TradingFees
from brokers.venue_client import Market, VenueClient


def order_book(client: VenueClient, market: Market, depth: int) -> OrderBook:
    """The best ``depth`` levels of each side, contracts as base units.

    Raises QuoteUnavailableError when there is no two-sided market, QueryFailedError when the answer
    cannot be read.
    """
    asked_at = datetime.now(UTC)
    answer = mapping(client.ask("fetch_order_book", market["symbol"], depth))
    size = contract_size(market)
    bids, asks = (_levels(answer, side, size) for side in ("bids", "asks"))
    return order_books.order_book(market["symbol"], bids, asks, asked_at)


def trading_fees(market: Mapping[str, Any]) -> TradingFees | None:
    """What the library's market names; ``None`` where it names no fee."""
    maker, taker = market.get("maker"), market.get("taker")
    if maker is None or taker is None:
        return None
    return TradingFees(Decimal(str(maker)), Decimal(str(taker)))


def _levels(answer: Mapping[str, Any], side: str, size: Decimal) -> list[Level]:
    listed = answer.get(side)
    if not isinstance(listed, list):
        raise QueryFailedError("unreadable answer: no order book")
    try:
        found = [(Decimal(str(one[0])), Decimal(str(one[1])) * size) for one in listed]
    except (DecimalException, TypeError, IndexError) as error:
        raise QueryFailedError("the venue's order book cannot be read") from error
    if any(not (price.is_finite() and quantity.is_finite()) for price, quantity in found):
        raise QueryFailedError("the venue's order book cannot be read")
    return found
