"""What Schwab trades here, and the checks an order must pass (developer.schwab.com, Trader API)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.venues.house import House
from tests.venues.market import Instrument, Side
from tests.venues.orders import OrderSpec, Trigger
from tests.venues.venue import Answer, Request, reply

D = Decimal
ACCOUNT = "12345678"
HASHED = "A0C1" * 16
SHARE = (D("0.01"), D(1), D(1), D(500), D(0))
PRICES = {
    Instrument("BRK.A", "USD", *SHARE): D(60000),
    Instrument("AAPL", "USD", *SHARE): D(250),
}
HOUSE = House(
    prices=PRICES,
    balances={"USD": D(1_000_000)},
    maker_fee=D(0),
    taker_fee=D(0),
    order_id=lambda sequence: str(1_000_000_000 + sequence),
    trade_id=lambda sequence: str(sequence),
    refuses_reached_triggers=False,
)
INSTRUMENTS = {item.base.replace(".", "/"): item for item in HOUSE.prices}
FIELDS = frozenset(
    (
        "orderStrategyType", "session", "duration", "orderType", "orderLegCollection", "price",
        "stopPrice", "stopPriceLinkBasis", "stopPriceLinkType", "stopPriceOffset",
    )
)  # fmt: skip
PRICED = {
    "MARKET": frozenset[str](),
    "LIMIT": frozenset({"price"}),
    "STOP": frozenset({"stopPrice"}),
    "STOP_LIMIT": frozenset({"price", "stopPrice"}),
    "TRAILING_STOP": frozenset({"stopPriceLinkBasis", "stopPriceLinkType", "stopPriceOffset"}),
}
DURATIONS = frozenset({"DAY", "GOOD_TILL_CANCEL", "FILL_OR_KILL", "IMMEDIATE_OR_CANCEL"})
NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


class SchwabError(Exception):
    """A refusal: a status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status, self.message = status, message

    def answer(self) -> Answer:
        return reply({"message": self.message}, status=self.status, error=str(self))


def read_order(request: Request) -> Mapping[str, Any]:
    """The order of a request. Raises SchwabError; fields nobody knows are refused on purpose."""
    try:
        order: Any = json.loads(request.body, parse_float=str)
    except ValueError:
        raise SchwabError(400, "the body is no JSON") from None
    if not isinstance(order, dict) or set(order) - FIELDS:
        raise SchwabError(400, "a field of the order is unknown")
    if order.get("orderStrategyType") != "SINGLE" or order.get("session") != "NORMAL":
        raise SchwabError(400, "strategy or session is invalid")
    return order


def check(order: Mapping[str, Any]) -> Instrument:
    """Raises SchwabError."""
    kind, legs = str(order.get("orderType")), order.get("orderLegCollection")
    if not isinstance(legs, list) or len(legs) != 1:
        raise SchwabError(400, "an order has one leg here")
    leg = legs[0]
    instrument = INSTRUMENTS.get(leg["instrument"]["symbol"])
    if instrument is None or leg["instrument"]["assetType"] != "EQUITY":
        raise SchwabError(400, "the symbol is invalid")
    if leg["instruction"] not in ("BUY", "SELL"):
        raise SchwabError(400, "the instruction is invalid")
    numbers = frozenset(order) & PRICED["STOP_LIMIT"] | frozenset(order) & PRICED["TRAILING_STOP"]
    if PRICED.get(kind) != numbers or order.get("duration") not in DURATIONS:
        raise SchwabError(400, "type, duration and prices do not fit each other")
    if kind == "MARKET" and order["duration"] != "DAY":
        raise SchwabError(400, "a market order is good for the day")
    if type(leg["quantity"]) is not int or not 0 < leg["quantity"] <= instrument.maximum:
        raise SchwabError(400, "the quantity is invalid")
    for name in ("price", "stopPrice"):
        if name in order:
            _check_price(order[name], instrument)
    return instrument


def _check_price(said: object, instrument: Instrument) -> None:
    if not isinstance(said, str) or not NUMBER.fullmatch(said) or D(said) % instrument.tick:
        raise SchwabError(400, "the price is invalid")


def spec_of(order: Mapping[str, Any], account: str, last: Decimal, delay: int) -> OrderSpec:
    """The order as the ledger takes it; a trailing stop is one at the price of its first moment."""
    leg = order["orderLegCollection"][0]
    side = Side(leg["instruction"].lower())
    stop = D(order["stopPrice"]) if "stopPrice" in order else None
    if "stopPriceOffset" in order:
        away = last * order["stopPriceOffset"] / 100
        stop = last + (away if side is Side.BUY else -away)
    details = {name: str(value) for name, value in order.items() if name != "orderLegCollection"}
    return OrderSpec(
        account=account,
        instrument=INSTRUMENTS[leg["instrument"]["symbol"]],
        side=side,
        client_id="",
        quantity=D(leg["quantity"]),
        price=D(order["price"]) if "price" in order else None,
        trigger=None if stop is None else Trigger.STOP,
        trigger_price=stop,
        fill_delay_ms=delay,
        details=details | {"type": order["orderType"].lower()},
    )
