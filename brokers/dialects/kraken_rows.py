"""Kraken's rows read into ours: orders, trades, balances, key permissions."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from brokers.decimals import plain
from brokers.dialects.answers import Row, distinct, member, moment, number, row, text
from brokers.errors import QueryFailedError
from brokers.types import (
    BalanceReport,
    FillReport,
    OrderReport,
    Permissions,
    Side,
    VenueStatus,
)
from brokers.venue_client import Market

STATUSES = {
    "pending": VenueStatus.OPEN,
    "open": VenueStatus.OPEN,
    "closed": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELED,
    "expired": VenueStatus.EXPIRED,
}
TRADE_PERMISSIONS = frozenset({"modify-trades"})


def orders(answer: object, name: str) -> list[tuple[str, Row]]:
    """Ids and orders of a list that is a mapping by id. Raises QueryFailedError."""
    found = row(row(row(answer), "result"), name)
    return [(order_id, row(order)) for order_id, order in found.items()]


def report(order_id: str, order: Row, symbol: str, fills: Sequence[FillReport]) -> OrderReport:
    filled, quantity = number(order, "vol_exec"), number(order, "vol")
    return OrderReport(
        broker_order_id=order_id,
        client_order_id=str(order.get("cl_ord_id") or ""),
        symbol=symbol,
        side=Side(text(row(order, "descr"), "type")),
        status=_status(text(order, "status"), filled, quantity),
        quantity=plain(quantity),
        filled_quantity=plain(filled),
        average_price=plain(number(order, "price")) if filled > 0 else None,
        fills=distinct(fills),
        reason=str(order.get("reason") or ""),
    )


def fill(trade_id: str, trade: Row, market: Market) -> FillReport:
    return FillReport(
        trade_id=trade_id,
        quantity=plain(number(trade, "vol")),
        price=plain(number(trade, "price")),
        fee=plain(number(trade, "fee")),
        fee_currency=market["quote"],
        at=moment(trade, "time"),
    )


def balance(currency: str, held: Row) -> BalanceReport:
    """Free is what Kraken documents: balance and credit, without what is used or held."""
    total = number(held, "balance")
    free = total - number(held, "hold_trade")
    if "credit" in held:
        free += number(held, "credit") - number(held, "credit_used")
    return BalanceReport(currency, plain(total), plain(free))


def permissions(found: Row) -> Permissions:
    granted = member(found, "permissions")
    if not isinstance(granted, list):
        raise QueryFailedError("unreadable answer: permissions are no list")
    names = {str(name).lower() for name in granted}
    allowed = found.get("ipAllowlist")
    return Permissions(
        trade=bool(names & TRADE_PERMISSIONS),
        withdraw=any(name.startswith("withdraw") for name in names),
        ip_restricted=bool(allowed) if isinstance(allowed, list) else None,
    )


def ulp(info: Row, name: str) -> Decimal:
    """The smallest step of a number with that many decimals."""
    return plain(Decimal(1).scaleb(-int(number(info, name))))


def first(ticker: Row, name: str) -> Decimal:
    """The price in a ticker's ``[price, ...]`` list. Raises QueryFailedError."""
    found = member(ticker, name)
    if not isinstance(found, list) or not found:
        raise QueryFailedError(f"unreadable answer: {name} is no price")
    return number({name: found[0]}, name)


def _status(said: str, filled: Decimal, quantity: Decimal) -> VenueStatus:
    status = STATUSES.get(said)
    if status is None:
        raise QueryFailedError(f"unreadable answer: order status {said!r}")
    if status is VenueStatus.OPEN and filled > 0:
        return VenueStatus.PARTIALLY_FILLED
    if status is VenueStatus.FILLED and filled < quantity:
        return VenueStatus.CANCELED
    return status
