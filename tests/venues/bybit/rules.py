"""What Bybit trades, its error codes, and the checks an order must pass."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from tests.venues.house import House
from tests.venues.market import Instrument
from tests.venues.orders import Reason
from tests.venues.venue import Answer, reply

D = Decimal
SPOT, LINEAR = "spot", "linear"

SPOT_PRICES = {
    Instrument("BTC", "USDT", D("0.01"), D("0.000001"), D("0.00001"), D(9000), D(5)): D(60000),
    Instrument("ETH", "USDT", D("0.01"), D("0.00001"), D("0.0001"), D(9000), D(5)): D(3000),
    Instrument("SOL", "USDT", D("0.01"), D("0.001"), D("0.001"), D(90000), D(5)): D(150),
}
LINEAR_PRICES = {
    Instrument("BTC", "USDT", D("0.1"), D("0.001"), D("0.001"), D(1190), D(5)): D(60000),
    Instrument("ETH", "USDT", D("0.01"), D("0.01"), D("0.01"), D(9000), D(5)): D(3000),
}
UNSEEN_COINS = {"BTC": D(1_000_000), "ETH": D(1_000_000)}
"""What lets a perpetual be sold short in a ledger that only knows coins; never shown."""

HOUSES = {
    SPOT: House(
        prices=SPOT_PRICES,
        balances={"USDT": D(1_000_000), "BTC": D(100), "ETH": D(1000), "SOL": D(10_000)},
        maker_fee=D("0.001"),
        taker_fee=D("0.001"),
        order_id=lambda sequence: str(1_523_347_543_495_000_000 + sequence),
        trade_id=lambda sequence: str(2_100_000_000_000_000_000 + sequence),
        refuses_reached_triggers=True,
    ),
    LINEAR: House(
        prices=LINEAR_PRICES,
        balances=UNSEEN_COINS | {"USDT": D(1_000_000)},
        maker_fee=D("0.0002"),
        taker_fee=D("0.00055"),
        order_id=lambda sequence: f"c6f055d9-7f21-4079-913d-{sequence:012x}",
        trade_id=lambda sequence: f"e0cbe81d-0f18-5866-9415-{sequence:012x}",
        refuses_reached_triggers=True,
    ),
}
INSTRUMENTS = {
    category: {item.base + item.quote: item for item in house.prices}
    for category, house in HOUSES.items()
}

MESSAGES = {
    10000: "Server Timeout",
    10001: "params error",
    10002: "invalid request, please check your server timestamp or recv_window param",
    10003: "API key is invalid.",
    10004: "error sign!",
    10005: "Permission denied, please check your API key permissions.",
    10006: "Too many visits. Exceeded the API Rate Limit.",
    10010: "Unmatched IP, please check your API key's bound IP addresses.",
    10014: "Invalid duplicate request.",
    10016: "Server error.",
    110001: "order not exists or too late to cancel",
    110007: "ab not enough for new order",
    110017: "current position is zero, cannot fix reduce-only order qty",
    110072: "OrderLinkedID is duplicate",
    110093: "expect Falling, but trigger_price higher than current",
    170001: "Internal error.",
    170007: "Timeout waiting for response from backend server.",
    170121: "Invalid symbol.",
    170130: "Data sent for paramter '%s' is not valid.",
    170131: "Insufficient balance.",
    170136: "Order quantity exceeded lower limit.",
    170137: "Order volume decimal too long.",
    170140: "Order value exceeded lower limit.",
    170141: "Duplicate clientOrderId.",
    170134: "Order price decimal too long.",
    170146: "Order creation timeout.",
    170149: "Create order failed.",
    170213: "Order does not exist.",
    170218: "The LIMIT-MAKER order is rejected due to invalid price.",
}
REFUSALS = {
    SPOT: {
        Reason.INSUFFICIENT_FUNDS: 170131,
        Reason.DUPLICATE_CLIENT_ID: 170141,
        Reason.WOULD_TAKE: 170218,
        Reason.WOULD_TRIGGER: 170130,
        Reason.UNKNOWN_ORDER: 170213,
    },
    LINEAR: {
        Reason.INSUFFICIENT_FUNDS: 110007,
        Reason.DUPLICATE_CLIENT_ID: 110072,
        Reason.WOULD_TRIGGER: 110093,
        Reason.UNKNOWN_ORDER: 110001,
    },
}


class BybitError(Exception):
    """A refusal in Bybit's words; HTTP 200 whatever it says (v5 docs, Error codes)."""

    def __init__(self, code: int, message: str = "") -> None:
        self.code = code
        self.message = message or MESSAGES.get(code, "Unknown error.")
        super().__init__(f"{code} {self.message}")

    def answer(self, now_ms: int, status: int = 200) -> Answer:
        body = {"retCode": self.code, "retMsg": self.message, "result": {}}
        answer = reply(body | {"retExtInfo": {}, "time": now_ms}, status=status, error=str(self))
        if self.code == 10006:
            resets = ("X-Bapi-Limit-Reset-Timestamp", str(now_ms + 1000))
            answer = replace(answer, headers=(resets,))
        return answer


def result(data: object, now_ms: int, *, order_id: str = "") -> Answer:
    body = {"retCode": 0, "retMsg": "OK", "result": data, "retExtInfo": {}, "time": now_ms}
    return reply(body, order_id=order_id)


def text(value: Decimal) -> str:
    """As Bybit writes numbers: no trailing zeros, no exponent."""
    return f"{value.normalize():f}" if value else "0"


def instrument_info(category: str, item: Instrument) -> dict[str, object]:
    common: dict[str, object] = {
        "symbol": item.base + item.quote,
        "baseCoin": item.base,
        "quoteCoin": item.quote,
        "status": "Trading",
    }
    if category == SPOT:
        return common | {
            "innovation": "0",
            "marginTrading": "none",
            "lotSizeFilter": {
                "basePrecision": text(item.step),
                "quotePrecision": "0.00000001",
                "minOrderQty": text(item.minimum),
                "maxOrderQty": text(item.maximum),
                "minOrderAmt": text(item.minimum_cost),
                "maxOrderAmt": "40000000",
            },
            "priceFilter": {"tickSize": text(item.tick)},
        }
    return common | {
        "contractType": "LinearPerpetual",
        "launchTime": "1584230400000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": "2",
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": text(item.tick)},
        "lotSizeFilter": {
            "maxOrderQty": text(item.maximum),
            "minOrderQty": text(item.minimum),
            "qtyStep": text(item.step),
            "minNotionalValue": text(item.minimum_cost),
            "postOnlyMaxOrderQty": text(item.maximum),
            "maxMktOrderQty": text(item.maximum),
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "settleCoin": item.quote,
    }
