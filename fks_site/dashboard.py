"""The home page's figures: gathered in nine queries (three more for each flatten that stands), kept
for two seconds, refreshed every five.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.core.cache import cache
from django.db.models import (
    Case,
    Count,
    F,
    Func,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    When,
    Window,
)
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache

from brokers import access
from brokers.models import Account
from brokers.types import Environment
from execution import flatten
from execution.alarms import GRAVEST_FIRST
from execution.models import Alarm, Difference, Order, Position, Protection, Signal
from execution.states import UNRESOLVED, WORKING, OrderState, SignalState
from fks_site import account_figures, arrivals, charts
from fks_site.arrivals import Cell
from risk import switch
from risk.breakers import OPERATE
from risk.models import CircuitBreaker, TradingState

CACHE_KEY = "fks.dashboard"
CACHE_SECONDS = 2
LATEST = 8
MOST_POSITIONS = 20
MOST_ALARMS = 5
_SERIOUS = (Environment.LIVE.value, Environment.SANDBOX.value)
LOOK = ("execution.view_signal", "execution.view_order", "execution.view_position")


@dataclass(frozen=True, slots=True)
class Refusals:
    """How often signals of the last 24 hours ended for one reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Flattening:
    """A kill switch that closes what is held, and how much is left of what it means."""

    row: TradingState
    orders: int
    positions: int


@dataclass(frozen=True, slots=True)
class View:
    """Everything the home page shows."""

    at: datetime
    trading: Sequence[TradingState]
    flattening: Sequence[Flattening]
    accounts: Sequence[Any]
    venues: Sequence[CircuitBreaker]
    signals: int
    arrivals: Sequence[Cell]
    oldest_undecided: datetime | None
    refusals: Sequence[Refusals]
    positions: Sequence[Position]
    latest_signals: Sequence[Signal]
    latest_orders: Sequence[Order]
    alarms: Sequence[Alarm]
    alarms_raised: int

    @property
    def more_alarms(self) -> int:
        """How many are raised beside those that are shown."""
        return self.alarms_raised - len(self.alarms)

    @property
    def working(self) -> int:
        return sum(row.working for row in self.accounts)

    @property
    def unresolved(self) -> int:
        """Orders of unknown fate, and those that wait for an operator."""
        return sum(row.unresolved for row in self.accounts)

    @property
    def awaiting(self) -> int:
        """Orders that wait for a person's approval."""
        return sum(row.awaiting for row in self.accounts)

    @property
    def differences(self) -> int:
        """What venues and our book disagree about; each blocks entries in its symbol."""
        return sum(row.open_differences for row in self.accounts)

    @property
    def unguarded(self) -> int:
        """Positions whose stop is not at the venue although it should be."""
        return sum(row.unguarded_positions for row in self.accounts)

    @property
    def realised(self) -> dict[tuple[str, str], Decimal]:
        """Realised profit and loss of the accounts' own days, by environment and currency."""
        totals: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for row in self.accounts:
            if row.is_active or row.realised:
                totals[row.environment, row.quote_currency] += row.realised
        return dict(sorted(totals.items()))

    @property
    def everything(self) -> TradingState | None:
        """The kill switch over everything; ``None`` until it is first used."""
        return next((row for row in self.trading if row.scope == TradingState.Scope.GLOBAL), None)

    @property
    def environment(self) -> str:
        """The most serious one of the accounts in use."""
        used = {row.environment for row in self.accounts if row.is_active}
        return next((one for one in _SERIOUS if one in used), Environment.DRY_RUN.value)

    @property
    def state(self) -> str:
        return str(self.everything.state) if self.everything else TradingState.State.ACTIVE.value

    @property
    def narrower(self) -> list[TradingState]:
        """Accounts and strategies that are switched off on their own."""
        return [row for row in self.trading if row.scope != TradingState.Scope.GLOBAL]

    @property
    def undecided_seconds(self) -> int | None:
        if self.oldest_undecided is None:
            return None
        return max(0, int((self.at - self.oldest_undecided).total_seconds()))


def cached_view(user: Any) -> View:
    """At most two seconds old, so that many open pages cost no more than one."""
    view: View | None = cache.get(_key_of(user))
    if view is None:
        view = gather(timezone.now(), access.reach_of(user))
        cache.set(_key_of(user), view, CACHE_SECONDS)
    return view


def forget(user: Any) -> None:
    """Show ``user`` what they have just done."""
    cache.delete(_key_of(user))


def _key_of(user: Any) -> str:
    """One view for all who see every account; who sees some has their own."""
    return f"{CACHE_KEY}.{user.pk}" if access.is_restricted(user) else CACHE_KEY


