"""``name=value`` commands in Autoview's style (autoview.com/syntax), and FKS's own names beside them:
``s=BTCUSDT b=long q=0.01`` or ``symbol=BTCUSDT action=buy quantity=0.01``.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.types import OrderType, TimeInForce
from execution.alerts import Action, Alert, TakeProfit
from execution.formats.brackets import HUNDRED, away, side_of
from execution.formats.fks import require_prices
from execution.formats.listed import listed_symbol
from execution.schema import Fields
from risk.types import QuantityType

SIDES = {
    **dict.fromkeys(("buy", "long"), Action.BUY),
    **dict.fromkeys(("sell", "short"), Action.SELL),
    "close": Action.CLOSE,
    "cancel": Action.CANCEL,
}
CLOSES = {"position": Action.CLOSE, "order": Action.CANCEL}
TYPES = {
    "market": (OrderType.MARKET, TimeInForce.GTC, False),
    "limit": (OrderType.LIMIT, TimeInForce.GTC, False),
    "post": (OrderType.LIMIT, TimeInForce.GTC, True),
    "fok": (OrderType.LIMIT, TimeInForce.FOK, False),
    "ioc": (OrderType.LIMIT, TimeInForce.IOC, False),
}
NAMES = {
    "symbol": "s",
    "exchange": "e",
    "action": "b",
    "quantity": "q",
    "order_type": "t",
    "price": "p",
    "stop_loss": "sl",
    "take_profit": "tp",
}
"""FKS's names and Autoview's letters for the same thing."""
NOT_DONE = {
    **dict.fromkeys(("delay", "wait"), "FKS does not delay orders"),
    **dict.fromkeys(("l", "leverage"), "leverage is set at the account"),
    **dict.fromkeys(("cm", "cmo"), "FKS cancels and closes everything of a symbol"),
    **dict.fromkeys(("ts", "trailing"), "trailing stops are not supported"),
    **dict.fromkeys(("d", "disabled"), "the command is marked as disabled"),
    **dict.fromkeys(("u", "unit"), "the unit of a quantity is base, or percent with %"),
    "y": "percents are of equity",
}


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong.

    ``sl`` and ``tp`` are prices, or percents of ``p`` with ``%``; ``q`` with ``%`` is of equity.
    """
    fields = Fields(document)
    fields.refuse(NOT_DONE)
    action, only_reduces = _action(fields)
    order_type, time_in_force, post_only = _type(fields)
    price = fields.number(_name(fields, "price"))
    quantity, unit = _quantity(fields)
    side = side_of(action)
    target = _bracket(fields, "take_profit", side, price, gain=True)
    alert = Alert(
        symbol=listed_symbol(fields, _name(fields, "exchange"), _name(fields, "symbol")),
        action=action,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        price=price,
        stop_loss=_bracket(fields, "stop_loss", side, price, gain=False),
        take_profit=() if target is None else (TakeProfit(target, HUNDRED),),
        time_in_force=time_in_force,
        post_only=post_only,
        reduce_only=only_reduces or fields.flag("reduce_only"),
        confidence=fields.optional_number("confidence", least=Decimal(0), most=Decimal(1)),
        atr=fields.optional_number("atr"),
        sent_at=fields.moment("timestamp"),
        idempotency_key=fields.key("id"),
        comment=fields.text("comment", most=1000),
        extras=fields.unread(),
    )
    require_prices(fields, alert, price=_name(fields, "price"))
    fields.raise_if_wrong()
    return alert


def _name(fields: Fields, name: str) -> str:
    """The name the sender used: FKS's or the letter."""
    letter = NAMES[name]
    if not fields.is_given(name):
        return letter
    if fields.is_given(letter):
        fields.complain(letter, f"is given as {name} already", "DUPLICATE_KEY")
    return name


def _action(fields: Fields) -> tuple[Action, bool]:
    """The action, and whether it only reduces: ``c=position b=long`` closes a long one."""
    side = _name(fields, "action")
    closing = fields.translated("c", CLOSES)
    opening = fields.translated(side, SIDES, required=closing is None)
    if closing is None:
        return opening or Action.CANCEL, False
    if closing is Action.CANCEL and opening is not None:
        fields.complain(side, "FKS cancels all orders of a symbol", "UNSUPPORTED")
    if closing is Action.CLOSE and opening in (Action.BUY, Action.SELL):
        return (Action.SELL if opening is Action.BUY else Action.BUY), True
    return closing, False


def _type(fields: Fields) -> tuple[OrderType, TimeInForce, bool]:
    given = fields.translated(_name(fields, "order_type"), TYPES)
    if given is not None:
        return given
    has_price = fields.raw(_name(fields, "price")) is not None
    return TYPES["limit" if has_price else "market"]


def _quantity(fields: Fields) -> tuple[Decimal | None, QuantityType]:
    name = _name(fields, "quantity")
    text = fields.text(name, most=60)
    if text.endswith("%"):
        percent = fields.number_of(name, text.removesuffix("%"), least=Decimal(0), most=HUNDRED)
        return percent, QuantityType.PERCENT_OF_EQUITY
    return fields.number(name), QuantityType.BASE


def _bracket(
    fields: Fields, name: str, side: Any, price: Decimal | None, *, gain: bool
) -> Decimal | None:
    name = _name(fields, name)
    text = fields.text(name, most=60)
    if not text.endswith("%"):
        return fields.number(name)
    percent = fields.number_of(name, text.removesuffix("%"))
    return away(fields, name, side, price, percent=percent, gain=gain)
