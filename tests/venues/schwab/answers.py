"""Schwab's objects, shaped after the schemas of its OpenAPI; numbers are JSON numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tests.venues.market import Instrument, Market, Side
from tests.venues.orders import ZERO, Account, Order, Status

Row = dict[str, object]
WORDS = {
    Status.OPEN: "WORKING",
    Status.PARTIALLY_FILLED: "WORKING",
    Status.FILLED: "FILLED",
    Status.CANCELED: "CANCELED",
    Status.EXPIRED: "CANCELED",
}


def stamp(milliseconds: int) -> str:
    """Schwab tells seconds."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%S}+0000"


def name_of(instrument: Instrument) -> str:
    return instrument.base.replace(".", "/")


def security(instrument: Instrument) -> Row:
    return {"assetType": "EQUITY", "cusip": "000000000", "symbol": name_of(instrument)}


def order_row(order: Order) -> Row:
    spec, details = order.spec, order.spec.details
    numbers = ("price", "stopPrice", "stopPriceOffset")
    return {
        "session": "NORMAL",
        "duration": details["duration"],
        "orderType": details["orderType"],
        "complexOrderStrategyType": "NONE",
        "quantity": float(order.quantity),
        "filledQuantity": float(order.filled),
        "remainingQuantity": float(order.remaining),
        **{name: float(details[name]) for name in numbers if name in details},
        "orderLegCollection": [
            {
                "orderLegType": "EQUITY",
                "legId": 1,
                "instrument": security(spec.instrument),
                "instruction": spec.side.value.upper(),
                "quantity": float(order.quantity),
            }
        ],
        "orderStrategyType": "SINGLE",
        "orderId": int(order.id),
        "cancelable": order.live,
        "status": WORDS[order.status],
        "enteredTime": stamp(order.created_at),
        "tag": "API_TOS:LOOPBACK",
        "orderActivityCollection": activities(order),
    }


def activities(order: Order) -> list[Row]:
    found, left = [], order.quantity
    for trade in order.trades:
        left -= trade.quantity
        found.append(_activity("FILL", trade.quantity, left, trade.price, trade.time))
    if not order.live and left:
        found.append(_activity("CANCELED", left, ZERO, ZERO, order.updated_at))
    return found


def _activity(kind: str, quantity: Decimal, left: Decimal, price: Decimal, at: int) -> Row:
    """Schwab calls a cancellation an execution as well, of the rest and at no price."""
    leg: Row = {
        "legId": 1,
        "quantity": float(quantity),
        "price": float(price),
        "time": stamp(at),
    }
    return {
        "activityType": "EXECUTION",
        "executionType": kind,
        "quantity": float(quantity),
        "orderRemainingQuantity": float(left),
        "executionLegs": [leg],
    }


def position_row(account: Account, market: Market) -> Row:
    held = account.balances[market.instrument.base].total
    bought = [
        one for one in account.trades_by_symbol[market.instrument.symbol]
        if one.order.spec.side is Side.BUY
    ]  # fmt: skip
    quantity = sum((one.quantity for one in bought), ZERO)
    cost = sum((one.cost for one in bought), ZERO)
    return {
        "longQuantity": float(held),
        "shortQuantity": 0.0,
        "averagePrice": float(cost / quantity if quantity else market.last),
        "instrument": security(market.instrument),
        "marketValue": float(held * market.last),
    }


def quote_row(market: Market, now_ms: int, *, realtime: bool) -> Row:
    bid, ask = market.best(Side.SELL), market.best(Side.BUY)
    return {
        "assetMainType": "EQUITY",
        "symbol": name_of(market.instrument),
        "realtime": realtime,
        "quote": {
            "bidPrice": float(bid or 0),
            "askPrice": float(ask or 0),
            "bidSize": int(market.bids[0].shown) if market.bids else 0,
            "askSize": int(market.asks[0].shown) if market.asks else 0,
            "lastPrice": float(market.last),
            "quoteTime": now_ms,
        },
    }


def half_hours(last: Decimal, now_ms: int, count: int) -> list[Row]:
    """Oldest first."""
    half = 1_800_000
    now = now_ms // half * half
    bar = {"open": float(last), "high": float(last + 1), "low": float(last - 1)}
    starts = [now - half * back for back in reversed(range(count))]
    return [{"datetime": at, **bar, "close": float(last), "volume": 10} for at in starts]
