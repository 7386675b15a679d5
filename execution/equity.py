"""What accounts are worth over time: sampled every ten minutes, whenever one is reconciled."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models.functions import TruncDay, TruncHour

from brokers.models import Account
from execution import days
from execution.models import EquitySample
from execution.performance import Point

EVERY = timedelta(minutes=10)
BY_HOUR, BY_DAY = timedelta(days=8), timedelta(days=100)
"""From which length on a curve shows the last sample of each hour, and of each day."""


def sample(account: Account, now: datetime) -> None:
    """Keep what the account is worth, unless that was kept a moment ago: its cash and its positions at
    the latest prices, or at what they cost where a price is not known.
    """
    recent = EquitySample.objects.filter(account=account, at__gt=now - EVERY)
    if account.equity is None or recent.exists():
        return
    gain = days.unrealised(account, now) or Decimal(0)
    EquitySample.objects.create(account=account, at=now, equity=account.equity + gain)


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