def gather(now: datetime, reach: access.Reach | None = None) -> View:
    """What may be seen within ``reach``. Nine queries, and three for each flatten that stands."""
    groups = arrivals.groups(now, reach)
    oldest, refusals = _undecided(groups), _refusals(groups)
    positions = Position.objects.exclude(quantity=0).select_related("account")
    alarms = list(access.within(reach, _alarms())[:MOST_ALARMS])
    trading = access.within(reach, TradingState.objects.all()).filter(
        Q(scope=TradingState.Scope.GLOBAL) | ~Q(state=TradingState.State.ACTIVE)
    )
    signals = Signal.objects.select_related("strategy").defer("body", "alert")
    orders = Order.objects.select_related("account", "strategy").defer("verdicts", "sizing")
    return View(
        at=now,
        trading=list(trading),
        flattening=[_flattening(row, reach) for row in trading if row.flatten],
        accounts=list(access.within(reach, _accounts(now))),
        venues=list(access.within(reach, CircuitBreaker.objects.filter(account=None))),
        signals=sum(row["count"] for row in groups),
        arrivals=arrivals.cells(groups, now),
        oldest_undecided=oldest,
        refusals=refusals,
        positions=list(access.within(reach, positions).order_by("-updated_at")[:MOST_POSITIONS]),
        latest_signals=list(access.within(reach, signals)[:LATEST]),
        alarms=alarms,
        alarms_raised=alarms[0].raised if alarms else 0,
        latest_orders=list(access.within(reach, orders)[:LATEST]),
    )


def _alarms() -> QuerySet[Any]:
    """What is raised, the gravest first, each with how many there are."""
    gravity = Case(*(When(kind=kind, then=place) for place, kind in enumerate(GRAVEST_FIRST)))
    raised = Alarm.objects.filter(cleared_at=None).select_related("account")
    return raised.annotate(raised=Window(Count("pk"))).order_by(gravity, "-id")


def _flattening(row: TradingState, reach: access.Reach | None) -> Flattening:
    left = flatten.left_of(row)

    def seen(ones: Sequence[Order] | Sequence[Position]) -> int:
        return sum(reach is None or one.account_id in reach.ids for one in ones)

    return Flattening(row, seen(left.orders), seen(left.positions))


def _accounts(now: datetime) -> QuerySet[Account]:
    """Accounts with their breaker, working and unresolved orders, their day and its limit."""
    rows = Account.objects.select_related("breaker", "login")
    return account_figures.with_daily_use(rows, now).annotate(
        working=_orders_in(WORKING),
        unresolved=_orders_in(UNRESOLVED),
        awaiting=_orders_in(frozenset({OrderState.AWAITING_APPROVAL})),
        open_differences=_count(Difference.objects.filter(state__in=Difference.BLOCKING)),
        unguarded_positions=_count(
            Protection.objects.filter(is_active=True, naked_since__isnull=False)
        ),
        answer_p95=account_figures.answer_p95(now),
    )


def _orders_in(states: frozenset[Any]) -> Subquery:
    return _count(Order.objects.filter(state__in=sorted(states)))


def _count(rows: QuerySet[Any]) -> Subquery:
    """How many of ``rows`` belong to the account of the outer query."""
    mine = rows.filter(account=OuterRef("pk")).order_by()
    count = Func(F("pk"), function="COUNT", output_field=IntegerField())
    return Subquery(mine.annotate(n=count).values("n"))


def _undecided(groups: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Since when the oldest signal waits for its decision."""
    waiting = [row["oldest"] for row in groups if row["state"] == SignalState.RECEIVED]
    return min(waiting, default=None)


def _refusals(groups: Sequence[Mapping[str, Any]]) -> list[Refusals]:
    """Why others were refused, the most frequent reason first."""
    counts: Counter[str] = Counter()
    for row in groups:
        if row["state"] in arrivals.REFUSED:
            counts[row["reason"]] += row["count"]
    return sorted(
        (Refusals(reason, count) for reason, count in counts.items()),
        key=lambda one: (-one.count, one.reason),
    )


def page_context(request: HttpRequest) -> dict[str, Any]:
    """What the home page's fragment needs beside the page around it."""
    user = request.user
    return {
        "view": cached_view(user) if user.has_perms(LOOK) else None,
        "may_switch": user.has_perm(switch.HALT) or user.has_perm(switch.CHANGE),
        "may_break": user.has_perm(OPERATE),
        "may_break_venues": user.has_perm(OPERATE) and not access.is_restricted(user),
        "webhook": request.build_absolute_uri("/webhook/demo/SECRET"),
        "closed": CircuitBreaker.State.CLOSED,
    }


def index_context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold calls this for the home page. What changes slowly is shown once, with the page."""
    may_look = request.user.has_perms(LOOK)
    drawn = {
        "curves": account_figures.curves(request.user) if may_look else [],
        "denials": account_figures.denials(request.user) if may_look else [],
        "box": (charts.WIDTH, charts.HEIGHT),
    }
    return {**context, **page_context(request), **drawn}


@never_cache
def fragment(request: HttpRequest) -> HttpResponse:
    """The figures alone, for htmx. Whose log-in has ended is told to load the page anew."""
    if not admin.site.has_permission(request):
        return HttpResponse(status=401, headers={"HX-Refresh": "true"})
    return TemplateResponse(request, "fks/dashboard.html", page_context(request))
