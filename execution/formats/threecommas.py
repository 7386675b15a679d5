"""3Commas' signal bot (help.3commas.io 9374557 "Strategy type", 8894481 "Custom signal type")."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.types import OrderType
from execution.alerts import Action, Alert, MarketPosition
from execution.schema import Fields
from risk.types import QuantityType

ACTIONS: dict[str, tuple[Action, bool]] = {
    "buy": (Action.BUY, False),
    "sell": (Action.SELL, False),
    "enter_long": (Action.BUY, False),
    "exit_long": (Action.SELL, True),
    "enter_short": (Action.SELL, False),
    "exit_short": (Action.BUY, True),
}
"""The action, and whether it only reduces a position of its side."""
UNITS = {"base": QuantityType.BASE, "quote": QuantityType.QUOTE}
NOT_DONE = dict.fromkeys(
    ("attach_conditional_orders", "take_profit", "stop_loss", "trailing", "dca", "safety_orders"),
    "3Commas' own order conditions are not supported; use the format fks or a mapping",
)


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong."""
    fields = Fields(document)
    fields.refuse(NOT_DONE)
    action, only_reduces = fields.translated("action", ACTIONS, required=True) or (
        Action.CANCEL,
        False,
    )
    strategy = fields.inner("strategy_info")
    order = fields.inner("order")
    order_type = order.translated("order_type", {"market": OrderType.MARKET}) or OrderType.MARKET
    unit = order.translated("currency_type", UNITS) or QuantityType.BASE
    alert = Alert(
        symbol=_symbol(fields),
        action=action,
        order_type=order_type,
        quantity=order.number("amount"),
        quantity_type=unit,
        price=fields.number("trigger_price"),
        reduce_only=only_reduces,
        sent_at=fields.moment("timestamp"),
        max_age=fields.seconds("max_lag"),
        idempotency_key=fields.key("id"),
        market_position=strategy.optional_choice("market_position", MarketPosition),
        market_position_size=strategy.size("market_position_size"),
        prev_market_position=strategy.known_choice("prev_market_position", MarketPosition),
        prev_market_position_size=strategy.optional_number(
            "prev_market_position_size", least=Decimal(0)
        ),
        extras=fields.unread(),
    )
    fields.raise_if_wrong()
    return alert


def _symbol(fields: Fields) -> str:
    exchange = fields.text("tv_exchange", most=25)
    ticker = fields.text("tv_instrument", most=34, required=True)
    return f"{exchange}:{ticker}" if exchange and ":" not in ticker else ticker
