"""What ProjectX trades here, its codes, and the checks an order must pass (Gateway API)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.venues.house import House
from tests.venues.market import Instrument, Side
from tests.venues.orders import OrderSpec, Reason, Trigger
from tests.venues.venue import Answer, Request, reply

D = Decimal
ACCOUNT, ACCOUNT_ID = "TEST-50K", 465
JUMP = Instrument("NKDZ26", "USD", D(5), D(1), D(1), D(100), D(0))
SPOO = Instrument("EPZ26", "USD", D("0.25"), D(1), D(1), D(100), D(0))
PRICES = {JUMP: D(60000), SPOO: D(6000)}
MULTIPLIERS = {"NKDZ26": D(2), "EPZ26": D(50)}
"""Dollars of a whole point; the ledger counts contracts."""
UNSEEN = {"NKDZ26": D(10**6), "EPZ26": D(10**6), "USD": D(10**9)}
"""What lets an account trade on margin in a ledger that only knows holdings; never shown."""
BALANCE = D("50000.12")
FEE = D("1.4")
HOUSE = House(
    prices=PRICES,
    balances=UNSEEN,
    maker_fee=D(0),
    taker_fee=D(0),
    order_id=lambda sequence: str(9000 + sequence),
    trade_id=lambda sequence: str(8600 + sequence),
    refuses_reached_triggers=False,
)
IDS = {f"CON.F.US.{item.base[:-3]}.{item.base[-3:]}": item for item in HOUSE.prices}
FIELDS = frozenset(
    ("accountId", "contractId", "type", "side", "size", "limitPrice", "stopPrice", "customTag")
)
PRICED = {1: frozenset({"limitPrice"}), 2: frozenset[str](), 4: frozenset({"stopPrice"})}
WORDS = {1: "limit", 2: "market", 4: "stop"}
CODES = {Reason.DUPLICATE_CLIENT_ID: 2, Reason.INSUFFICIENT_FUNDS: 3, Reason.UNKNOWN_ORDER: 5}


class ProjectXError(Exception):
    """A refusal, which comes with status 200."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code, self.message = code, message

    def answer(self) -> Answer:
        body = {"success": False, "errorCode": self.code, "errorMessage": self.message}
        return reply(body, error=str(self))


def body_of(request: Request) -> dict[str, Any]:
    """Numbers that are no integers stay exact. Raises ProjectXError."""
    try:
        body: Any = json.loads(request.body, parse_float=Decimal)
    except ValueError:
        raise ProjectXError(7, "no JSON") from None
    if not isinstance(body, dict):
        raise ProjectXError(7, "no object")
    return body


def check(order: Mapping[str, Any]) -> Instrument:
    """Raises ProjectXError; fields nobody knows are refused on purpose."""
    instrument = IDS.get(str(order.get("contractId")))
    if order.get("accountId") != ACCOUNT_ID:
        raise ProjectXError(1, "account not found")
    if instrument is None:
        raise ProjectXError(8, "contract not found")
    prices = frozenset(order) & {"limitPrice", "stopPrice"}
    kind = order.get("type")
    if set(order) - FIELDS or kind not in PRICED or PRICED[kind] != prices:
        raise ProjectXError(2, "type and prices do not fit each other")
    size = order.get("size")
    if type(size) is not int or not 0 < size <= instrument.maximum or order["side"] not in (0, 1):
        raise ProjectXError(2, "size or side is invalid")
    for name in prices:
        if not isinstance(order[name], int | Decimal) or order[name] % instrument.tick:
            raise ProjectXError(2, "the price is not a multiple of the tick")
    return instrument


def spec_of(order: Mapping[str, Any], account: str, fill_delay_ms: int) -> OrderSpec:
    """The order as the ledger takes it."""
    stop = order.get("stopPrice")
    return OrderSpec(
        account=account,
        instrument=IDS[order["contractId"]],
        side=Side.SELL if order["side"] else Side.BUY,
        client_id=str(order.get("customTag") or ""),
        quantity=D(order["size"]),
        price=D(order["limitPrice"]) if "limitPrice" in order else None,
        trigger=None if stop is None else Trigger.STOP,
        trigger_price=None if stop is None else D(stop),
        fill_delay_ms=fill_delay_ms,
        details={"type": WORDS[order["type"]], "number": str(order["type"])},
    )
