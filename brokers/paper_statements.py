"""What the paper venue says of its book: orders, trades, positions and balances as reports."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from django.db.models import Q, Sum

from brokers import paper_market
from brokers.models import PaperBalance, PaperFill, PaperOrder
from brokers.types import (
    BalanceReport,
    FillReport,
    OrderReport,
    PositionReport,
    Side,
    VenueStatus,
)

ID_PREFIX = "paper-"


def order_report(order: PaperOrder) -> OrderReport:
    """One order with all of its trades, as the venue tells it."""
    fills = tuple(fill_report(fill) for fill in sorted(order.fills.all(), key=lambda row: row.pk))
    return OrderReport(
        broker_order_id=f"{ID_PREFIX}{order.pk}",
        client_order_id=order.identity,
        symbol=order.symbol,
        side=Side(order.side),
        status=VenueStatus(order.status),
        quantity=order.quantity,
        filled_quantity=order.filled_quantity,
        average_price=paper_market.average([(fill.quantity, fill.price) for fill in fills]),
        fills=fills,
    )


def fill_report(fill: PaperFill) -> FillReport:
    """One trade, as the venue tells it."""
    return FillReport(
        trade_id=fill.trade_id,
        quantity=fill.quantity,
        price=fill.price,
        fee=fill.fee,
        fee_currency=fill.fee_currency,
        at=fill.at,
    )


def positions(account_key: str) -> list[PositionReport]:
    """Bought minus sold, by symbol, where not zero; the venue keeps no average price."""
    rows = (
        PaperFill.objects.filter(order__account_key=account_key)
        .values("order__symbol")
        .annotate(
            bought=Sum("quantity", filter=Q(order__side=Side.BUY.value), default=Decimal(0)),
            sold=Sum("quantity", filter=Q(order__side=Side.SELL.value), default=Decimal(0)),
        )
        .order_by("order__symbol")
    )
    held = {row["order__symbol"]: row["bought"] - row["sold"] for row in rows}
    return [PositionReport(symbol, total, None) for symbol, total in held.items() if total]


def balances(account_key: str, start: Mapping[str, Decimal]) -> list[BalanceReport]:
    """What the account owns; a currency that never moved stands at what it started with."""
    rows = PaperBalance.objects.filter(account_key=account_key)
    totals = {**start, **dict(rows.values_list("currency", "total"))}
    return [BalanceReport(name, total, total) for name, total in sorted(totals.items()) if total]
