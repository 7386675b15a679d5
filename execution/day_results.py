"""What accounts' own days have come to, worked out by PostgreSQL: for pages and gauges.

The rule of the daily loss reads the same rows one account at a time (``days.today``); a test holds both
to one number.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from django.db.models import (
    Case,
    DateField,
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce

from brokers.fields import MoneyField
from brokers.models import Account, Instrument
from brokers.types import Environment
from execution import days
from execution.marks import TOO_OLD
from execution.models import AccountDay, Fill, FundingPayment, Position

Clock = tuple[str, time]
"""An account's zone and the hour at which its day starts."""

_MONEY: MoneyField[Any, Any] = MoneyField()
_NOTHING = Value(Decimal(0), output_field=_MONEY)


def with_day(accounts: QuerySet[Account], now: datetime) -> QuerySet[Account]:
    """Accounts with the figures of their own day: ``began``, what it ``realised`` with its funding, and
    what open positions have gained since the day was first looked at, ``changed``. The amounts are in
    the account's currency. ``changed`` is ``None`` while the price of an open position is not known,
    or when the day began: a zone nobody knows. One query more, for the clocks of all accounts.
    """
    clocks = Account.objects.order_by().values_list("day_zone", "day_starts").distinct()
    realised = _added(Fill, "realised_pnl", "recorded_at") + _added(FundingPayment, "amount", "at")
    began, day = _days_of(set(clocks), now)
    return accounts.annotate(began=began, day=day).annotate(
        realised=ExpressionWrapper(realised, output_field=_MONEY),
        changed=Case(
            When(Q(began=None) | _unpriced(now), then=None),
            default=_gain() - _opening(),
            output_field=_MONEY,
        ),
    )


def result(row: Any) -> Decimal:
    """A row's day so far; without the open positions while what they are worth is not known."""
    total: Decimal = row.realised + (row.changed or Decimal(0))
    return total


def _days_of(clocks: Collection[Clock], now: datetime) -> tuple[Case, Case]:
    """When each account's day began and its date, by its zone and starting hour.

    Not worked out by PostgreSQL: its zones are others than Python's, and one name it does not know
    would end the query for all accounts.
    """
    began, dates = [], []
    for zone, starts in clocks:
        try:
            day, since = days.day_by(zone, starts, now)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
        mine = Q(day_zone=zone, day_starts=starts)
        began.append(When(mine, then=Value(since, DateTimeField())))
        dates.append(When(mine, then=Value(day, DateField())))
    return Case(*began, output_field=DateTimeField()), Case(*dates, output_field=DateField())


def _added(model: type[Fill | FundingPayment], amount: str, moment: str) -> Coalesce:
    rows = model._default_manager.filter(
        account=OuterRef("pk"), **{f"{moment}__gte": OuterRef("began")}
    )
    booked = rows.order_by().values("account", "symbol").annotate(booked=Sum(amount))
    return Coalesce(
        _Converted(booked.annotate(rate=_mark("last_rate"))), _NOTHING, output_field=_MONEY
    )


class _Converted(Subquery):
    """What was booked by symbol, added up in the account's currency: one look for the rate per symbol
    and not per row, and a rate that is not known is 1.
    """

    template = "(SELECT SUM(booked * COALESCE(rate, 1)) FROM (%(subquery)s) AS by_symbol)"


def _gain() -> Coalesce:
    """What open positions have gained since they were opened."""
    gained = F("quantity") * (_mark("last_price") - F("average_price")) * _rate()
    return _total(_held(), gained)


def _opening() -> Subquery | Coalesce:
    """What they had gained when the day was first looked at; until then the day changed nothing."""
    day = AccountDay.objects.filter(account=OuterRef("pk"), day=OuterRef("day"))
    return Coalesce(Subquery(day.values("opening_unrealised")[:1]), _gain(), output_field=_MONEY)


def _unpriced(now: datetime) -> Exists:
    """A position is held whose price is not known or old."""
    priced = _marks().filter(
        Q(account__environment=Environment.DRY_RUN)
        | Q(last_price_at__range=(now - TOO_OLD, now + TOO_OLD))
    )
    return Exists(_held().filter(Q(average_price=None) | ~Exists(priced)))


def _held() -> QuerySet[Position]:
    return Position.objects.filter(account=OuterRef("pk")).exclude(quantity=0)


def _marks() -> QuerySet[Instrument]:
    """The last price of the row that is asked about, where one was seen."""
    return Instrument.objects.filter(
        account=OuterRef("account"),
        symbol=OuterRef("symbol"),
        last_price__isnull=False,
        last_price_at__isnull=False,
    )


def _mark(column: str) -> Subquery:
    return Subquery(_marks().values(column)[:1])


def _rate() -> Coalesce:
    """To the account's currency; money of a symbol without a price is taken for the account's own."""
    return Coalesce(_mark("last_rate"), Value(Decimal(1)), output_field=_MONEY)


def _total(rows: QuerySet[Any], amount: Any) -> Coalesce:
    sums = rows.order_by().values("account").annotate(total=Sum(amount, output_field=_MONEY))
    return Coalesce(Subquery(sums.values("total")), _NOTHING, output_field=_MONEY)
