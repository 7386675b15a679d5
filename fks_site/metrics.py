"""``/metrics`` for Prometheus: what the processes counted, and what the database says right now."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import Error
from django.db.models import Count, Min, Q, Sum
from django.http import HttpResponse
from django.utils import timezone
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from brokers.models import Account
from execution.guards import client_ip
from execution.models import Alarm, Fill, Heartbeat, Order, Position, Signal
from execution.rest import JsonAnswers
from execution.states import UNRESOLVED, OrderState, SignalState
from risk.allowlist import parse_address
from risk.models import CircuitBreaker, TradingState

logger = logging.getLogger(__name__)

_HELD = Count("pk", filter=~Q(quantity=0))

BREAKER_LEVELS = {
    CircuitBreaker.State.CLOSED: 0,
    CircuitBreaker.State.HALF_OPEN: 1,
    CircuitBreaker.State.OPEN: 2,
}
SWITCH_LEVELS = {
    TradingState.State.ACTIVE: 0,
    TradingState.State.REDUCING: 1,
    TradingState.State.HALTED: 2,
}


class LocalOrStaff(BasePermission):
    """A scraper on this machine, or a member of staff from anywhere.

    A request that a proxy passed on is not local, whoever the proxy is.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        address = parse_address(client_ip(request) or "")
        if address is not None and address.is_loopback:
            return "HTTP_X_FORWARDED_FOR" not in request.META
        return bool(request.user and request.user.is_staff)


class MetricsView(APIView):
    """``GET /metrics`` in Prometheus' text format."""

    permission_classes = (LocalOrStaff,)
    content_negotiation_class = JsonAnswers
    http_method_names = ("get", "head")
    schema = None

    def get(self, request: Request) -> HttpResponse:
        body = generate_latest(_registry())
        return HttpResponse(body, content_type=CONTENT_TYPE_LATEST)


def _registry() -> CollectorRegistry:
    """What all processes counted (see PROMETHEUS_MULTIPROC_DIR), else this one; and the database."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(DatabaseCollector())
    return registry


class DatabaseCollector(Collector):
    """Gauges read once per scrape. Without a database only ``fks_database_up`` is left, at 0."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            families = [
                *_orders(),
                *_alarms(),
                *_signals(),
                *_accounts(),
                *_positions(),
                *_switches(),
            ]
        except Error:
            logger.exception("the database could not be read for a scrape")
            families = []
        up = GaugeMetricFamily("fks_database_up", "Whether this scrape could read the database.")
        up.add_metric([], 1 if families else 0)
        yield up
        yield from families


def _gauge(name: str, text: str, values: Mapping[Any, Any], *labels: str) -> Any:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _age(since: datetime | None) -> float:
    return 0.0 if since is None else max((timezone.now() - since).total_seconds(), 0.0)


def _orders() -> Iterator[GaugeMetricFamily]:
    rows = Order.objects.order_by().values_list("state").annotate(Count("pk"))
    counts = {(state.value,): 0 for state in OrderState} | {
        (state,): count for state, count in rows
    }
    yield _gauge("fks_orders", "Orders by state.", counts, "state")
    unknown = Order.objects.filter(state__in=UNRESOLVED).aggregate(at=Min("unknown_since"))["at"]
    yield _gauge(
        "fks_unknown_order_age_seconds",
        "How long the oldest order of unknown outcome has been unknown.",
        {(): _age(unknown)},
    )


def _alarms() -> Iterator[GaugeMetricFamily]:
    rows = Alarm.objects.filter(cleared_at=None).order_by().values_list("kind")
    raised = {(kind,): 0 for kind in Alarm.Kind.values}
    raised |= {(kind,): count for kind, count in rows.annotate(Count("pk"))}
    yield _gauge("fks_alarms", "Alarms raised now, by kind.", raised, "kind")


def _signals() -> Iterator[GaugeMetricFamily]:
    waiting = Signal.objects.filter(state=SignalState.RECEIVED)
    oldest = waiting.aggregate(at=Min("received_at"))["at"]
    yield _gauge(
        "fks_oldest_unprocessed_signal_seconds",
        "How long the oldest undecided signal has waited.",
        {(): _age(oldest)},
    )


def _accounts() -> Iterator[GaugeMetricFamily]:
    accounts = list(Account.objects.filter(is_active=True).select_related("breaker"))
    levels = {(account.name,): BREAKER_LEVELS[_breaker_state(account)] for account in accounts}
    yield _gauge(
        "fks_breaker_state", "Circuit breakers: 0 closed, 1 half open, 2 open.", levels, "account"
    )
    of_venues = CircuitBreaker.objects.filter(account=None).values_list("venue", "state")
    yield _gauge(
        "fks_venue_breaker_state",
        "Circuit breakers of whole venues: 0 closed, 1 half open, 2 open.",
        {(venue,): BREAKER_LEVELS[CircuitBreaker.State(state)] for venue, state in of_venues},
        "venue",
    )
    venues = {account.venue for account in accounts}
    yield _gauge("active_exchanges", "Venues with an active account.", {(): len(venues)})


def _breaker_state(account: Account) -> CircuitBreaker.State:
    breaker = getattr(account, "breaker", None)
    return CircuitBreaker.State(breaker.state) if breaker else CircuitBreaker.State.CLOSED


def _positions() -> Iterator[GaugeMetricFamily]:
    by_account = Position.objects.order_by().values_list("account__name")
    rows = list(by_account.annotate(held=_HELD, realised=Sum("realised_pnl")))
    held = {(account,): count for account, count, _ in rows}
    yield _gauge("fks_positions", "Open positions.", held, "account")
    total = {(account,): pnl for account, _, pnl in rows}
    text = "Realised profit and loss since the beginning, in quote assets."
    yield _gauge("fks_realised_pnl", text, total, "account")
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    fills = Fill.objects.filter(recorded_at__gte=midnight).order_by().values_list("account__name")
    today = dict.fromkeys(total, Decimal(0)) | {
        (account,): pnl for account, pnl in fills.annotate(Sum("realised_pnl"))
    }
    text = "Realised profit and loss of the day (UTC), what daily_loss is compared with."
    yield _gauge("fks_realised_pnl_today", text, today, "account")


def _switches() -> Iterator[GaugeMetricFamily]:
    levels = {
        (row.scope, row.key): SWITCH_LEVELS[TradingState.State(row.state)]
        for row in TradingState.objects.all()
    }
    levels.setdefault((TradingState.Scope.GLOBAL.value, ""), 0)
    text = "Kill switches: 0 active, 1 reduce only, 2 halted."
    yield _gauge("fks_trading_state", text, levels, "scope", "key")
    beats = {(name,): _age(at) for name, at in Heartbeat.objects.values_list("name", "at")}
    text = "Since a part of FKS last proved to be alive."
    yield _gauge("fks_heartbeat_age_seconds", text, beats, "part")
