"""OctoBot's TradingView alerts: ``NAME=VALUE`` by line or ``;``
(octobot.cloud/en/guides/octobot-interfaces/tradingview/alert-format).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.types import OrderType
from execution.alerts import Action, Alert, TakeProfit
from execution.formats.brackets import evenly
from execution.formats.fks import MAX_TARGETS, require_prices
from execution.formats.listed import listed_symbol
from execution.schema import Fields
from risk.types import QuantityType

ACTIONS = {"buy": Action.BUY, "sell": Action.SELL, "cancel": Action.CANCEL}
TYPES = {"market": OrderType.MARKET, "limit": OrderType.LIMIT, "stop": OrderType.STOP}
TARGET = "take_profit_price"
NOT_DONE = {
    "leverage": "leverage is set at the account",
    "trailing_profile": "trailing profiles are not supported",
    "cancel_policy": "cancel policies are not supported",
    "cancel_policy_params": "cancel policies are not supported",
}
"""What only an entry can ask for."""
NO_SIDE = {"param_side": "FKS cancels all orders of a symbol or none"}
NO_SYNTAX = "only a plain price is supported, no difference (d) and no percent (%)"


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong."""
    fields = Fields(document)
    fields.refuse(NO_SIDE)
    action = fields.translated("signal", ACTIONS, required=True) or Action.CANCEL
    if action is Action.CANCEL:
        fields.refuse({"tag": "FKS cancels all orders of a symbol, not those of one tag"})
    reduces = fields.flag("reduce_only")
    terms = fields.forgiving(action is Action.CANCEL)
    entry = terms.forgiving(reduces)
    entry.refuse(NOT_DONE)
    quantity, unit = _volume(terms)
    order_type = terms.translated("order_type", TYPES)
    is_stop = order_type is OrderType.STOP
    price = _price(entry if order_type is OrderType.MARKET else terms, "price")
    stop = _price(terms if is_stop else entry, "stop_price")
    if order_type is None:
        order_type = OrderType.LIMIT if price is not None else OrderType.MARKET
    alert = Alert(
        symbol=listed_symbol(fields, "exchange", "symbol"),
        action=action,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        price=price,
        stop_price=stop if is_stop else None,
        stop_loss=None if is_stop else stop,
        take_profit=_targets(entry, document),
        reduce_only=reduces,
        sent_at=terms.moment("timestamp"),
        idempotency_key=terms.key("id"),
        comment=entry.text("tag", most=1000),
        extras=fields.unread(),
    )
    require_prices(fields, alert)
    fields.raise_if_wrong()
    return alert


def _volume(fields: Fields) -> tuple[Decimal | None, QuantityType]:
    """``0.1`` in base, ``5q`` in quote, ``2%`` of equity; shares of other holdings are refused."""
    text = fields.text("volume", most=60)
    for suffix, unit in (("q", QuantityType.QUOTE), ("%", QuantityType.PERCENT_OF_EQUITY)):
        if text.endswith(suffix):
            number = text.removesuffix(suffix).strip()
            if number and not number[-1].isdigit():
                detail = "only base amounts, quote amounts (q) and percents of equity (%) work"
                fields.complain("volume", detail, "UNSUPPORTED")
                return None, unit
            return fields.number_of("volume", number), unit
    return fields.number("volume"), QuantityType.BASE


def _price(fields: Fields, name: str) -> Decimal | None:
    text = fields.text(name, most=60)
    if text.endswith(("d", "%")) or text.startswith("@"):
        fields.complain(name, NO_SYNTAX, "UNSUPPORTED")
        return None
    return fields.number(name)


def _targets(fields: Fields, document: Mapping[str, Any]) -> tuple[TakeProfit, ...]:
    """One target, or ``_1``, ``_2``, … sharing the position evenly, in that order."""
    names = [TARGET] if TARGET in document else []
    names += [f"{TARGET}_{n}" for n in range(1, MAX_TARGETS + 1) if f"{TARGET}_{n}" in document]
    for name in document:
        if name.startswith("take_profit_volume_ratio"):
            fields.refuse({name: "targets share the position evenly"})
        elif name.startswith(TARGET) and name not in names:
            fields.complain(name, f"targets are numbered from 1 to {MAX_TARGETS}")
    prices = [_price(fields, name) for name in names]
    return evenly([price for price in prices if price is not None])
