"""Figures of accounts that PostgreSQL works out beside their rows, and the curves of the home page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any

from django.core.cache import cache
from django.db.models import (
    Aggregate,
    Count,
    DurationField,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
)
from django.db.models.functions import Coalesce, TruncDay
from django.utils import timezone

from brokers import access
from brokers.fields import MoneyField
from brokers.models import Account
from execution import day_results
from execution.marks import marks_of
from execution.models import Fill, FundingPayment, Order
from execution.performance import Point
from fks_site import charts
from fks_site.limit_use import NEARLY
from risk.models import LimitHit, RiskLimit

ANSWERS_OF = timedelta(hours=1)
DAYS = 30
DENIALS_KEY = "fks.denials"
CURVES_KEY, CURVES_SECONDS = "fks.curves", 60


class Percentile(Aggregate):
    """PostgreSQL's ``percentile_cont`` of an ordered set; ``share`` from 0 to 1."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(%(share)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = DurationField()

    def __init__(self, expression: Any, share: Decimal, **extra: Any) -> None:
        super().__init__(expression, share=share, **extra)


def with_daily_use(accounts: QuerySet[Account], now: datetime) -> QuerySet[Account]:
    """Accounts with their day and its limits: what ``daily_use`` reads. One query more."""
    return day_results.with_day(accounts, now).annotate(
        daily_limit=_daily_limit(realised_only=False),
        realised_limit=_daily_limit(realised_only=True),
    )


def _daily_limit(*, realised_only: bool) -> Subquery:
    """The tightest daily loss limit in force for a whole account, of those that count open positions or
    of those that do not; annotates accounts.
    """
    ignoring = Q(parameters__contains={"unrealised": "ignore"})
    whole = RiskLimit.objects.filter(
        Q(policy__account=OuterRef("pk")) | Q(policy__account=None),
        ignoring if realised_only else ~ignoring,
        policy__strategy="",
        policy__symbol="",
        rule="daily_loss",
        mode=RiskLimit.Mode.ENFORCE,
    )
    return Subquery(whole.order_by("value").values("value")[:1], output_field=MoneyField())


@dataclass(frozen=True, slots=True)
class DailyUse:
    """What of an account's daily loss limit is used up, as the rule sees it. ``lost`` is ``None`` while
    the rule cannot know it, and refuses: an open position has no price.
    """

    lost: Decimal | None
    limit: Decimal

    @property
    def share(self) -> Decimal:
        """From 0 to 1; what cannot be known counts as used up."""
        if self.lost is None or not self.limit:
            return Decimal(1)
        return min(self.lost / self.limit, Decimal(1))

    @property
    def percent(self) -> int:
        return int(self.share * 100)

    @property
    def tone(self) -> str:
        return "danger" if self.share >= 1 else "warning" if self.share >= NEARLY else "success"


def daily_use(row: Any) -> DailyUse | None:
    """The limit of an annotated account that is nearest to its end; ``None`` where there is none."""
    known = None if row.changed is None else max(-day_results.result(row), Decimal(0))
    uses = []
    if row.daily_limit is not None:
        uses.append(DailyUse(known, row.daily_limit))
    if row.realised_limit is not None:
        realised = None if row.began is None else max(-row.realised, Decimal(0))
        uses.append(DailyUse(realised, row.realised_limit))
    return max(uses, key=lambda one: one.share, default=None)


def answer_p95(now: datetime) -> Subquery:
    """How long the venue took to answer the slowest twentieth of the last hour's orders."""
    lasted = ExpressionWrapper(
        F("acknowledged_at") - F("submitted_at"), output_field=DurationField()
    )
    answered = Order.objects.filter(
        account=OuterRef("pk"), submitted_at__gte=now - ANSWERS_OF, acknowledged_at__isnull=False
    )
    grouped = answered.order_by().values("account")
    p95 = grouped.annotate(p95=Percentile(lasted, Decimal("0.95"))).values("p95")
    return Subquery(p95, output_field=DurationField())


@dataclass(frozen=True, slots=True)
class Curve:
    """What the accounts of one environment and one currency have realised, day after day."""

    environment: str
    currency: str
    total: Decimal
    line: charts.Line | None

    @property
    def is_loss(self) -> bool:
        return self.total < 0


def curves(user: Any) -> list[Curve]:
    """One per environment and currency, of the last thirty days; at most a minute old."""
    if access.is_restricted(user):
        return _curves(user, timezone.now())
    known: list[Curve] | None = cache.get(CURVES_KEY)
    if known is None:
        known = _curves(user, timezone.now())
        cache.set(CURVES_KEY, known, CURVES_SECONDS)
    return known


@dataclass(frozen=True, slots=True)
class Denials:
    """How many alerts of the last 24 hours one rule denied; one that several orders came of, once."""

    rule: str
    alerts: int


def denials(user: Any) -> list[Denials]:
    """The rule that denied most first; at most a minute old. One query."""
    if access.is_restricted(user):
        return _denials(access.seen(user, LimitHit.objects.all()))
    known: list[Denials] | None = cache.get(DENIALS_KEY)
    if known is None:
        known = _denials(LimitHit.objects.all())
        cache.set(DENIALS_KEY, known, CURVES_SECONDS)
    return known


def _denials(hits: QuerySet[LimitHit]) -> list[Denials]:
    """Orders without an alert, as an operator's, count as one each."""
    recent = hits.filter(kind=LimitHit.Kind.DENIED, at__gte=timezone.now() - timedelta(hours=24))
    alert = Subquery(Order.objects.filter(pk=OuterRef("order_id")).values("signal"))
    alerts = Count(Coalesce(alert, F("order_id")), distinct=True)
    counted = recent.order_by().values_list("rule").annotate(alerts=alerts)
    return [Denials(*row) for row in counted.order_by("-alerts", "rule")]


def _curves(user: Any, now: datetime) -> list[Curve]:
    """In the accounts' currencies, funding included, as the day's result is."""
    since = now - timedelta(days=DAYS)
    fills = access.seen(user, Fill.objects.filter(recorded_at__gte=since))
    paid = access.seen(user, FundingPayment.objects.filter(at__gte=since))
    booked = [*_by_day(fills, "recorded_at", "realised_pnl"), *_by_day(paid, "at", "amount")]
    marks = marks_of([(account, symbol) for account, symbol, _, _ in booked], now)
    rates = {place: mark.rate for place, mark in marks.items()}
    accounts = Account.objects.in_bulk({account for account, *_ in booked})
    results: defaultdict[tuple[str, str], defaultdict[datetime, Decimal]]
    results = defaultdict(lambda: defaultdict(Decimal))
    for pk, symbol, day, amount in booked:
        kind = accounts[pk].environment, accounts[pk].quote_currency
        results[kind][day] += amount * rates.get((pk, symbol), 1)
    return [_curve(*kind, sorted(days.items())) for kind, days in sorted(results.items())]


def _by_day(rows: QuerySet[Any], moment: str, amount: str) -> Iterable[tuple[Any, ...]]:
    """By account and symbol. Without the account's own columns: PostgreSQL would sort by them."""
    grouped = rows.order_by().annotate(day=TruncDay(moment)).values_list("account", "symbol", "day")
    found: Iterable[tuple[Any, ...]] = grouped.annotate(Sum(amount))
    return found


def _curve(environment: str, currency: str, results: list[tuple[datetime, Decimal]]) -> Curve:
    totals = list(accumulate(result for _, result in results))
    points = [Point(day, total) for (day, _), total in zip(results, totals, strict=True)]
    return Curve(environment, currency, totals[-1], charts.line(points))
