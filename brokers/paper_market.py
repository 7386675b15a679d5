"""The arithmetic of the paper venue: quotes, matching, slippage, fees. Pure.

Prices and quantities keep eight decimals; all rounding is against the trader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext

from brokers.errors import BrokerError, UnknownSymbolError
from brokers.types import BookLevel, Instrument, OrderBook, OrderRequest, OrderType, Quote, Side

STEP = Decimal("1E-8")
LARGEST = Decimal(10) ** 10
"""Quantities and prices stay below this, where a money column still holds their product."""

_SYMBOL = re.compile(r"([A-Za-z0-9][A-Za-z0-9.\-]{0,19})/([A-Za-z0-9]{1,20})")
_CONTEXT = Context(prec=50)
_BPS = Decimal(10_000)
_WITH_LIMIT = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_WITH_STOP = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


class VenueRefusal(BrokerError):
    """The paper venue took nothing of an order."""

    code = "VENUE_REJECTED"


def instrument(symbol: str) -> Instrument:
    """The rules of ``symbol``: any BASE/QUOTE trades. Raises UnknownSymbolError."""
    parts = _SYMBOL.fullmatch(symbol)
    if parts is None or parts[1] == parts[2]:
        raise UnknownSymbolError(f"paper symbols are written BASE/QUOTE, not {symbol!r}")
    return Instrument(
        symbol=symbol,
        venue_symbol=symbol,
        base=parts[1],
        quote=parts[2],
        quantity_step=STEP,
        price_tick=STEP,
        min_quantity=STEP,
        max_quantity=LARGEST - STEP,
        market_type="margin",
    )


def usable_price(price: Decimal | None) -> Decimal | None:
    """``price`` on the grid; ``None`` when nothing can trade at it."""
    if price is None or not price.is_finite() or not STEP <= price < LARGEST - 1:
        return None
    with localcontext(_CONTEXT):
        return price.quantize(STEP)


def quote(symbol: str, price: Decimal, spread_bps: Decimal, at: datetime) -> Quote | None:
    """Bid and ask around ``price``; ``None`` when the bid would be nothing."""
    with localcontext(_CONTEXT):
        half = price * spread_bps / 2 / _BPS
        bid = (price - half).quantize(STEP, ROUND_FLOOR)
        ask = (price + half).quantize(STEP, ROUND_CEILING)
    if bid <= 0:
        return None
    return Quote(symbol=symbol, bid=bid, ask=ask, last=price, at=at)


def order_book(quote: Quote) -> OrderBook:
    """The book behind ``quote``: any size trades at its prices."""
    deep = LARGEST - STEP
    bid, ask = BookLevel(quote.bid, deep), BookLevel(quote.ask, deep)
    return OrderBook(quote.symbol, (bid,), (ask,), quote.at)


def fault(request: OrderRequest) -> str:
    """Why the venue cannot read the order's numbers; empty when it can."""
    needed = {"quantity": request.quantity}
    if request.type in _WITH_LIMIT:
        needed["price"] = request.price or Decimal(0)
    if request.type in _WITH_STOP:
        needed["stop_price"] = request.stop_price or Decimal(0)
    for name, number in needed.items():
        if not number.is_finite() or not 0 < number < LARGEST or number % STEP != 0:
            return f"{name} must be above 0, below {LARGEST:f} and in steps of {STEP:f}"
    return ""


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """The terms of an order that can rest: a limit, a stop or both."""

    side: Side
    type: OrderType
    price: Decimal | None
    stop_price: Decimal | None
    slippage_bps: Decimal


@dataclass(frozen=True, slots=True)
class Match:
    """What the market does to an order: the type it has now, and the price it fills at, if any."""

    type: OrderType
    price: Decimal | None


def match(order: OrderTerms, market: Quote, *, arriving: bool) -> Match:
    """A stop waits for the last price, a limit for the other side of the book.

    A resting limit fills at its own price. One that arrives (or is triggered) when the market is
    already there fills as a taker: at the market with slippage, never beyond its limit.
    """
    taken_at = taker_price(market.worst(order.side), order.side, order.slippage_bps)
    if order.type is OrderType.MARKET:
        return Match(order.type, taken_at)
    if order.type in _WITH_STOP:
        if not _triggered(order, market.last):
            return Match(order.type, None)
        if order.type is OrderType.STOP:
            return Match(order.type, taken_at)
        arriving = True
    limit = order.price or Decimal(0)
    reached = (market.worst(order.side) - limit) * order.side.sign <= 0
    if not reached:
        return Match(OrderType.LIMIT, None)
    return Match(OrderType.LIMIT, _within(order.side, limit, taken_at) if arriving else limit)


def taker_price(price: Decimal, side: Side, slippage_bps: Decimal) -> Decimal:
    """``price`` made worse by slippage."""
    with localcontext(_CONTEXT):
        slip = price * slippage_bps / _BPS * side.sign
        worse = ROUND_CEILING if side is Side.BUY else ROUND_FLOOR
        return max((price + slip).quantize(STEP, worse), STEP)


def split(quantity: Decimal, trades: int) -> list[Decimal]:
    """``quantity`` in ``trades`` equal parts on the grid, the last with the remainder."""
    with localcontext(_CONTEXT):
        part = (quantity / trades).quantize(STEP, ROUND_FLOOR)
        if part == 0 or trades == 1:
            return [quantity]
        return [*([part] * (trades - 1)), quantity - part * (trades - 1)]


def part(quantity: Decimal, share: Decimal) -> Decimal:
    """``share`` of ``quantity`` on the grid, rounded down."""
    with localcontext(_CONTEXT):
        return (quantity * share).quantize(STEP, ROUND_FLOOR)


def fee(quantity: Decimal, price: Decimal, fee_bps: Decimal) -> Decimal:
    """The fee of one trade, in the quote asset."""
    with localcontext(_CONTEXT):
        return (quantity * price * fee_bps / _BPS).quantize(STEP, ROUND_CEILING)


def value(quantity: Decimal, price: Decimal) -> Decimal:
    """Quantity × price, exact for numbers on the grid."""
    with localcontext(_CONTEXT):
        return quantity * price


def average(fills: list[tuple[Decimal, Decimal]]) -> Decimal | None:
    """The average price of (quantity, price) pairs, to 18 decimals."""
    with localcontext(_CONTEXT):
        total = sum((quantity for quantity, _ in fills), Decimal(0))
        paid = sum((quantity * price for quantity, price in fills), Decimal(0))
        return (paid / total).quantize(Decimal("1E-18")) if total else None


def _triggered(order: OrderTerms, last: Decimal) -> bool:
    return order.stop_price is not None and (last - order.stop_price) * order.side.sign >= 0


def _within(side: Side, limit: Decimal, price: Decimal) -> Decimal:
    return min(limit, price) if side is Side.BUY else max(limit, price)
