"""OKX's signal bot, "Alert Message 2.0", sections A (strategies) and B (anything else):
okx.com/help/signal-bot-alert-message-specifications.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.types import OrderType
from execution.alerts import REDUCES, Action, Alert, MarketPosition
from execution.formats.closing import share_of_position
from execution.formats.threecommas import ACTIONS, entered
from execution.schema import Fields
from risk.types import QuantityType

SECRET = "signalToken"  # noqa: S105
BASE, OF_POSITION = "base", "percentage_position"
NOT_DONE = {
    "margin": "an amount of margin depends on OKX's leverage",
    "contract": "contracts are OKX's own unit",
    "percentage_balance": "a share of the available balance is OKX's own unit",
    "percentage_investment": "a share of the bot's investment is OKX's own unit",
}


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong.

    OKX's ``id`` names an order of the script and comes back with every trade of it: it is shown,
    not taken as an idempotency key. ``alertId``, a field of ours, is one.
    """
    fields = Fields(document)
    action, only_reduces = fields.translated("action", ACTIONS, required=True) or (
        Action.CANCEL,
        False,
    )
    position = fields.forgiving(only_reduces).optional_choice("marketPosition", MarketPosition)
    is_flat = position is MarketPosition.FLAT
    is_exit = is_flat or only_reduces or (action, position) in REDUCES
    entry = fields.forgiving(is_exit)
    entry.refuse({"orderPriceOffset": "limit orders relative to OKX's price are not supported"})
    order_type = entry.translated("orderType", {"market": OrderType.MARKET}) or OrderType.MARKET
    quantity, unit = _quantity(fields.forgiving(is_flat), only_reduces, is_exit)
    ending = fields.forgiving(is_flat or (only_reduces and quantity is None))
    alert = Alert(
        symbol=fields.text("instrument", most=60, required=True),
        action=action,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        reduce_only=only_reduces,
        sent_at=ending.moment("timestamp"),
        max_age=ending.seconds("maxLag"),
        idempotency_key=ending.key("alertId"),
        market_position=position or entered(fields, quantity),
        prev_market_position=entry.known_choice("prevMarketPosition", MarketPosition),
        comment=entry.text("id", most=1000),
        extras=fields.unread(),
    )
    fields.raise_if_wrong()
    return alert


def _quantity(
    fields: Fields, only_reduces: bool, is_exit: bool
) -> tuple[Decimal | None, QuantityType]:
    """Without a size the route's sizing decides, as OKX's bot settings would."""
    known = {name: name for name in (BASE, OF_POSITION, *NOT_DONE)}
    amount = fields.number("amount")
    fields = fields.forgiving(is_exit and amount is None)
    unit = fields.translated("investmentType", known)
    if unit in NOT_DONE:
        fields.complain("investmentType", NOT_DONE[unit], "UNSUPPORTED")
    elif unit == OF_POSITION:
        if only_reduces:
            return share_of_position(amount)
        detail = "a share of the position goes with EXIT_LONG and EXIT_SHORT only"
        fields.complain("investmentType", detail, "UNSUPPORTED")
    elif amount is not None and unit is None:
        fields.complain("investmentType", "an amount needs its unit", "REQUIRED")
    return amount, QuantityType.BASE
