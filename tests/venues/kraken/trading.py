"""Kraken orders: from AddOrder's arguments to the ledger, and from the ledger to JSON.

Refused rather than half imitated: margin, conditional close, relative prices, iceberg,
trailing and good-till-date orders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from tests.venues.kraken.rules import (
    BY_SYMBOL,
    MAX_OPEN_ORDERS,
    VOLUME_DECIMALS,
    KrakenError,
    Pair,
    invalid,
    pair_of,
    volume,
)
from tests.venues.ledger import Ledger
from tests.venues.market import Side
from tests.venues.orders import Order, OrderSpec, Status, TimeInForce, Trade, Trigger
from tests.venues.venue import Request

Params = Mapping[str, str]
CLIENT_ID = re.compile(
    r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}|[!-~]{1,18}"
)
USERREF = re.compile(r"[+-]?[0-9]{1,10}")
AMOUNT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
DEADLINE_MAX_MS = 60_000
TRIGGERS = {
    "stop-loss": Trigger.STOP,
    "stop-loss-limit": Trigger.STOP,
    "take-profit": Trigger.TAKE_PROFIT,
    "take-profit-limit": Trigger.TAKE_PROFIT,
}
TYPES = {"market", "limit", *TRIGGERS}
STATUSES = {
    Status.OPEN: "open",
    Status.PARTIALLY_FILLED: "open",
    Status.FILLED: "closed",
    Status.CANCELED: "canceled",
    Status.EXPIRED: "canceled",
}
NO_LEVERAGE = ("", "none", "0", "1")


def flag(params: Params, name: str) -> bool:
    return params.get(name, "").lower() in ("true", "1")


def read_order(request: Request, account: str, ledger: Ledger) -> OrderSpec:
    """The order a request asks for, once it has passed every check; raises KrakenError."""
    params = request.params
    kind, side = params.get("ordertype", ""), params.get("type", "")
    if kind not in TYPES:
        raise invalid("ordertype")
    if side not in ("buy", "sell"):
        raise invalid("type")
    if not params.get("pair"):
        raise invalid("pair")
    pair = pair_of(params["pair"])
    _refuse_unimitated(params)
    flags = {item for item in params.get("oflags", "").split(",") if item}
    spec = OrderSpec(
        account,
        pair.instrument,
        Side(side),
        _client_id(params),
        trigger=TRIGGERS.get(kind),
        time_in_force=_time_in_force(params),
        post_only="post" in flags,
        fee_in_quote="fcib" not in flags,
        fill_delay_ms=request.fill_delay_ms,
        details={"type": kind, "userref": params.get("userref", "")},
    )
    _read_prices(params, kind, pair, spec)
    _read_volume(params, "viqc" in flags, spec)
    spec.details["oflags"] = ",".join(sorted(flags | ({"fciq"} if spec.fee_in_quote else set())))
    _check_minimum(spec, ledger)
    _check_open_orders(spec, ledger)
    return spec


def check_deadline(params: Params, now_ms: int) -> None:
    """`deadline` is RFC 3339, at most a minute ahead; orders that reach it are not placed."""
    text = params.get("deadline")
    if text is None:
        return
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid("deadline") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    left_ms = round(moment.timestamp() * 1000) - now_ms
    if left_ms > DEADLINE_MAX_MS:
        raise invalid("deadline")
    if left_ms <= 0:
        raise KrakenError("EService:Deadline elapsed")


def _refuse_unimitated(params: Params) -> None:
    if params.get("leverage", "") not in NO_LEVERAGE:
        raise KrakenError("EOrder:Cannot open position")
    if flag(params, "reduce_only"):
        raise KrakenError("EOrder:Reduce only:No position exists")
    if any(name.startswith("close") for name in params):
        raise invalid("close")
    if params.get("trigger", "last") != "last":
        raise invalid("Index unavailable")


def _client_id(params: Params) -> str:
    client_id, userref = params.get("cl_ord_id", ""), params.get("userref", "")
    if client_id and userref:
        raise invalid("cl_ord_id and userref are mutually exclusive")
    if client_id and not CLIENT_ID.fullmatch(client_id):
        raise invalid("cl_ord_id")
    if userref and not USERREF.fullmatch(userref):
        raise invalid("userref")
    return client_id


def _time_in_force(params: Params) -> TimeInForce:
    given = params.get("timeinforce") or "GTC"
    if given not in tuple(TimeInForce):
        raise invalid("timeinforce")
    return TimeInForce(given)


def _amount(text: str | None, argument: str) -> Decimal:
    if text is None or not AMOUNT.fullmatch(text) or Decimal(text) <= 0:
        raise invalid(argument)
    return Decimal(text)


def _price(params: Params, name: str, pair: Pair) -> Decimal:
    price = _amount(params.get(name), name)
    if price % pair.instrument.tick:
        raise KrakenError(
            f"EOrder:Invalid price:{pair.altname} {name} can only be specified "
            f"up to {pair.decimals} decimals."
        )
    return price


def _read_prices(params: Params, kind: str, pair: Pair, spec: OrderSpec) -> None:
    if spec.trigger is not None:
        spec.trigger_price = _price(params, "price", pair)
        if kind.endswith("-limit"):
            spec.price = _price(params, "price2", pair)
    elif kind == "limit":
        spec.price = _price(params, "price", pair)
    if spec.post_only and kind != "limit":
        raise invalid("oflags")


def _read_volume(params: Params, in_quote: bool, spec: OrderSpec) -> None:
    amount = _amount(params.get("volume"), "volume")
    if amount % Decimal(1).scaleb(-VOLUME_DECIMALS):
        raise invalid("volume")
    if not in_quote:
        spec.quantity = amount
    elif spec.details["type"] == "market":
        spec.budget = amount
    else:
        raise invalid("viqc")


def _check_minimum(spec: OrderSpec, ledger: Ledger) -> None:
    instrument = spec.instrument
    market = ledger.markets[instrument.symbol]
    price = spec.price or spec.trigger_price or market.last
    quantity = spec.quantity if spec.budget is None else spec.budget / price
    if quantity < instrument.minimum:
        raise KrakenError("EOrder:Order minimum not met")
    if quantity * price < instrument.minimum_cost:
        raise KrakenError("EOrder:Cost minimum not met")


def _check_open_orders(spec: OrderSpec, ledger: Ledger) -> None:
    working = ledger.account(spec.account).open.values()
    same = sum(1 for order in working if order.spec.instrument == spec.instrument)
    if same >= MAX_OPEN_ORDERS:
        raise KrakenError("EOrder:Orders limit exceeded")


def sentence(order: Order) -> str:
    """The order in words, e.g. `buy 0.02100000 ETHUSD @ limit 330.00`."""
    spec = order.spec
    pair = BY_SYMBOL[spec.instrument.symbol]
    amount = order.quantity if spec.budget is None else spec.budget
    words = f"{spec.side} {volume(amount)} {pair.altname} @ "
    kind = spec.details["type"]
    if spec.trigger_price is None:
        return words + (kind if spec.price is None else f"{kind} {pair.price(spec.price)}")
    words += f"{kind.removesuffix('-limit').replace('-', ' ')} {pair.price(spec.trigger_price)}"
    return words if spec.price is None else f"{words} -> limit {pair.price(spec.price)}"


def description(order: Order) -> dict[str, object]:
    spec = order.spec
    pair = BY_SYMBOL[spec.instrument.symbol]
    first = spec.price if spec.trigger_price is None else spec.trigger_price
    second = None if spec.trigger_price is None else spec.price
    return {
        "pair": pair.altname,
        "aclass": "forex",
        "type": spec.side.value,
        "ordertype": spec.details["type"],
        "price": "0" if first is None else pair.price(first),
        "price2": "0" if second is None else pair.price(second),
        "leverage": "none",
        "order": sentence(order),
        "close": "",
    }


def order_info(order: Order, *, with_trades: bool, trade_times: int = 1) -> dict[str, object]:
    """One order as OpenOrders, ClosedOrders and QueryOrders show it."""
    spec = order.spec
    pair = BY_SYMBOL[spec.instrument.symbol]
    zero = pair.money(Decimal(0))
    info: dict[str, object] = {
        "refid": None,
        "userref": int(spec.details["userref"]) if spec.details["userref"] else None,
        "status": STATUSES[order.status],
        "opentm": order.created_at / 1000,
        "starttm": 0,
        "expiretm": 0,
        "descr": description(order),
        "vol": volume(order.quantity),
        "vol_exec": volume(order.filled),
        "cost": pair.money(order.cost),
        "fee": volume(order.fee),
        "price": pair.money(order.average),
        "stopprice": zero if spec.trigger_price is None else pair.money(spec.trigger_price),
        "limitprice": zero,
        "misc": "",
        "oflags": spec.details["oflags"],
    }
    if spec.client_id:
        info["cl_ord_id"] = spec.client_id
    if not order.live:
        info |= {"closetm": order.updated_at / 1000, "reason": order.reason or None}
    if with_trades and order.trades:
        info["trades"] = [trade.id for trade in order.trades for _ in range(trade_times)]
    return info


def trade_info(trade: Trade) -> dict[str, object]:
    """One trade as TradesHistory and QueryTrades show it."""
    spec = trade.order.spec
    pair = BY_SYMBOL[spec.instrument.symbol]
    return {
        "ordertxid": trade.order.id,
        "postxid": "TKH2SE-M7IF5-CFI7LT",
        "pair": pair.id,
        "aclass": "forex",
        "time": trade.time / 1000,
        "type": spec.side.value,
        "ordertype": spec.details["type"],
        "price": pair.money(trade.price),
        "cost": pair.money(trade.cost),
        "fee": volume(trade.fee),
        "vol": volume(trade.quantity),
        "margin": pair.money(Decimal(0)),
        "leverage": "0",
        "misc": "",
        "trade_id": trade.sequence,
        "maker": trade.maker,
    }
