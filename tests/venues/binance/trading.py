"""Binance orders: from request parameters to the ledger, and from the ledger to JSON."""

from __future__ import annotations

import re
import secrets
from decimal import Decimal

from tests.venues.binance import rules
from tests.venues.binance.errors import BinanceError, filter_failure, missing, unneeded
from tests.venues.binance.parameters import Params, choice, decimal, instrument_of, names
from tests.venues.binance.rules import market_id, places
from tests.venues.ledger import Ledger
from tests.venues.market import Side
from tests.venues.orders import Order, OrderSpec, Status, TimeInForce, Trade, Trigger
from tests.venues.venue import Request

ORDER_PARAMETERS = names(
    "symbol side type timeInForce quantity quoteOrderQty price newClientOrderId stopPrice "
    "newOrderRespType selfTradePreventionMode strategyId strategyType"
)
CLIENT_ID = re.compile(r"[a-zA-Z0-9\-_]{1,36}")
PRICED = {"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"}
TIMED = PRICED - {"LIMIT_MAKER"}
TRIGGERS = {
    "STOP_LOSS": Trigger.STOP,
    "STOP_LOSS_LIMIT": Trigger.STOP,
    "TAKE_PROFIT": Trigger.TAKE_PROFIT,
    "TAKE_PROFIT_LIMIT": Trigger.TAKE_PROFIT,
}
STATUSES = {
    Status.OPEN: "NEW",
    Status.PARTIALLY_FILLED: "PARTIALLY_FILLED",
    Status.FILLED: "FILLED",
    Status.CANCELED: "CANCELED",
    Status.EXPIRED: "EXPIRED",
}


def read_order(request: Request, account: str, ledger: Ledger) -> OrderSpec:
    """The order a request asks for, once it has passed every filter; raises BinanceError."""
    params = request.params
    instrument = instrument_of(params)
    kind = choice(params, "type", rules.ORDER_TYPES, -1116)
    side = Side(choice(params, "side", ("BUY", "SELL"), -1117).lower())
    spec = OrderSpec(
        account,
        instrument,
        side,
        _client_id(params),
        trigger=TRIGGERS.get(kind),
        time_in_force=_time_in_force(params, kind),
        post_only=kind == "LIMIT_MAKER",
        fee_in_quote=side is Side.SELL,
        fill_delay_ms=request.fill_delay_ms,
        details={"type": kind},
    )
    _read_amount(params, kind, spec)
    spec.price = _wanted(params, "price", kind in PRICED)
    spec.trigger_price = _wanted(params, "stopPrice", kind in TRIGGERS)
    _check_filters(spec, kind, ledger)
    return spec


def _client_id(params: Params) -> str:
    given = params.get("newClientOrderId")
    if given is None:
        return secrets.token_hex(11)
    if not CLIENT_ID.fullmatch(given):
        raise BinanceError(
            -1100,
            "Illegal characters found in parameter 'newClientOrderId'; "
            "legal range is '^[a-zA-Z0-9-_]{1,36}$'.",
        )
    return given


def _time_in_force(params: Params, kind: str) -> TimeInForce:
    if kind in TIMED:
        return TimeInForce(choice(params, "timeInForce", tuple(TimeInForce), -1115))
    if "timeInForce" in params:
        raise unneeded("timeInForce")
    return TimeInForce.GTC


def _wanted(params: Params, name: str, needed: bool) -> Decimal | None:
    if needed and not params.get(name):
        raise missing(name)
    if not needed and name in params:
        raise unneeded(name)
    return decimal(name, params[name]) if needed else None


def _read_amount(params: Params, kind: str, spec: OrderSpec) -> None:
    budget = params.get("quoteOrderQty")
    if kind == "MARKET" and budget is not None:
        if "quantity" in params:
            raise BinanceError(-1128, "Combination of optional parameters invalid.")
        spec.budget = decimal("quoteOrderQty", budget)
        return
    if kind == "MARKET" and not params.get("quantity"):
        raise BinanceError(
            -1102, "Param 'quantity' or 'quoteOrderQty' must be sent, but both were empty/null!"
        )
    quantity = _wanted(params, "quantity", True)
    assert quantity is not None
    spec.quantity = quantity


