"""Alpaca's objects, shaped after the samples of its documentation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from tests.venues.alpaca.rules import COINS
from tests.venues.market import Instrument, Level, Market, Side
from tests.venues.orders import ZERO, Account, Order, Status, Trade

WORDS = {
    Status.OPEN: "new",
    Status.PARTIALLY_FILLED: "partially_filled",
    Status.FILLED: "filled",
    Status.CANCELED: "canceled",
    Status.EXPIRED: "canceled",
}


def stamp(milliseconds: int) -> str:
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}001Z"


def text(number: Decimal) -> str:
    return f"{number:f}"


def venue_symbol(instrument: Instrument) -> str:
    return instrument.symbol if instrument.base in COINS else instrument.base


def asset_class(instrument: Instrument) -> str:
    return "crypto" if instrument.base in COINS else "us_equity"


def order_row(order: Order) -> dict[str, object]:
    spec, done = order.spec, order.status is Status.FILLED
    fields = spec.details
    seen = stamp(order.created_at)
    return {
        "id": order.id,
        "client_order_id": spec.client_id,
        "created_at": seen,
        "updated_at": stamp(order.updated_at),
        "submitted_at": seen,
        "filled_at": stamp(order.updated_at) if done else None,
        "canceled_at": stamp(order.updated_at) if order.status is Status.CANCELED else None,
        "replaced_by": None,
        "replaces": None,
        "symbol": venue_symbol(spec.instrument),
        "asset_class": asset_class(spec.instrument),
        "notional": None,
        "qty": text(order.quantity),
        "filled_qty": text(order.filled),
        "filled_avg_price": text(order.average) if order.filled else None,
        "order_class": "",
        "order_type": fields["type"],
        "type": fields["type"],
        "side": spec.side.value,
        "time_in_force": fields["time_in_force"],
        "limit_price": fields.get("limit_price"),
        "stop_price": fields.get("stop_price"),
        "status": WORDS[order.status],
        "extended_hours": False,
        "legs": None,
        "trail_percent": fields.get("trail_percent"),
        "trail_price": None,
        "hwm": None,
    }


def activity_id(trade: Trade) -> str:
    at = datetime.fromtimestamp(trade.time / 1000, UTC)
    return f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}::{trade.id}"


def activity_row(trade: Trade) -> dict[str, object]:
    filled = sum(
        (one.quantity for one in trade.order.trades if one.sequence <= trade.sequence), ZERO
    )
    left = trade.order.quantity - filled
    return {
        "activity_type": "FILL",
        "cum_qty": text(filled),
        "id": activity_id(trade),
        "leaves_qty": text(left),
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "side": trade.order.spec.side.value,
        "symbol": venue_symbol(trade.order.spec.instrument),
        "transaction_time": stamp(trade.time),
        "order_id": trade.order.id,
        "type": "partial_fill" if left else "fill",
    }


def position_row(account: Account, market: Market) -> dict[str, object]:
    """Positions in crypto are named without the slash."""
    instrument = market.instrument
    held = account.balances[instrument.base]
    bought = [
        one for one in account.trades_by_symbol[instrument.symbol]
        if one.order.spec.side is Side.BUY
    ]  # fmt: skip
    quantity = sum((one.quantity for one in bought), ZERO)
    cost = sum((one.cost for one in bought), ZERO)
    return {
        "symbol": venue_symbol(instrument).replace("/", ""),
        "asset_class": asset_class(instrument),
        "qty": text(held.total),
        "qty_available": text(held.free),
        "side": "long",
        "avg_entry_price": text(cost / quantity if quantity else market.last),
        "market_value": text(held.total * market.last),
        "current_price": text(market.last),
    }


def asset_row(instrument: Instrument) -> dict[str, object]:
    row: dict[str, object] = {
        "class": asset_class(instrument),
        "exchange": "CRYPTO" if instrument.base in COINS else "NASDAQ",
        "symbol": venue_symbol(instrument),
        "name": instrument.base,
        "status": "active",
        "tradable": True,
        "marginable": instrument.base not in COINS,
        "shortable": instrument.base not in COINS,
        "fractionable": True,
    }
    if instrument.base in COINS:
        row |= {
            "min_order_size": text(instrument.minimum),
            "min_trade_increment": text(instrument.step),
            "price_increment": text(instrument.tick),
        }
    return row


def snapshot(market: Market, now_ms: int) -> dict[str, object]:
    """Market data carry numbers, not text."""
    bid, ask = market.best(Side.SELL), market.best(Side.BUY)
    return {
        "latestTrade": {"t": stamp(now_ms), "x": "V", "p": float(market.last), "s": 1},
        "latestQuote": {
            "t": stamp(now_ms),
            "bp": float(bid or 0),
            "bs": size_of(market.bids),
            "ap": float(ask or 0),
            "as": size_of(market.asks),
        },
    }


def size_of(levels: Sequence[Level]) -> float:
    return float(levels[0].shown) if levels else 0


def order_book(market: Market, now_ms: int) -> dict[str, object]:
    sides = {"b": market.bids, "a": market.asks}
    book = {
        side: [{"p": float(one.price), "s": float(one.shown)} for one in levels]
        for side, levels in sides.items()
    }
    return book | {"t": stamp(now_ms)}
