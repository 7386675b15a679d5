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
from execution.formats.closing import share_of_position
from execution.formats.fks import require_prices
from execution.formats.listed import listed_symbol
from execution.schema import Fields, is_missing
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
    "price": "p fp",
    "stop_loss": "sl fsl",
    "take_profit": "tp ftp",
    "reduce_only": "ro",
}
"""FKS's names and Autoview's letters for the same thing."""
TRAILS = ("ts", "trailing")
NOT_DONE = {
    **dict.fromkeys(("delay", "wait"), "FKS does not delay orders"),
    **dict.fromkeys(("l", "leverage"), "leverage is set at the account"),
    **dict.fromkeys(TRAILS, "trailing stops are not supported"),
}
"""What only an entry can ask for."""
OWN_ORDERS = dict.fromkeys(
    ("sl", "fsl", "tp", "ftp", *TRAILS), "with an exit it is an order of its own, not supported"
)
"""At Autoview they say when an exit is to happen: it must not happen at once instead."""
NEVER_DONE = {
    **dict.fromkeys(("cm", "cmo"), "FKS cancels and closes everything of a symbol"),
    **dict.fromkeys(("d", "disabled"), "the command is marked as disabled"),
    **dict.fromkeys(("u", "unit"), "the unit of a quantity is base, or percent with %"),
    "y": "percents are of equity",
}
ACCOUNT = "a"
"""Autoview's account: here the strategy's routes say which."""
YES_OR_NO = {"1": True, "true": True, "0": False, "false": False}


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong.

    ``sl`` and ``tp`` are prices, or percents of ``p`` with ``%``; ``q`` with ``%`` is of equity, of a
    close of the position. A price alone makes a limit order: an exit whose price cannot be read is
    never sent at the market for it.
    """
    fields = Fields(document)
    fields.refuse(NEVER_DONE)
    action, closes = _action(fields)
    cancels = action is Action.CANCEL
    terms = fields.forgiving(cancels or action is Action.CLOSE)
    only_reduces = closes or terms.translated(_name(terms, "reduce_only"), YES_OR_NO) or False
    entry = terms.forgiving(only_reduces)
    entry.refuse(NOT_DONE)
    if not cancels and (only_reduces or action is Action.CLOSE):
        _refuse_own_orders(fields)
    given = terms.translated(_name(terms, "order_type"), TYPES)
    of_price = entry if given == TYPES["market"] else fields.forgiving(cancels)
    price_name = _name(of_price, "price")
    price = _price(of_price, price_name, action, only_reduces)
    kind = given or TYPES["market" if price is None else "limit"]
    order_type, time_in_force, post_only = kind
    closes |= action is Action.CLOSE
    quantity, unit = _quantity(fields.forgiving(cancels), closes)
    side = side_of(action)
    target = _bracket(entry, "take_profit", side, price, gain=True)
    alert = Alert(
        symbol=listed_symbol(fields, _name(fields, "exchange"), _name(fields, "symbol")),
        action=action,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        price=price,
        stop_loss=_bracket(entry, "stop_loss", side, price, gain=False),
        take_profit=() if target is None else (TakeProfit(target, HUNDRED),),
        time_in_force=time_in_force,
        post_only=post_only,
        reduce_only=only_reduces,
        confidence=entry.optional_number("confidence", least=Decimal(0), most=Decimal(1)),
        atr=entry.optional_number("atr"),
        sent_at=terms.moment("timestamp"),
        idempotency_key=terms.key("id"),
        comment=entry.text("comment", most=1000),
        extras=fields.unread(),
    )
    _refuse_unknown(entry, alert.extras)
    require_prices(fields, alert, price=price_name)
    fields.raise_if_wrong()
    return alert


def _name(fields: Fields, name: str) -> str:
    """The name the sender used: FKS's or one of the letters."""
    letters = NAMES[name].split()
    used, *others = [one for one in (name, *letters) if fields.is_given(one)] or letters[:1]
    for other in others:
        fields.complain(other, f"is given as {used} already", "DUPLICATE_KEY")
    return used


def _price(fields: Fields, name: str, action: Action, only_reduces: bool) -> Decimal | None:
    """0, which is Autoview's own default, names no price to leave at; a close of everything does
    without one that the sender had no value for.
    """
    if action is Action.CLOSE:
        return fields.optional_number(name, least=Decimal(0)) or None
    return (fields.size(name) or None) if only_reduces else fields.number(name)


def _refuse_own_orders(fields: Fields) -> None:
    given = [name for name in OWN_ORDERS if not is_missing(str(fields.raw(name)))]
    fields.refuse({name: OWN_ORDERS[name] for name in given})


def _refuse_unknown(entry: Fields, left: Mapping[str, Any]) -> None:
    """Names of one or two letters are Autoview's, and each of them changes the trade."""
    names = [name for name in left if len(name) <= 2 and name != ACCOUNT]
    entry.refuse(dict.fromkeys(names, "FKS does not know this parameter"))


def _action(fields: Fields) -> tuple[Action, bool]:
    """The action, and whether it only closes one side: ``c=position b=long`` closes a long one."""
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


def _quantity(fields: Fields, closes: bool) -> tuple[Decimal | None, QuantityType]:
    name = _name(fields, "quantity")
    text = fields.text(name, most=60)
    if text.endswith("%"):
        percent = fields.number_of(name, text.removesuffix("%"), least=Decimal(0), most=HUNDRED)
        return share_of_position(percent) if closes else (percent, QuantityType.PERCENT_OF_EQUITY)
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
