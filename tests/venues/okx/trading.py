"""OKX orders: from a request's JSON to the ledger, and from the ledger to rows.

Orders with a trigger are a list of their own, with ids of their own; once triggered they have put
an ordinary order into the other list.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from tests.venues.bybit.trading import position
from tests.venues.ledger import Ledger
from tests.venues.market import Instrument, Side
from tests.venues.okx.rules import INSTRUMENTS, SPOT, SWAP, OkxError, text, unit, venue_id
from tests.venues.orders import Order, OrderSpec, Status, TimeInForce, Trade, Trigger

CLIENT_ID = re.compile(r"[A-Za-z0-9]{0,32}")
TYPES = {
    "market": TimeInForce.GTC,
    "limit": TimeInForce.GTC,
    "post_only": TimeInForce.GTC,
    "ioc": TimeInForce.IOC,
    "fok": TimeInForce.FOK,
}
PLAIN = frozenset(
    [
        "instId",
        "tdMode",
        "side",
        "ordType",
        "sz",
        "px",
        "clOrdId",
        "tgtCcy",
        "reduceOnly",
        "posSide",
        "tag",
    ]
)
ALGO = frozenset(
    {"instId", "tdMode", "side", "ordType", "sz", "algoClOrdId", "clOrdId", "reduceOnly", "posSide"}
    | {"tag", "tgtCcy", "slTriggerPx", "slOrdPx", "slTriggerPxType"}
)
STATES = {
    Status.OPEN: "live",
    Status.PARTIALLY_FILLED: "partially_filled",
    Status.FILLED: "filled",
    Status.CANCELED: "canceled",
    Status.EXPIRED: "canceled",
}
CHILD = "1"
"""What the id of the order put in by a triggered one begins with."""


def instrument_of(params: dict[str, str], kind: str) -> Instrument:
    found = INSTRUMENTS[kind].get(params.get("instId", ""))
    if found is None:
        raise OkxError(51001)
    return found


def read_order(
    params: dict[str, str], kind: str, account: str, ledger: Ledger, *, algo: bool
) -> OrderSpec:
    """The order a request asks for, once it has passed every check; raises OkxError."""
    unknown = set(params) - (ALGO if algo else PLAIN)
    if unknown:
        raise OkxError(51000, f"Parameter {min(unknown)} error")
    instrument = instrument_of(params, kind)
    modes = ("cash",) if kind == SPOT else ("cross", "isolated")
    if params.get("tdMode") not in modes or params.get("side") not in ("buy", "sell"):
        raise OkxError(51000, "Parameter tdMode error", item=True)
    side, how = Side(params["side"]), params.get("ordType", "")
    if how not in (("conditional",) if algo else TYPES):
        raise OkxError(51000, "Parameter ordType error", item=True)
    spec = OrderSpec(
        account,
        instrument,
        side,
        _client_id(params, "algoClOrdId" if algo else "clOrdId"),
        post_only=how == "post_only",
        fee_in_quote=kind == SWAP or side is Side.SELL,
        details={"type": how},
    )
    size = number(params, "sz") * unit(kind, instrument)
    _read_size(params, size, spec, market=how == "market")
    if algo:
        spec.trigger, spec.trigger_price = Trigger.STOP, number(params, "slTriggerPx")
        spec.price = None if params.get("slOrdPx") == "-1" else number(params, "slOrdPx")
    elif how != "market":
        spec.price, spec.time_in_force = number(params, "px"), TYPES[how]
    _check_reduction(params, spec, ledger)
    return spec


def _client_id(params: dict[str, str], name: str) -> str:
    given = params.get(name, "")
    if not CLIENT_ID.fullmatch(given):
        raise OkxError(51000, f"Parameter {name} error", item=True)
    return given


def number(params: dict[str, str], name: str) -> Decimal:
    given = params.get(name, "")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", given) or not Decimal(given):
        raise OkxError(51000, f"Parameter {name} error", item=True)
    return Decimal(given)


def _read_size(params: dict[str, str], size: Decimal, spec: OrderSpec, *, market: bool) -> None:
    """Market buys on spot count in quote units unless told otherwise (Place order, tgtCcy)."""
    spot_buy = spec.side is Side.BUY and not spec.fee_in_quote
    if market and spot_buy and params.get("tgtCcy", "quote_ccy") == "quote_ccy":
        spec.budget = size
        return
    if size % spec.instrument.step:
        raise OkxError(51121, item=True)
    if size < spec.instrument.minimum:
        raise OkxError(51020, item=True)
    spec.quantity = size


def _check_reduction(params: dict[str, str], spec: OrderSpec, ledger: Ledger) -> None:
    if params.get("reduceOnly", "false") != "true":
        return
    held = position(ledger, spec.account, spec.instrument.symbol)[0]
    closing = held * (-1 if spec.side is Side.BUY else 1)
    if closing <= 0:
        raise OkxError(51169, item=True)
    spec.quantity = min(spec.quantity, closing)


def is_algo(order: Order) -> bool:
    return order.spec.trigger is not None


def plain_id(order: Order) -> str:
    """The id in the list of ordinary orders."""
    return CHILD + order.id if is_algo(order) else order.id


def order_row(kind: str, order: Order) -> dict[str, Any]:
    spec = order.spec
    size = unit(kind, spec.instrument)
    return {
        "instType": kind,
        "instId": venue_id(kind, spec.instrument),
        "ordId": plain_id(order),
        "clOrdId": "" if is_algo(order) else spec.client_id,
        "algoClOrdId": spec.client_id if is_algo(order) else "",
        "algoId": order.id if is_algo(order) else "",
        "px": text(spec.price) if spec.price else "",
        "sz": text(order.quantity / size),
        "ordType": "limit" if is_algo(order) and spec.price else spec.details["type"],
        "side": spec.side.value,
        "tdMode": "cash" if kind == SPOT else "cross",
        "accFillSz": text(order.filled / size),
        "avgPx": text(order.average) if order.filled else "",
        "state": STATES[order.status],
        "fee": text(-order.fee),
        "tgtCcy": "base_ccy" if kind == SPOT else "",
        "cTime": str(order.created_at),
        "uTime": str(order.updated_at),
        "cancelSource": "1" if order.status is Status.CANCELED else "",
    }


def algo_row(kind: str, order: Order) -> dict[str, Any]:
    spec = order.spec
    state = "live"
    if order.working_at is not None:
        state = "effective"
    elif not order.live:
        state = "canceled"
    return {
        "instType": kind,
        "instId": venue_id(kind, spec.instrument),
        "algoId": order.id,
        "algoClOrdId": spec.client_id,
        "ordType": "conditional",
        "side": spec.side.value,
        "sz": text(order.quantity / unit(kind, spec.instrument)),
        "slTriggerPx": text(spec.trigger_price or Decimal(0)),
        "slOrdPx": text(spec.price) if spec.price else "-1",
        "state": state,
        "ordIdList": [plain_id(order)] if state == "effective" else [],
        "cTime": str(order.created_at),
        "failCode": "",
    }


def trade_row(kind: str, trade: Trade) -> dict[str, Any]:
    spec = trade.order.spec
    return {
        "instType": kind,
        "instId": venue_id(kind, spec.instrument),
        "tradeId": trade.id,
        "billId": str(10**17 + trade.sequence),
        "ordId": plain_id(trade.order),
        "clOrdId": "" if is_algo(trade.order) else spec.client_id,
        "fillPx": text(trade.price),
        "fillSz": text(trade.quantity / unit(kind, spec.instrument)),
        "side": spec.side.value,
        "execType": "M" if trade.maker else "T",
        "fee": text(-trade.fee),
        "feeCcy": trade.fee_asset,
        "ts": str(trade.time),
    }
