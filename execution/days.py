"""An account's own trading day: when it began, and how it has gone so far."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db.models import Sum

from brokers.models import Account
from execution.marks import marks_of
from execution.models import AccountDay, Fill, Position
from risk.book import Day


def day_of(account: Account, now: datetime) -> tuple[date, datetime]:
    """The account's day at ``now`` and the moment it began, by its own zone and starting hour."""
    zone = ZoneInfo(account.day_zone)
    local = now.astimezone(zone)
    day = local.date() if local.time() >= account.day_starts else local.date() - timedelta(days=1)
    return day, datetime.combine(day, account.day_starts, zone)


def today(account: Account, now: datetime) -> Day:
    """The day so far, in the account's currency; its best result is kept on the day's row.

    What was unrealised when the day was first looked at does not count as its result.
    """
    day, began = day_of(account, now)
    realised, open_result = _realised(account, began, now), unrealised(account, now)
    row = AccountDay.objects.filter(account=account, day=day).first()
    if open_result is None:
        return Day(realised, None, row.best if row else Decimal(0))
    if row is None:
        row, _ = AccountDay.objects.get_or_create(
            account=account, day=day, defaults={"opening_unrealised": open_result}
        )
    change = open_result - row.opening_unrealised
    result = realised + change
    if result > row.best:
        AccountDay.objects.filter(pk=row.pk, best__lt=result).update(best=result)
    return Day(realised, change, max(row.best, result))


def unrealised(account: Account, now: datetime) -> Decimal | None:
    """What open positions have gained since they were opened; ``None`` when a price is missing or
    old."""
    rows = Position.objects.filter(account=account).exclude(quantity=0)
    held = list(rows.values_list("symbol", "quantity", "average_price"))
    marks = marks_of(((account.pk, symbol) for symbol, _, _ in held), now)
    total = Decimal(0)
    for symbol, quantity, average_price in held:
        mark = marks.get((account.pk, symbol))
        if mark is None or not mark.is_fresh or average_price is None:
            return None
        total += quantity * (mark.price - average_price) * mark.rate
    return total


def _realised(account: Account, since: datetime, now: datetime) -> Decimal:
    rows = Fill.objects.filter(account=account, recorded_at__gte=since).order_by()
    by_symbol = list(rows.values_list("symbol").annotate(Sum("realised_pnl")))
    marks = marks_of(((account.pk, symbol) for symbol, _ in by_symbol), now)
    rates = {symbol: marks[account.pk, symbol].rate for _, symbol in marks}
    return sum((result * rates.get(symbol, 1) for symbol, result in by_symbol), Decimal(0))
