"""Bybit orders: from a request's JSON to the ledger, and from the ledger to rows."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from tests.venues.bybit.rules import INSTRUMENTS, LINEAR, SPOT, BybitError, text
from tests.venues.ledger import Ledger
from tests.venues.market import Instrument, Side
from tests.venues.orders import Order, OrderSpec, Status, TimeInForce, Trade, Trigger

LINK_ID = re.compile(r"[A-Za-z0-9_-]{0,36}")
SIDES = {"Buy": Side.BUY, "Sell": Side.SELL}
TIMES = {"GTC": TimeInForce.GTC, "IOC": TimeInForce.IOC, "FOK": TimeInForce.FOK}
KNOWN = frozenset(
    {"category", "symbol", "side", "orderType", "qty", "price", "timeInForce", "orderLinkId"}
    | {"orderFilter", "triggerPrice", "triggerDirection", "reduceOnly", "marketUnit", "positionIdx"}
)
KINDS = frozenset({"Order", "tpslOrder", "StopOrder", "OcoOrder", "BidirectionalTpslOrder"})
STATUSES = {
    Status.OPEN: "New",
    Status.PARTIALLY_FILLED: "PartiallyFilled",
    Status.FILLED: "Filled",
    Status.CANCELED: "Cancelled",
    Status.EXPIRED: "Cancelled",
}


def instrument_of(params: dict[str, str], category: str) -> Instrument:
    found = INSTRUMENTS[category].get(params.get("symbol", ""))
    if found is None:
        raise BybitError(170121 if category == SPOT else 10001, "Invalid symbol.")
    return found


def read_order(params: dict[str, str], category: str, account: str, ledger: Ledger) -> OrderSpec:
    """The order a request asks for, once it has passed every check; raises BybitError."""
    unknown = set(params) - KNOWN
    if unknown:
        raise BybitError(10001, f"unknown parameter {min(unknown)}")
    instrument = instrument_of(params, category)
    if params.get("side") not in SIDES or params.get("orderType") not in ("Market", "Limit"):
        raise BybitError(10001)
    side, market_order = SIDES[params["side"]], params["orderType"] == "Market"
    duration = params.get("timeInForce") or ("IOC" if market_order else "GTC")
    if duration not in TIMES and duration != "PostOnly":
        raise BybitError(10001, "timeInForce invalid")
    spec = OrderSpec(
        account,
        instrument,
        side,
        _link_id(params),
        post_only=duration == "PostOnly",
        fee_in_quote=category == LINEAR or side is Side.SELL,
        details={"type": params["orderType"], "filter": params.get("orderFilter", "Order")},
    )
    if not market_order:
        spec.time_in_force = TIMES.get(duration, TimeInForce.GTC)
        spec.price = number(params, "price", instrument.tick)
    spec.quantity = number(params, "qty", instrument.step)
    if market_order and category == SPOT and side is Side.BUY:
        _read_market_unit(params, spec)
    _read_trigger(params, category, spec)
    _check_size(spec, ledger)
    _check_reduction(params, category, spec, ledger)
    return spec


def _link_id(params: dict[str, str]) -> str:
    given = params.get("orderLinkId", "")
    if not LINK_ID.fullmatch(given):
        raise BybitError(10001, "orderLinkId invalid")
    return given


def number(params: dict[str, str], name: str, step: Decimal) -> Decimal:
    given = params.get(name, "")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", given) or not Decimal(given):
        raise BybitError(10001, f"{name} invalid")
    if Decimal(given) % step:
        raise BybitError(170137 if name == "qty" else 170134)
    return Decimal(given)


def _read_market_unit(params: dict[str, str], spec: OrderSpec) -> None:
    """Market buys on spot count in quote units unless told otherwise (Place Order, marketUnit)."""
    if params.get("marketUnit", "quoteCoin") != "baseCoin":
        spec.budget, spec.quantity = spec.quantity, Decimal(0)


def _read_trigger(params: dict[str, str], category: str, spec: OrderSpec) -> None:
    if "triggerPrice" not in params:
        if spec.details["filter"] != "Order":
            raise BybitError(10001, "triggerPrice invalid")
        return
    spec.trigger_price = number(params, "triggerPrice", spec.instrument.tick)
    if category == SPOT and spec.details["filter"] == "Order":
        raise BybitError(10001, "orderFilter invalid")
    direction = params.get("triggerDirection")
    if category == LINEAR and direction not in ("1", "2"):
        raise BybitError(10001, "TriggerDirection invalid")
    rising = direction == "1"
    stop = rising is (spec.side is Side.BUY)
    spec.trigger = Trigger.STOP if stop else Trigger.TAKE_PROFIT


def _check_size(spec: OrderSpec, ledger: Ledger) -> None:
    market = ledger.markets[spec.instrument.symbol]
    price = spec.price or spec.trigger_price or market.last
    quantity = spec.quantity if spec.budget is None else spec.budget / price
    if quantity < spec.instrument.minimum:
        raise BybitError(170136)
    if quantity * price < spec.instrument.minimum_cost:
        raise BybitError(170140)


def _check_reduction(
    params: dict[str, str], category: str, spec: OrderSpec, ledger: Ledger
) -> None:
    if category != LINEAR or params.get("reduceOnly", "false") != "true":
        return
    held = position(ledger, spec.account, spec.instrument.symbol)[0]
    closing = held * (-1 if spec.side is Side.BUY else 1)
    if closing <= 0:
        raise BybitError(110017)
    spec.quantity = min(spec.quantity, closing)


def position(ledger: Ledger, account: str, symbol: str) -> tuple[Decimal, Decimal, Decimal]:
    """Net quantity, average entry price and realised result of an account's trades."""
    held = cost = realised = Decimal(0)
    for trade in ledger.account(account).trades_by_symbol[symbol]:
        signed = trade.quantity if trade.order.spec.side is Side.BUY else -trade.quantity
        if held * signed < 0:
            closed = min(abs(held), abs(signed)) * (1 if held > 0 else -1)
            realised += closed * (trade.price - cost / held)
            cost -= closed * (cost / held)
            held, signed = held - closed, signed + closed
        held, cost = held + signed, cost + signed * trade.price
    return held, (cost / held if held else Decimal(0)), realised


