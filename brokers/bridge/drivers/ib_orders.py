"""What TWS wants in an order, and what its messages about one amount to.

Sources: interactivebrokers.github.io/tws-api/basic_orders.html, order_submission.html (order states)
and message_codes.html. Numbers leave as texts: ib_async would write a small Decimal with an exponent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from brokers.bridge.drivers.ib_contracts import Traded
from brokers.decimals import decimal_text
from brokers.errors import NotSupportedError
from brokers.types import ExecutionResult, OrderRequest, OrderType, Outcome, Side, TimeInForce

TYPES = {
    OrderType.MARKET: "MKT",
    OrderType.LIMIT: "LMT",
    OrderType.STOP: "STP",
    OrderType.STOP_LIMIT: "STP LMT",
    OrderType.TRAILING_STOP: "TRAIL",
}
TIMES = {
    TimeInForce.GTC: "GTC",
    TimeInForce.DAY: "DAY",
    TimeInForce.IOC: "IOC",
    TimeInForce.FOK: "FOK",
}
TAKEN = frozenset({"PreSubmitted", "Submitted", "Filled", "Cancelled", "ApiCancelled"})
"""States of an order that Interactive Brokers has or had; PendingSubmit is TWS's word for "sent", and
Inactive may be refused or waiting."""
REJECTED = frozenset({107, 109, 110, 116, 132, 200, 201, 203})
"""Codes that say in their own text that the order was refused or not transmitted."""
DUPLICATE_NUMBER = 103
"""TWS has had an order with this number and does not take another one."""
WARNINGS = frozenset({399, 404, 10167})
"""Codes of orders that live: 399 tells when it will work, 404 that shares are sought for it."""
CANCELED = 202
NOTHING_TO_CANCEL = frozenset({135, 161, 10147, 10148})
DEAD = NOTHING_TO_CANCEL | REJECTED | {CANCELED, DUPLICATE_NUMBER}
"""Codes of an order that does not work any more, or never did."""
AGAIN = 1
"""Seconds until an order whose number was taken may be tried with another one."""
Said = Sequence[tuple[int, str]]


def fields(request: OrderRequest, traded: Traded, account: str, client_id: str) -> dict[str, Any]:
    """The fields of ib_async's Order that are ours to set. Raises NotSupportedError."""
    contracts = request.quantity / traded.units
    if contracts % traded.step:
        raise NotSupportedError(f"{contracts:f} is no multiple of {traded.step:f} contracts")
    told = {
        "action": "BUY" if request.side is Side.BUY else "SELL",
        "totalQuantity": decimal_text(contracts),
        "orderType": TYPES[request.type],
        "tif": TIMES[request.time_in_force],
        "account": account,
        "orderRef": client_id,
        "outsideRth": traded.outside_rth,
    }
    numbers: dict[str, Decimal | None] = {
        "lmtPrice": request.price,
        "auxPrice": request.stop_price,
        "trailingPercent": request.trailing_percent,
    }
    return told | {name: decimal_text(n) for name, n in numbers.items() if n is not None}


def stop_fields(told: Mapping[str, Any], price: Decimal, client_id: str) -> dict[str, Any]:
    """The fields of the stop that leaves with the entry ``told``.

    Source: interactivebrokers.github.io/tws-api/bracket_order.html.
    """
    return {
        "action": "SELL" if told["action"] == "BUY" else "BUY",
        "totalQuantity": told["totalQuantity"],
        "orderType": TYPES[OrderType.STOP],
        "tif": TIMES[TimeInForce.GTC],
        "account": told["account"],
        "orderRef": client_id,
        "outsideRth": told["outsideRth"],
        "auxPrice": decimal_text(price),
    }


def judge(trade: Any, said: Said, client_id: str) -> ExecutionResult | None:
    """How the placement ended, or ``None`` while nothing proves anything.

    ib_async calls every order with an error cancelled. Its word does not count, only the states TWS
    sent, which are in the trade's log without a code, for an order that carries our reference.
    """
    is_ours = trade.order.permId > 0 and trade.order.orderRef == client_id
    states = [entry.status for entry in trade.log if not entry.errorCode]
    codes = {code for code, _ in said}
    if codes & REJECTED and not trade.fills:
        return ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail=words(said))
    if DUPLICATE_NUMBER in codes and not is_ours:
        code, detail = "VENUE_UNREACHABLE", words(said)
        return ExecutionResult(Outcome.NOT_SENT, code=code, detail=detail, retry_after=AGAIN)
    if is_ours and (trade.fills or CANCELED in codes or not TAKEN.isdisjoint(states)):
        detail = f"TWS: {states[-1]} {words(said)}".strip()
        return ExecutionResult(Outcome.ACCEPTED, str(trade.order.permId), detail=detail)
    return None


def is_serious(said: Said) -> bool:
    """Whether TWS said more than a warning: the rest of its answer will come soon or never."""
    return any(code not in WARNINGS and not 2100 <= code < 2200 for code, _ in said)


def words(said: Said) -> str:
    return "; ".join(f"{text} ({code})" for code, text in said)


def evidence(told: Mapping[str, Any], trade: Any, said: Said) -> dict[str, Any]:
    """Request and answer as JSON without floats."""
    answer = {
        "number": str(trade.order.orderId),
        "perm_id": str(trade.order.permId),
        "states": [entry.status for entry in trade.log],
        "messages": [f"{code}: {text}" for code, text in said],
    }
    return {"request": {name: str(value) for name, value in told.items()}, "answer": answer}
