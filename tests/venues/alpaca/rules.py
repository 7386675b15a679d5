"""What Alpaca trades, its error codes, and the checks an order must pass (docs.alpaca.markets)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.venues.house import House
from tests.venues.market import Instrument, Side
from tests.venues.orders import OrderSpec, Reason, TimeInForce, Trigger
from tests.venues.venue import Answer, Request, reply

D = Decimal
SHARE = (D("0.01"), D("0.000000001"), D("0.000000001"), D(10**7), D(1))
PRICES = {
    Instrument("BRK.A", "USD", *SHARE): D(60000),
    Instrument("AAPL", "USD", *SHARE): D(250),
    Instrument("BTC", "USD", D("0.01"), D("0.000000001"), D("0.00001"), D(10**5), D(1)): D(60000),
}
COINS = frozenset({"BTC"})
HOUSE = House(
    prices=PRICES,
    balances={"USD": D(1_000_000)},
    maker_fee=D(0),
    taker_fee=D(0),
    order_id=lambda sequence: f"61e69015-8549-4bfd-b9c3-{sequence:012x}",
    trade_id=lambda sequence: f"8efc7b9a-8b2b-4000-9955-{sequence:012x}",
    refuses_reached_triggers=False,
)
INSTRUMENTS = {(item.symbol if item.base in COINS else item.base): item for item in HOUSE.prices}
FIELDS = frozenset(
    (
        "symbol", "qty", "side", "type", "time_in_force", "client_order_id", "limit_price",
        "stop_price", "trail_percent",
    )
)  # fmt: skip
TYPES = {
    "market": frozenset[str](),
    "limit": frozenset({"limit_price"}),
    "stop": frozenset({"stop_price"}),
    "stop_limit": frozenset({"limit_price", "stop_price"}),
    "trailing_stop": frozenset({"trail_percent"}),
}
COIN_TYPES = frozenset({"market", "limit", "stop_limit"})
TERMS = {True: frozenset({"gtc", "ioc"}), False: frozenset({"day", "gtc", "ioc", "fok"})}
NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
MESSAGES = {
    40010001: "client_order_id must be unique",
    40110000: "request is not authorized",
    40310000: "insufficient buying power",
    40410000: "order not found",
    42210000: "invalid order",
    42910000: "rate limit exceeded",
    50010000: "internal server error occurred",
}
REFUSALS = {
    Reason.INSUFFICIENT_FUNDS: 40310000,
    Reason.DUPLICATE_CLIENT_ID: 40010001,
    Reason.UNKNOWN_ORDER: 42210000,
}


class AlpacaError(Exception):
    """A refusal in Alpaca's words. The first three digits are the status, but for 40010001."""

    def __init__(self, code: int, message: str = "") -> None:
        self.code, self.message = code, message or MESSAGES[code]
        super().__init__(f"{code} {self.message}")

    def answer(self) -> Answer:
        status = 422 if self.code == 40010001 else self.code // 100_000
        body = {"code": self.code, "message": self.message}
        return reply(body, status=status, error=str(self))


@dataclass(frozen=True, slots=True)
class OrderForm:
    """The fields of an order as they were sent."""

    fields: Mapping[str, str]
    instrument: Instrument

    @property
    def is_coin(self) -> bool:
        return self.instrument.base in COINS

    def number(self, name: str) -> Decimal | None:
        said = self.fields.get(name)
        if said is None:
            return None
        if not NUMBER.fullmatch(said) or D(said) <= 0:
            raise AlpacaError(42210000, f"{name} must be a positive decimal")
        return D(said)


def read_form(request: Request) -> OrderForm:
    """The order of a request. Raises AlpacaError; fields nobody knows are refused on purpose."""
    try:
        sent: Any = json.loads(request.body)
    except ValueError:
        raise AlpacaError(40010001, "request body format is invalid") from None
    if not isinstance(sent, dict) or not all(isinstance(one, str) for one in sent.values()):
        raise AlpacaError(40010001, "request body format is invalid")
    if set(sent) - FIELDS:
        raise AlpacaError(40010001, f"unknown fields {sorted(set(sent) - FIELDS)}")
    if sent.get("symbol") not in INSTRUMENTS:
        raise AlpacaError(42210000, f"asset {sent.get('symbol')} not found")
    return OrderForm(sent, INSTRUMENTS[sent["symbol"]])


def check_form(form: OrderForm) -> None:
    """Raises AlpacaError."""
    kind, term = form.fields.get("type", ""), form.fields.get("time_in_force", "")
    prices = frozenset(form.fields) & {"limit_price", "stop_price", "trail_percent"}
    if TYPES.get(kind) != prices or form.fields.get("side") not in ("buy", "sell"):
        raise AlpacaError(42210000, "invalid order type")
    if form.is_coin and kind not in COIN_TYPES:
        raise AlpacaError(42210000, "invalid order type for crypto order")
    if term not in TERMS[form.is_coin]:
        raise AlpacaError(42210000, "invalid crypto time_in_force" if form.is_coin else "invalid")
    if len(form.fields.get("client_order_id", "")) > 128:
        raise AlpacaError(40010001, "client_order_id must be no more than 128 characters")
    quantity = form.number("qty")
    if quantity is None:
        raise AlpacaError(40010001, "qty or notional is required")
    if not form.is_coin and quantity % 1 and term != "day":
        raise AlpacaError(42210000, "fractional orders must be DAY orders")
    for name in ("limit_price", "stop_price"):
        price = form.number(name)
        if price is not None and price % form.instrument.tick:
            raise AlpacaError(
                42210000,
                f"invalid {name} {price}. sub-penny increment",
            )


def spec_of(form: OrderForm, account: str, last: Decimal, fill_delay_ms: int) -> OrderSpec:
    """The order as the ledger takes it; a trailing stop is one at the price of its first moment."""
    stop, percent = form.number("stop_price"), form.number("trail_percent")
    side = Side(form.fields["side"])
    if percent is not None:
        away = last * percent / 100
        stop = last + (away if side is Side.BUY else -away)
    term = form.fields["time_in_force"].upper()
    return OrderSpec(
        account=account,
        instrument=form.instrument,
        side=side,
        client_id=form.fields.get("client_order_id", ""),
        quantity=form.number("qty") or D(0),
        price=form.number("limit_price"),
        trigger=None if stop is None else Trigger.STOP,
        trigger_price=stop,
        time_in_force=TimeInForce.GTC if term == "DAY" else TimeInForce(term),
        fill_delay_ms=fill_delay_ms,
        details=dict(form.fields),
    )
