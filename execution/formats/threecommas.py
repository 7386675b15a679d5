"""3Commas' signal bot (help.3commas.io 9374557 "Strategy type", 8894481 "Custom signal type")."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.types import OrderType
from execution.alerts import REDUCES, Action, Alert, MarketPosition
from execution.formats.closing import share_of_position
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
ENTERS = {"enter_long": MarketPosition.LONG, "enter_short": MarketPosition.SHORT}
DISABLE = "disable"
BOT_ACTIONS = {**ACTIONS, DISABLE: (Action.CLOSE, False)}
UNITS = {"base": QuantityType.BASE, "quote": QuantityType.QUOTE}
OF_POSITION = {"position_percent": QuantityType.PERCENT_OF_POSITION}
"""What an exit may count in besides."""
NOT_DONE = dict.fromkeys(
    ("attach_conditional_orders", "take_profit", "stop_loss", "trailing", "dca", "safety_orders"),
    "3Commas' own order conditions are not supported; use the format fks or a mapping",
)


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong."""
    fields = Fields(document)
    action, only_reduces = _action(fields)
    strategy = fields.inner("strategy_info")
    closes = only_reduces or action is Action.CLOSE
    position = strategy.forgiving(closes).optional_choice("market_position", MarketPosition)
    ends = position is MarketPosition.FLAT or action is Action.CLOSE
    has_size = strategy.is_given("market_position_size")
    is_exit = ends or only_reduces or ((action, position) in REDUCES and not has_size)
    order = fields.forgiving(ends).inner("order")
    of_order, of_strategy = order.forgiving(is_exit), strategy.forgiving(is_exit)
    entry = fields.forgiving(is_exit)
    entry.refuse(NOT_DONE)
    order_type = of_order.translated("order_type", {"market": OrderType.MARKET})
    quantity, unit = _quantity(order, action, only_reduces, is_exit)
    ending = fields.forgiving(ends or (only_reduces and quantity is None))
    alert = Alert(
        symbol=_symbol(fields),
        action=action,
        order_type=order_type or OrderType.MARKET,
        quantity=quantity,
        quantity_type=unit,
        price=entry.number("trigger_price"),
        reduce_only=only_reduces,
        sent_at=ending.moment("timestamp"),
        max_age=ending.seconds("max_lag"),
        idempotency_key=ending.key("id"),
        market_position=position or entered(fields, quantity),
        market_position_size=of_strategy.size("market_position_size"),
        prev_market_position=of_strategy.known_choice("prev_market_position", MarketPosition),
        prev_market_position_size=of_strategy.optional_number(
            "prev_market_position_size", least=Decimal(0)
        ),
        extras=fields.unread(),
    )
    fields.raise_if_wrong()
    return alert


def entered(fields: Fields, quantity: Decimal | None) -> MarketPosition | None:
    """The side an ``enter_…`` without an amount ends on: what is open on the other side is closed
    first, however large it is.
    """
    word = str(fields.raw("action")).strip().lower()
    return None if quantity is not None else ENTERS.get(word)


def _action(fields: Fields) -> tuple[Action, bool]:
    """``disable`` with ``market_close`` closes; the bot it would switch off is not FKS's."""
    found = fields.translated("action", BOT_ACTIONS, required=True) or (Action.CANCEL, False)
    if found == BOT_ACTIONS[DISABLE]:
        fields.translated("positions_sub_action", {"market_close": True}, required=True)
    return found


def _quantity(
    order: Fields, action: Action, only_reduces: bool, is_exit: bool
) -> tuple[Decimal | None, QuantityType]:
    if action is Action.CLOSE:
        return None, QuantityType.BASE
    amount = order.number("amount")
    units = {**UNITS, **OF_POSITION} if only_reduces else UNITS
    needs_no_unit = is_exit and amount is None
    unit = order.forgiving(needs_no_unit).translated("currency_type", units) or QuantityType.BASE
    if unit is QuantityType.PERCENT_OF_POSITION:
        return share_of_position(amount)
    return amount, unit


def _symbol(fields: Fields) -> str:
    exchange = fields.text("tv_exchange", most=25)
    ticker = fields.text("tv_instrument", most=34, required=True)
    return f"{exchange}:{ticker}" if exchange and ":" not in ticker else ticker
