"""What ccxt makes of an exchange's order book and its fees, as exact values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any

from brokers.decimals import plain
from brokers.dialects.unified_rows import contract_size, mapping
from brokers.errors import QueryFailedError, QuoteUnavailableError
from brokers.types import BookLevel, OrderBook, TradingFees
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
    if not bids or not asks or bids[0].price > asks[0].price:
        raise QuoteUnavailableError(f"no two-sided market in {market['symbol']}")
    return OrderBook(market["symbol"], bids, asks, asked_at)


def trading_fees(market: Mapping[str, Any]) -> TradingFees | None:
    """What the library's market names; ``None`` where it names no fee."""
    maker, taker = market.get("maker"), market.get("taker")
    if maker is None or taker is None:
        return None
    return TradingFees(Decimal(str(maker)), Decimal(str(taker)))


def _levels(answer: Mapping[str, Any], side: str, size: Decimal) -> tuple[BookLevel, ...]:
    listed = answer.get(side)
    if not isinstance(listed, list):
        raise QueryFailedError("unreadable answer: no order book")
    try:
        found = [(Decimal(str(one[0])), Decimal(str(one[1])) * size) for one in listed]
    except (DecimalException, TypeError, IndexError) as error:
        raise QueryFailedError("the venue's order book cannot be read") from error
    if any(not (price.is_finite() and quantity.is_finite()) for price, quantity in found):
        raise QueryFailedError("the venue's order book cannot be read")
    return tuple(BookLevel(plain(p), plain(q)) for p, q in found if p > 0 and q > 0)
