"""What accounts are worth over time: sampled every ten minutes, whenever one is reconciled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import OuterRef, Subquery
from django.db.models.functions import TruncDay, TruncHour

from brokers.base import ExecutionPlugin
from brokers.capabilities import Balances
from brokers.models import Account, Instrument
from brokers.types import Environment
from execution import book, days
from execution.book import same_money
from execution.models import EquitySample, Position
from execution.performance import Point

EVERY = timedelta(minutes=10)
BY_HOUR, BY_DAY = timedelta(days=8), timedelta(days=100)
"""From which length on a curve shows the last sample of each hour, and of each day."""


def note(account: Account, plugin: ExecutionPlugin, now: datetime) -> None:
    """Keep on the account what it is worth, and every ten minutes a sample of that; call when balances
    and prices have been read. Unknown, and never sampled, where the venue tells no balance.
    """
    account.equity = worth(account, plugin.capabilities.balances, now)
    account.save(update_fields=["equity"])
    recent = EquitySample.objects.filter(account=account, at__gt=now - EVERY)
    if account.equity is not None and not recent.exists():
        EquitySample.objects.create(account=account, at=now, equity=account.equity)


def worth(account: Account, told: Balances, now: datetime) -> Decimal | None:
    """Money and positions at the latest prices, or at what they cost where a price is not known, in
    the account's currency. What the venue has counted in is not added again.
    """
    if told is Balances.STATED:
        return None
    totals = book.totals(account)
    cash = book.cash(account, totals)
    if told is Balances.WORTH:
        return cash
    return cash + _paid(account, totals) + (days.unrealised(account, now) or Decimal(0))


def curves(
    accounts: Collection[Account], since: datetime | None, now: datetime
) -> dict[int, list[Point]]:
    """Each account's samples from ``since`` on, or all of them, by account id. One query."""
    rows = EquitySample.objects.filter(account__in=accounts).order_by("account_id", "at")
    if since is not None:
        rows = rows.filter(at__gte=since)
    length = BY_DAY if since is None else now - since
    bucket = TruncDay("at") if length >= BY_DAY else TruncHour("at")
    rows = rows.annotate(bucket=bucket)
    if length >= BY_HOUR:
        rows = rows.order_by("account_id", "bucket", "-at").distinct("account_id", "bucket")
    found: dict[int, list[Point]] = {account.pk: [] for account in accounts}
    for account_id, at, equity, _ in rows.values_list("account_id", "at", "equity", "bucket"):
        found[account_id].append(Point(at, equity))
    return found


def _paid(account: Account, totals: Mapping[str, Decimal]) -> Decimal:
    """What was paid for what is owned, in the account's currency by the last known rates.

    Only what a balance shows was paid for: a future, a swap, a pair of currencies or a contract for
    difference takes no money from the wallet. A rehearsal pays for all it trades.
    """
    rehearses = account.environment == Environment.DRY_RUN
    rates = Instrument.objects.filter(account=account, symbol=OuterRef("symbol"))
    positions = Position.objects.filter(account=account, average_price__isnull=False)
    rows = positions.annotate(rate=Subquery(rates.values("last_rate")[:1]))
    paid = Decimal(0)
    for symbol, quantity, price, rate in rows.values_list(
        "symbol", "quantity", "average_price", "rate"
    ):
        base, _, rest = symbol.partition("/")
        is_cash = same_money(base, account.quote_currency)
        if totals.get(base) and not is_cash and (rehearses or ":" not in rest):
            paid += quantity * (price or 0) * (rate or 1)
    return paid
