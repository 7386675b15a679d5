"""MetaTrader's rows of orders and deals as FKS's reports: lots become units, server times UTC."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from brokers.bridge.drivers.mt5_clock import ServerClock
from brokers.bridge.drivers.mt5_terms import decimal
from brokers.decimals import plain
from brokers.types import FillReport, OrderReport, Side, VenueStatus

STATES = {
    0: VenueStatus.OPEN,
    1: VenueStatus.OPEN,
    2: VenueStatus.CANCELED,
    3: VenueStatus.OPEN,
    4: VenueStatus.FILLED,
    5: VenueStatus.REJECTED,
    6: VenueStatus.EXPIRED,
    7: VenueStatus.OPEN,
    8: VenueStatus.OPEN,
    9: VenueStatus.OPEN,
}
"""ENUM_ORDER_STATE; 7 to 9 are changes under way."""
BUYS = frozenset({0, 2, 4, 6})
TRADES = frozenset({0, 1})
"""Deal types that are trades; the others book money."""


def fill(deal: Any, units: Decimal, currency: str, clock: ServerClock) -> FillReport:
    """``units``: what one lot is. A commission is negative when it is paid."""
    return FillReport(
        trade_id=str(deal.ticket),
        quantity=plain(decimal(deal.volume) * units),
        price=decimal(deal.price),
        fee=-(decimal(deal.commission) + decimal(deal.fee)),
        fee_currency=currency,
        at=clock.utc(deal.time_msc),
    )


def report(
    order: Any, client_id: str, symbol: str, units: Decimal, fills: Sequence[FillReport]
) -> OrderReport:
    """One order with its trades. A closed order's own count rules where trades are still missing."""
    quantity = plain(decimal(order.volume_initial) * units)
    left = plain(decimal(order.volume_current) * units)
    traded = sum((one.quantity for one in fills), Decimal(0))
    status = STATES[order.state]
    filled = max(traded, quantity - left)
    if status is VenueStatus.OPEN and filled > 0:
        status = VenueStatus.PARTIALLY_FILLED
    return OrderReport(
        broker_order_id=str(order.ticket),
        client_order_id=client_id,
        symbol=symbol,
        side=Side.BUY if order.type in BUYS else Side.SELL,
        status=status,
        quantity=quantity,
        filled_quantity=filled,
        average_price=average(fills),
        fills=tuple(fills),
    )


def average(fills: Sequence[FillReport]) -> Decimal | None:
    quantity = sum((one.quantity for one in fills), Decimal(0))
    if not quantity:
        return None
    return plain(sum((one.quantity * one.price for one in fills), Decimal(0)) / quantity)
