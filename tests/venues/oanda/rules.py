"""What OANDA trades, its reject reasons, and the checks an order must pass (developer.oanda.com)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.venues.house import House
from tests.venues.market import Instrument, Side
from tests.venues.orders import Order, OrderSpec, Reason, TimeInForce, Trigger
from tests.venues.venue import Answer, Request, reply

D = Decimal
ACCOUNT = "101-004-1234567-001"
PLACES = {"EUR/USD": (5, 0), "USD/JPY": (3, 0), "JP225/USD": (1, 1)}
"""Decimals of price and units."""
PRICES = {
    Instrument("EUR", "USD", D("0.00001"), D(1), D(1), D(100_000_000), D(0)): D("1.10000"),
    Instrument("USD", "JPY", D("0.001"), D(1), D(1), D(100_000_000), D(0)): D("150.000"),
    Instrument("JP225", "USD", D("0.1"), D("0.1"), D("0.1"), D(500), D(0)): D(60000),
}
UNSEEN = {"EUR": D(10**9), "JP225": D(10**9), "JPY": D(10**12), "USD": D(10**9)}
"""What lets a netting account trade on margin in a ledger that only knows holdings; never shown."""
BALANCE, NAV = D(99_000), D(100_000)
"""NAV is the balance and the unrealised profit (developer.oanda.com, Account definitions)."""
HOUSE = House(
    prices=PRICES,
    balances=UNSEEN,
    maker_fee=D(0),
    taker_fee=D(0),
    order_id=lambda sequence: str(6000 + sequence * 10),
    trade_id=lambda sequence: str(sequence),
    refuses_reached_triggers=False,
)
INSTRUMENTS = {item.symbol.replace("/", "_"): item for item in HOUSE.prices}
FIELDS = frozenset(
    ("type", "instrument", "units", "timeInForce", "positionFill", "clientExtensions", "price",
     "priceBound", "stopLossOnFill")
)  # fmt: skip
TERMS = {
    "MARKET": frozenset({"FOK", "IOC"}),
    "LIMIT": frozenset({"GTC", "GFD"}),
    "STOP": frozenset({"GTC", "GFD"}),
}
UNITS = re.compile(r"-?[0-9]+(\.[0-9]+)?")
REASONS = {
    Reason.DUPLICATE_CLIENT_ID: "CLIENT_ORDER_ID_ALREADY_EXISTS",
    Reason.INSUFFICIENT_FUNDS: "INSUFFICIENT_MARGIN",
    Reason.UNKNOWN_ORDER: "ORDER_DOESNT_EXIST",
}


class OandaError(Exception):
    """A refusal: a status, a code and, for an order, the transaction that rejected it."""

    def __init__(self, status: int, code: str, *, transaction: str = "") -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.transaction = status, code, transaction

    def answer(self) -> Answer:
        body: dict[str, object] = {"errorCode": self.code, "errorMessage": f"refused: {self.code}"}
        if self.transaction:
            kind = self.transaction
            body[kind] = {"id": "9999", "rejectReason": self.code}
        return reply(body, status=self.status, error=str(self))


def rejected(reason: str) -> OandaError:
    return OandaError(400, reason, transaction="orderRejectTransaction")


def read_order(request: Request) -> Mapping[str, Any]:
    """The order of a request. Raises OandaError; fields nobody knows are refused on purpose."""
    try:
        order: Any = json.loads(request.body)["order"]
    except (ValueError, KeyError, TypeError):
        raise OandaError(400, "INVALID_JSON") from None
    if not isinstance(order, dict) or set(order) - FIELDS:
        raise OandaError(400, "UNKNOWN_FIELD")
    numbers = [order.get(name) for name in ("units", "price", "priceBound") if name in order]
    if not all(isinstance(one, str) and UNITS.fullmatch(one) for one in numbers):
        raise OandaError(400, "INVALID_NUMBER")
    return order


def check(order: Mapping[str, Any]) -> Instrument:
    """Raises OandaError."""
    instrument = INSTRUMENTS.get(str(order.get("instrument")))
    if instrument is None:
        raise rejected("INSTRUMENT_UNKNOWN")
    kind, units = str(order.get("type")), D(order.get("units", "0"))
    if order.get("timeInForce") not in TERMS.get(kind, ()):
        raise rejected("TIME_IN_FORCE_INVALID")
    if ("price" in order) is (kind == "MARKET"):
        raise rejected("PRICE_INVALID")
    if units % instrument.step:
        raise rejected("UNITS_PRECISION_EXCEEDED")
    if abs(units) < instrument.minimum:
        raise rejected("UNITS_MINIMUM_NOT_MET")
    if abs(units) > instrument.maximum:
        raise rejected("UNITS_LIMIT_EXCEEDED")
    prices = [order[name] for name in ("price", "priceBound") if name in order]
    prices += [order["stopLossOnFill"]["price"]] if "stopLossOnFill" in order else []
    if any(D(price) % instrument.tick for price in prices):
        raise rejected("PRICE_PRECISION_EXCEEDED")
    if order.get("positionFill") not in ("DEFAULT", "REDUCE_ONLY"):
        raise rejected("POSITION_FILL_INVALID")
    return instrument


def spec_of(order: Mapping[str, Any], account: str, fill_delay_ms: int) -> OrderSpec:
    """The order as the ledger takes it."""
    kind, units = order["type"], D(order["units"])
    bound = order.get("priceBound") or (order.get("price") if kind == "LIMIT" else None)
    term = order["timeInForce"]
    return OrderSpec(
        account=account,
        instrument=INSTRUMENTS[order["instrument"]],
        side=Side.BUY if units > 0 else Side.SELL,
        client_id=str(order.get("clientExtensions", {}).get("id", "")),
        quantity=abs(units),
        price=None if bound is None else D(bound),
        trigger=Trigger.STOP if kind == "STOP" else None,
        trigger_price=D(order["price"]) if kind == "STOP" else None,
        time_in_force=TimeInForce(term) if term in ("IOC", "FOK") else TimeInForce.GTC,
        fill_delay_ms=fill_delay_ms,
        details={
            "type": kind,
            "timeInForce": term,
            "positionFill": order["positionFill"],
            "price": str(order.get("price", "")),
            "stopLossOnFill": json.dumps(order.get("stopLossOnFill")),
        },
    )


def stop_on(entry: Order) -> OrderSpec | None:
    """The stop loss a filled order leaves on its trade, if it was sent with one."""
    stop = json.loads(entry.spec.details["stopLossOnFill"])
    if stop is None:
        return None
    price, term = stop["price"], stop["timeInForce"]
    return OrderSpec(
        account=entry.spec.account,
        instrument=entry.spec.instrument,
        side=Side.SELL if entry.spec.side is Side.BUY else Side.BUY,
        client_id=stop["clientExtensions"]["id"],
        quantity=entry.filled,
        trigger=Trigger.STOP,
        trigger_price=D(price),
        details={
            "type": "STOP_LOSS",
            "timeInForce": term,
            "tradeID": entry.id,
            "price": price,
            "stopLossOnFill": "null",
        },
    )