def _check_filters(spec: OrderSpec, kind: str, ledger: Ledger) -> None:
    instrument = spec.instrument
    market = ledger.markets[instrument.symbol]
    for price in (spec.price, spec.trigger_price):
        if price is not None:
            rules.check_price(instrument, price)
            rules.check_range(spec.side, price, market)
    if spec.budget is not None:
        rules.check_notional(instrument, spec.budget)
    else:
        rules.check_quantity(instrument, spec.quantity)
        if kind == "MARKET":
            rules.check_market_quantity(instrument, spec.quantity)
        reference = spec.price or spec.trigger_price or market.last
        rules.check_notional(instrument, spec.quantity * reference)
    _check_open_orders(spec, ledger)


def _check_open_orders(spec: OrderSpec, ledger: Ledger) -> None:
    symbol = spec.instrument.symbol
    working = [
        order
        for order in ledger.account(spec.account).open.values()
        if order.spec.instrument.symbol == symbol
    ]
    if len(working) >= rules.MAX_NUM_ORDERS:
        raise filter_failure("MAX_NUM_ORDERS")
    algos = sum(1 for order in working if order.spec.trigger and order.working_at is None)
    if spec.trigger and algos >= rules.MAX_NUM_ALGO_ORDERS:
        raise filter_failure("MAX_NUM_ALGO_ORDERS")


def order_fields(order: Order) -> dict[str, object]:
    """What every Binance answer about an order contains."""
    spec = order.spec
    data: dict[str, object] = {
        "symbol": market_id(spec.instrument),
        "orderId": int(order.id),
        "orderListId": -1,
        "clientOrderId": spec.client_id,
        "price": places(spec.price or Decimal(0)),
        "origQty": places(order.quantity),
        "executedQty": places(order.filled),
        "origQuoteOrderQty": places(spec.budget or Decimal(0)),
        "cummulativeQuoteQty": places(order.cost),
        "status": STATUSES[order.status],
        "timeInForce": spec.time_in_force.value,
        "type": spec.details["type"],
        "side": spec.side.value.upper(),
        "selfTradePreventionMode": "EXPIRE_MAKER",
    }
    if spec.trigger_price is not None:
        data["stopPrice"] = places(spec.trigger_price)
    return data


def placed(order: Order, response_type: str) -> dict[str, object]:
    """The answer to a new order: ACK, RESULT or FULL."""
    fields = order_fields(order)
    if response_type == "ACK":
        names = ("symbol", "orderId", "orderListId", "clientOrderId")
        return {name: fields[name] for name in names} | {"transactTime": order.created_at}
    fields["transactTime"] = order.updated_at
    fields["workingTime"] = -1 if order.working_at is None else order.working_at
    if response_type == "FULL":
        fields["fills"] = [
            {
                "price": places(trade.price),
                "qty": places(trade.quantity),
                "commission": places(trade.fee),
                "commissionAsset": trade.fee_asset,
                "tradeId": int(trade.id),
            }
            for trade in order.trades
        ]
    return fields


def queried(order: Order) -> dict[str, object]:
    return (
        {"stopPrice": places(Decimal(0))}
        | order_fields(order)
        | {
            "icebergQty": places(Decimal(0)),
            "time": order.created_at,
            "updateTime": order.updated_at,
            "isWorking": order.working_at is not None,
            "workingTime": -1 if order.working_at is None else order.working_at,
        }
    )


def canceled(order: Order, cancel_id: str) -> dict[str, object]:
    return order_fields(order) | {
        "origClientOrderId": order.spec.client_id,
        "clientOrderId": cancel_id or secrets.token_hex(11),
        "transactTime": order.updated_at,
    }


def listed(trade: Trade) -> dict[str, object]:
    """One row of the account trade list."""
    spec = trade.order.spec
    return {
        "symbol": market_id(spec.instrument),
        "id": int(trade.id),
        "orderId": int(trade.order.id),
        "orderListId": -1,
        "price": places(trade.price),
        "qty": places(trade.quantity),
        "quoteQty": places(trade.cost),
        "commission": places(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.time,
        "isBuyer": spec.side is Side.BUY,
        "isMaker": trade.maker,
        "isBestMatch": True,
    }
