"""Kraken's rows read into ours: orders, trades, balances, key permissions."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from brokers.decimals import plain
from brokers.dialects.answers import Row, member, moment, number, number_if_told, row, text
from brokers.dialects.base import UNTOLD
from brokers.dialects.fees import Fees
from brokers.errors import NotShownError, QueryFailedError
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
PAGE = 50
"""Closed orders, and trades, in one answer; the latest come first."""
CLOCKS_DIFFER = timedelta(minutes=1)
"""An order that began earlier than ours was sent by more than this is not ours."""


def orders(answer: object, name: str) -> list[tuple[str, Row]]:
    """Ids and orders of a list that is a mapping by id. Raises QueryFailedError."""
    found = row(row(row(answer), "result"), name)
    return [(order_id, row(order)) for order_id, order in found.items()]


def is_last(result: Row, shown: int, so_far: int) -> bool:
    """Whether an answer that shows as many ends its list."""
    return shown < PAGE if result.get("count") is None else so_far >= number(result, "count")


def assert_absent(answer: object, name: str, sent_at: datetime | None) -> None:
    """Refuse a list that does not show our order, sent at ``sent_at``, and does not prove that it is
    not in it: which may be one without a client id, or behind the end of what is shown.

    Raises NotShownError.
    """
    listed = [order for _, order in orders(answer, name)]
    if not listed:
        return
    if any(not one.get("cl_ord_id") and not _began_before(one, sent_at) for one in listed):
        raise NotShownError("an order without a client id at the venue may be ours")
    is_whole = name == "open" or is_last(row(row(answer), "result"), len(listed), len(listed))
    if not is_whole:
        raise NotShownError("the venue shows only the latest of all its closed orders")


def _began_before(order: Row, sent_at: datetime | None) -> bool:
    if sent_at is None or "opentm" not in order:
        return False
    return moment(order, "opentm") < sent_at - CLOCKS_DIFFER


def report(order_id: str, order: Row, symbol: str) -> OrderReport:
    """Without its trades."""
    filled, quantity = number(order, "vol_exec"), number(order, "vol")
    average = number_if_told(order, "price")
    return OrderReport(
        broker_order_id=order_id,
        client_order_id=str(order.get("cl_ord_id") or ""),
        symbol=symbol,
        side=Side(text(row(order, "descr"), "type")),
        status=_status(text(order, "status"), filled, quantity),
        quantity=plain(quantity),
        filled_quantity=plain(filled),
        average_price=plain(average) if average and filled > 0 else None,
        reason=str(order.get("reason") or ""),
    )


def fill(trade_id: str, trade: Row, market: Market, fees: Fees) -> FillReport:
    fee, currency = fees.paid(trade.get("fee"), market["quote"], market)
    return FillReport(
        trade_id=trade_id,
        quantity=plain(number(trade, "vol")),
        price=plain(number(trade, "price")),
        fee=fee,
        fee_currency=currency,
        at=moment(trade, "time"),
    )


def balance(currency: str, held: Row) -> BalanceReport:
    """Free is what Kraken documents: balance and credit, without what is used or held."""
    total = number(held, "balance")
    free = total - (number_if_told(held, "hold_trade") or Decimal(0))
    if "credit" in held:
        free += number(held, "credit") - number(held, "credit_used")
    return BalanceReport(currency, plain(total), plain(free))


def permissions(found: Row) -> Permissions:
    granted = found.get("permissions") or []
    if not isinstance(granted, list):
        raise QueryFailedError("unreadable answer: permissions are no list")
    if not granted:
        return UNTOLD
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
