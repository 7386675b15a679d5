"""OpenAlgo's order and smart order (marketcalls/openalgo: docs/api/order-management)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from brokers.types import OrderType
from execution.alerts import Action, Alert, MarketPosition
from execution.formats.fks import require_prices
from execution.schema import Fields

SECRET = "apikey"  # noqa: S105
ACTIONS = {"buy": Action.BUY, "sell": Action.SELL}
TYPES = {
    "market": OrderType.MARKET,
    "limit": OrderType.LIMIT,
    "sl": OrderType.STOP_LIMIT,
    "sl-m": OrderType.STOP,
}
NOT_DONE = {"disclosed_quantity": "iceberg orders are not supported"}


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong.

    ``position_size`` is the position to end up with: 0 is flat. ``product`` is shown only: FKS
    squares nothing off by the clock.
    """
    fields = Fields(document)
    position, size = _target(fields)
    entry = fields.forgiving(position is MarketPosition.FLAT)
    entry.refuse(NOT_DONE)
    quantity = entry.size("quantity")
    alert = Alert(
        symbol=_symbol(fields),
        action=fields.translated("action", ACTIONS, required=True) or Action.CANCEL,
        order_type=entry.translated("pricetype", TYPES) or OrderType.MARKET,
        quantity=quantity or None,
        price=entry.size("price") or None,
        stop_price=entry.size("trigger_price") or None,
        sent_at=entry.moment("timestamp"),
        idempotency_key=entry.key("id"),
        market_position=position,
        market_position_size=size,
        comment=entry.text("strategy", most=1000),
        extras=fields.unread(),
    )
    if position is None and not quantity:
        fields.complain("quantity", "an order needs a quantity", "REQUIRED")
    require_prices(fields, alert, stop_price="trigger_price")
    fields.raise_if_wrong()
    return alert


def _target(fields: Fields) -> tuple[MarketPosition | None, Decimal | None]:
    most = Decimal(10) ** 18
    size = fields.number("position_size", least=-most, most=most)
    if size is None:
        return None, None
    if size == 0:
        return MarketPosition.FLAT, Decimal(0)
    return (MarketPosition.LONG if size > 0 else MarketPosition.SHORT), abs(size)


def _symbol(fields: Fields) -> str:
    exchange = fields.text("exchange", most=25)
    symbol = fields.text("symbol", most=34, required=True)
    return f"{exchange}:{symbol}" if exchange and ":" not in symbol else symbol
