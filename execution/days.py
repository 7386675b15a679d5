"""An account's own trading day: when it began, and how it has gone so far."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db.models import Sum

from brokers.models import Account
from execution.marks import Mark, marks_of
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
    return all_unrealised([account], now)[account.pk]


def all_unrealised(accounts: Collection[Account], now: datetime) -> dict[int, Decimal | None]:
    """``unrealised`` of many accounts, by account id; two queries, however many."""
    ids = [account.pk for account in accounts]
    rows = Position.objects.filter(account__in=ids).exclude(quantity=0)
    held = list(rows.values_list("account_id", "symbol", "quantity", "average_price"))
    marks = marks_of(((pk, symbol) for pk, symbol, _, _ in held), now)
    return {
        pk: _gain((marks.get((a, symbol)), q, price) for a, symbol, q, price in held if a == pk)
        for pk in ids
    }


def results(accounts: Collection[Account], now: datetime) -> dict[int, Decimal]:
    """What each account's day has come to, by account id and in its currency; writes nothing.

    Open positions count where every price is known and the day has been looked at; else only what
    was realised. A handful of queries, however many accounts.
    """
    days = {account.pk: day_of(account, now) for account in accounts}
    booked = _realised_since({pk: began for pk, (_, began) in days.items()})
    held = list(
        Position.objects.filter(account__in=days)
        .exclude(quantity=0)
        .values_list("account_id", "symbol", "quantity", "average_price")
    )
    places = [*booked, *((pk, symbol) for pk, symbol, _, _ in held)]
    marks = marks_of(places, now)
    totals = dict.fromkeys(days, Decimal(0))
    for (pk, symbol), result in booked.items():
        mark = marks.get((pk, symbol))
        totals[pk] += result * (mark.rate if mark else 1)
    rows = AccountDay.objects.filter(account__in=days, day__in={day for day, _ in days.values()})
    opened = {(row.account_id, row.day): row.opening_unrealised for row in rows}
    for pk, (day, _) in days.items():
        mine = [(marks.get((pk, symbol)), q, price) for a, symbol, q, price in held if a == pk]
        if (pk, day) in opened and (change := _gain(mine)) is not None:
            totals[pk] += change - opened[pk, day]
    return totals


def _gain(held: Iterable[tuple[Mark | None, Decimal, Decimal | None]]) -> Decimal | None:
    total = Decimal(0)
    for mark, quantity, average_price in held:
        if mark is None or not mark.is_fresh or average_price is None:
            return None
        total += quantity * (mark.price - average_price) * mark.rate
    return total


def _realised_since(began: Mapping[int, datetime]) -> dict[tuple[int, str], Decimal]:
    """By account id and symbol; one query for each moment a day began at."""
    found: dict[tuple[int, str], Decimal] = {}
    for moment in set(began.values()):
        accounts = [pk for pk, start in began.items() if start == moment]
        rows = Fill.objects.filter(account__in=accounts, recorded_at__gte=moment).order_by()
        sums = rows.values_list("account_id", "symbol").annotate(Sum("realised_pnl"))
        found |= {(pk, symbol): result for pk, symbol, result in sums}
    return found


def _realised(account: Account, since: datetime, now: datetime) -> Decimal:
    rows = Fill.objects.filter(account=account, recorded_at__gte=since).order_by()
    by_symbol = list(rows.values_list("symbol").annotate(Sum("realised_pnl")))
    marks = marks_of(((account.pk, symbol) for symbol, _ in by_symbol), now)
    rates = {symbol: marks[account.pk, symbol].rate for _, symbol in marks}
    return sum((result * rates.get(symbol, 1) for symbol, result in by_symbol), Decimal(0))
