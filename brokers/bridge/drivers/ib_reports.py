"""Orders and executions of TWS as FKS's reports: contracts become units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from decimal import Decimal
from typing import Any

from brokers.bridge.drivers.ib_contracts import Traded
from brokers.bridge.drivers.ib_numbers import decimal
from brokers.decimals import plain
from brokers.types import FillReport, OrderReport, PositionReport, Side, VenueStatus

ENDED = {
    "Filled": VenueStatus.FILLED,
    "Cancelled": VenueStatus.CANCELED,
    "ApiCancelled": VenueStatus.CANCELED,
}
"""Every other state may still trade, one nobody knows included."""
REFUSED = "Inactive"
"""Rejected, unless TWS says what it is held for: shares to borrow, say
(tws-api/order_submission.html)."""


def state_of(trade: Any) -> VenueStatus:
    """OPEN for whatever may still trade."""
    status = trade.orderStatus
    if status.status == REFUSED and not status.whyHeld:
        return VenueStatus.REJECTED
    return ENDED.get(status.status, VenueStatus.OPEN)


def fill(row: Any, one: Traded) -> FillReport:
    """A correction has the id of what it corrects but for the part behind the last dot
    (tws-api/executions_commissions.html)."""
    execution, commission = row.execution, row.commissionReport
    return FillReport(
        trade_id=execution.execId.rpartition(".")[0],
        quantity=plain(decimal(execution.shares) * one.units),
        price=decimal(execution.price),
        fee=decimal(commission.commission),
        fee_currency=commission.currency or one.contract.currency,
        at=execution.time.astimezone(UTC),
    )


def newest(rows: Iterable[Any]) -> list[Any]:
    """Executions without those that were corrected, oldest first."""
    last: dict[str, Any] = {}
    for row in sorted(rows, key=lambda one: one.execution.execId):
        last[row.execution.execId.rpartition(".")[0]] = row
    return sorted(last.values(), key=lambda one: (one.execution.time, one.execution.execId))


def report(
    trade: Any, one: Traded, fills: Sequence[FillReport], asked: Decimal | None, *, completed: bool
) -> OrderReport:
    """``asked`` is the quantity our journal knows: TWS tells none for a completed order."""
    order, state = trade.order, state_of(trade)
    traded = sum((row.quantity for row in fills), Decimal(0))
    told = decimal(order.filledQuantity) if completed else decimal(trade.orderStatus.filled)
    filled = max(traded, plain(told * one.units))
    quantity = asked or max(plain(decimal(order.totalQuantity) * one.units), filled)
    if state is VenueStatus.REJECTED and filled:
        state = VenueStatus.CANCELED
    if state is VenueStatus.FILLED:
        filled = quantity
    if state is VenueStatus.OPEN and filled > 0:
        state = VenueStatus.PARTIALLY_FILLED
    return OrderReport(
        broker_order_id=str(order.permId),
        client_order_id=order.orderRef,
        symbol=one.symbol,
        side=Side.BUY if order.action == "BUY" else Side.SELL,
        status=state,
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


def position(row: Any, one: Traded) -> PositionReport:
    """``avgCost`` is the money one contract cost, commissions included."""
    quantity = plain(decimal(row.position) * one.units)
    return PositionReport(one.symbol, quantity, plain(decimal(row.avgCost) / one.units))