def kind_of(order: Order) -> str:
    """What `orderFilter` calls it; a stop that was triggered is an order like any other."""
    waits = order.spec.trigger is not None and order.working_at is None
    return str(order.spec.details["filter"]) if waits else "Order"


def order_row(order: Order) -> dict[str, Any]:
    spec = order.spec
    waiting = spec.trigger is not None and order.working_at is None and order.live
    status = "Untriggered" if waiting else STATUSES[order.status]
    if order.status is Status.CANCELED and order.filled and spec.details["filter"] == "Order":
        status = "PartiallyFilledCanceled" if spec.fee_in_quote is False else "Cancelled"
    return {
        "orderId": order.id,
        "orderLinkId": spec.client_id,
        "symbol": spec.instrument.base + spec.instrument.quote,
        "price": text(spec.price or Decimal(0)),
        "qty": text(order.quantity),
        "side": spec.side.value.capitalize(),
        "positionIdx": 0,
        "orderStatus": status,
        "rejectReason": "EC_NoError",
        "avgPrice": text(order.average) if order.filled else "",
        "leavesQty": text(order.remaining) if order.live else "0",
        "cumExecQty": text(order.filled),
        "cumExecValue": text(order.cost),
        "cumExecFee": text(order.fee),
        "timeInForce": "PostOnly" if spec.post_only else spec.time_in_force.value,
        "orderType": spec.details["type"],
        "triggerPrice": text(spec.trigger_price or Decimal(0)),
        "reduceOnly": False,
        "createdTime": str(order.created_at),
        "updatedTime": str(order.updated_at),
    }


def trade_row(trade: Trade) -> dict[str, Any]:
    spec = trade.order.spec
    return {
        "symbol": spec.instrument.base + spec.instrument.quote,
        "orderId": trade.order.id,
        "orderLinkId": spec.client_id,
        "side": spec.side.value.capitalize(),
        "orderQty": text(trade.order.quantity),
        "orderType": spec.details["type"],
        "execFee": text(trade.fee),
        "feeCurrency": trade.fee_asset,
        "execId": trade.id,
        "execPrice": text(trade.price),
        "execQty": text(trade.quantity),
        "execType": "Trade",
        "execValue": text(trade.cost),
        "execTime": str(trade.time),
        "isMaker": trade.maker,
    }
