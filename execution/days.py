"""An account's own trading day: when it began, and how it has gone so far."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db.models import F, QuerySet, Sum
from django.utils import timezone

from brokers.models import Account
from brokers.prepared import Prepared, given
from execution.marks import Mark, marks_of
from execution.models import AccountDay, Fill, FundingPayment, Position
from risk.book import Day

_Place = tuple[int, str]
_Marks = Mapping[_Place, Mark]


def day_of(account: Account, now: datetime) -> tuple[date, datetime]:
    """The account's day at ``now`` and the moment it began, by its own zone and starting hour. While
    nobody knows the zone it is UTC: the account's exits are judged and leave.
    """
    try:
        return day_by(account.day_zone, account.day_starts, now)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return day_by("UTC", account.day_starts, now)


def day_by(zone_name: str, starts: time, now: datetime) -> tuple[date, datetime]:
    """As ``day_of``, for a zone and a starting hour. Raises ZoneInfoNotFoundError or ValueError for a
    zone nobody knows."""
    zone = ZoneInfo(zone_name)
    local = now.astimezone(zone)
    day = local.date() if local.time() >= starts else local.date() - timedelta(days=1)
    return day, datetime.combine(day, starts, zone)


def today(account: Account, now: datetime) -> Day:
    """The day so far, in the account's currency; its best result is kept on the day's row.

    What was unrealised when the day was first looked at does not count as its result: at the last
    known prices, however old. Those of a closed market are the ones a gap begins at.
    """
    day, began = day_of(account, now)
    booked, held = _realised_since(account.pk, began), _held([account.pk])
    marks = _marks(booked, held, now)
    realised = _realised(booked, marks)
    last_known, open_result = _gain(held, marks), _gain(held, _fresh(marks))
    row = _days.first(account=account.pk, day=day)
    if row is None and last_known is not None:
        row, _ = AccountDay.objects.get_or_create(
            account=account, day=day, defaults={"opening_unrealised": last_known}
        )
    if row is None or open_result is None:
        return Day(realised, None, row.best if row else Decimal(0))
    change = open_result - row.opening_unrealised
    result = realised + change
    if result > row.best:
        AccountDay.objects.filter(pk=row.pk, best__lt=result).update(best=result)
    return Day(realised, change, max(row.best, result))


def begin(account: Account, priced_at: datetime | None) -> None:
    """Have the day begin with the prices known before it; call it before the price of ``priced_at`` is
    written over.
    """
    now = timezone.now()
    _, began = day_of(account, now)
    if priced_at is not None and priced_at < began:
        today(account, now)


def book_gone(position: Position, gone: Decimal, cost: Decimal | None, now: datetime) -> None:
    """Have the day keep what ``gone`` of ``position`` has gained since it cost ``cost``, at the last
    price: it was traded by nobody FKS knows. Call it while the position's row still holds that.
    """
    today(position.account, now)
    mark = _mark_of(position, now)
    if mark is not None and cost is not None:
        _began_without(position.account, gone * (mark.price - cost) * mark.rate, now)


def book_recounted(position: Position, more: Decimal, now: datetime) -> None:
    """Have the day begin without what trades of earlier days have realised ``more`` than was booked of
    them, in the quote asset: open positions seemed to have gained it still.
    """
    mark = _mark_of(position, now)
    if mark is not None and more:
        _began_without(position.account, more * mark.rate, now)


def _mark_of(position: Position, now: datetime) -> Mark | None:
    place = position.account_id, position.symbol
    return marks_of([place], now).get(place)


def _began_without(account: Account, gained: Decimal, now: datetime) -> None:
    day, _ = day_of(account, now)
    row = AccountDay.objects.filter(account=account, day=day)
    row.update(opening_unrealised=F("opening_unrealised") - gained)


def unrealised(account: Account, now: datetime) -> Decimal | None:
    """What open positions have gained since they were opened; ``None`` when a price is missing or
    old."""
    return all_unrealised([account], now)[account.pk]


def all_unrealised(accounts: Collection[Account], now: datetime) -> dict[int, Decimal | None]:
    """``unrealised`` of many accounts, by account id; two queries, however many."""
    ids = [account.pk for account in accounts]
    held = _held(ids)
    marks = _fresh(_marks({}, held, now))
    return {pk: _gain([one for one in held if one.account_id == pk], marks) for pk in ids}


def known_gain(account: Account, now: datetime) -> Decimal:
    """What open positions have gained, each as far as its price is known: by one that has grown old a
    loss counts, and no gain.
    """
    held, total = _held([account.pk]), Decimal(0)
    marks = _marks({}, held, now)
    for one in held:
        mark = marks.get((one.account_id, one.symbol))
        if mark is not None and one.average_price is not None:
            gain = one.quantity * (mark.price - one.average_price) * mark.rate
            total += gain if mark.is_fresh else min(gain, Decimal(0))
    return total


class _Holding(NamedTuple):
    account_id: int
    symbol: str
    quantity: Decimal
    average_price: Decimal | None


def _held(accounts: Collection[int]) -> list[_Holding]:
    return [_Holding(*row) for row in _holdings(accounts=list(accounts))]


@Prepared
def _days() -> QuerySet[AccountDay]:
    return AccountDay.objects.filter(account=given("account"), day=given("day"))


@Prepared
def _holdings() -> QuerySet[Position, tuple[Any, ...]]:
    held = Position.objects.filter(account__any=given("accounts")).exclude(quantity=0)
    return held.order_by().values_list(*_Holding._fields)


def _marks(booked: Mapping[_Place, Decimal], held: Iterable[_Holding], now: datetime) -> _Marks:
    return marks_of([*booked, *((one.account_id, one.symbol) for one in held)], now)


def _fresh(marks: _Marks) -> _Marks:
    return {place: mark for place, mark in marks.items() if mark.is_fresh}


def _realised(booked: Mapping[_Place, Decimal], marks: _Marks) -> Decimal:
    rates = {place: mark.rate for place, mark in marks.items()}
    return sum((result * rates.get(place, 1) for place, result in booked.items()), Decimal(0))


def _gain(held: Iterable[_Holding], marks: _Marks) -> Decimal | None:
    total = Decimal(0)
    for one in held:
        mark = marks.get((one.account_id, one.symbol))
        if mark is None or one.average_price is None:
            return None
        total += one.quantity * (mark.price - one.average_price) * mark.rate
    return total


def _realised_since(account: int, began: datetime) -> dict[_Place, Decimal]:
    """By account id and symbol, funding included. One query."""
    found: dict[_Place, Decimal] = {}
    for pk, symbol, result in _results(accounts=[account], since=began):
        found[pk, symbol] = found.get((pk, symbol), Decimal(0)) + result
    return found


@Prepared
def _results() -> QuerySet[Fill, tuple[Any, ...]]:
    rows = Fill.objects.filter(account__any=given("accounts"), recorded_at__gte=given("since"))
    trades = rows.order_by().values_list("account_id", "symbol")
    return trades.annotate(total=Sum("realised_pnl")).union(_funding(), all=True)


def _funding() -> QuerySet[FundingPayment, tuple[Any, ...]]:
    """Received less paid, in the quote asset."""
    rows = FundingPayment.objects.filter(account__any=given("accounts"), at__gte=given("since"))
    return rows.order_by().values_list("account_id", "symbol").annotate(total=Sum("amount"))
