"""Gauges read at each scrape: what the rows say right now, the queue, the disk. docs/metrics.md has
the catalogue.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import redis
from django.conf import settings
from django.db import Error, connection
from django.db.models import Count, Min, Q, Sum
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from brokers.models import Account
from execution.handing_out import EXITS, ORDERS, SWEEPS
from execution.models import (
    Alarm,
    Difference,
    Fill,
    Heartbeat,
    Order,
    Position,
    Protection,
    Signal,
    SpreadWatch,
)
from execution.states import UNRESOLVED, OrderState, SignalState
from fks_site import account_figures
from risk.models import AuditEvent, CircuitBreaker, TradingState

logger = logging.getLogger(__name__)

SPREAD_AGE = timedelta(minutes=10)
_HELD = Count("pk", filter=~Q(quantity=0))

_PATIENCE: dict[str, Any] = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
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


class DatabaseCollector(Collector):
    """Gauges read once per scrape. Without a database only ``fks_database_up`` is left, at 0."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            accounts = list(
                Account.objects.filter(is_active=True).select_related("breaker", "login")
            )
            families = [
                *_orders(),
                *_alarms(),
                *_signals(),
                *_accounts(accounts),
                *_compared(accounts),
                *_logins(accounts),
                *_positions(),
                *_spreads(),
                *_guarded(accounts),
                *_daily_loss(),
                *_switches(),
                *_audit(),
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

    waiting = Order.objects.filter(state=OrderState.PENDING).aggregate(at=Min("created_at"))["at"]
    yield _gauge(
        "fks_oldest_waiting_order_seconds",
        "How long the oldest order that was decided and not yet sent has waited.",
        {(): _age(waiting)},
    )


def _spreads() -> Iterator[GaugeMetricFamily]:
    """Of instruments somebody watches; what was seen long ago is left out."""
    since = timezone.now() - SPREAD_AGE
    watched = SpreadWatch.objects.filter(is_enabled=True, net__isnull=False, looked_at__gt=since)
    yield _gauge(
        "fks_net_spread",
        "Widest price gap between accounts after fees, as a fraction.",
        {(symbol,): net for symbol, net in watched.values_list("symbol", "net")},
        "symbol",
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


def _accounts(accounts: list[Account]) -> Iterator[GaugeMetricFamily]:
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


def _compared(accounts: list[Account]) -> Iterator[GaugeMetricFamily]:
    """How each account stands with its venue."""
    yield _gauge(
        "fks_account_reconciled",
        "Whether the account has been compared with its venue since the last standstill.",
        {(account.name,): int(account.reconciled_at is not None) for account in accounts},
        "account",
    )
    yield _gauge(
        "fks_reconciliation_age_seconds",
        "Since the account was last compared with its venue.",
        {(one.name,): _age(one.reconciled_at) for one in accounts if one.reconciled_at},
        "account",
    )
    open_ = Difference.objects.filter(state__in=Difference.BLOCKING).order_by()
    counts = dict(open_.values_list("account_id").annotate(Count("pk")))
    text = "What account and venue disagree about and nobody has resolved."
    differing = {(account.name,): counts.get(account.pk, 0) for account in accounts}
    yield _gauge("fks_differences", text, differing, "account")


def _logins(accounts: list[Account]) -> Iterator[GaugeMetricFamily]:
    """What is left of the log-ins that people renew."""
    states = {(one.name,): one.venue_login for one in accounts}
    left = {name: found.left.total_seconds() for name, found in states.items() if found}
    text = "Until somebody must log the account in at its venue; 0 when it is needed now."
    yield _gauge("fks_venue_login_seconds_left", text, left, "account")


def _guarded(accounts: list[Account]) -> Iterator[GaugeMetricFamily]:
    """Positions whose stop should be at the venue and is not."""
    naked = Protection.objects.filter(is_active=True, naked_since__isnull=False).order_by()
    rows = naked.values_list("account_id").annotate(Count("pk"), Min("naked_since"))
    found = {pk: (count, since) for pk, count, since in rows}
    yield _gauge(
        "fks_unguarded_positions",
        "Positions whose stop is not at the venue although it should be.",
        {(account.name,): found.get(account.pk, (0, None))[0] for account in accounts},
        "account",
    )
    yield _gauge(
        "fks_unguarded_position_age_seconds",
        "How long the longest unguarded position has been so.",
        {(account.name,): _age(found.get(account.pk, (0, None))[1]) for account in accounts},
        "account",
    )


def _daily_loss() -> Iterator[GaugeMetricFamily]:
    rows = account_figures.with_daily_use(Account.objects.filter(is_active=True), timezone.now())
    uses = {(row.name,): account_figures.daily_use(row) for row in rows}
    shares = {name: use.share for name, use in uses.items() if use is not None}
    text = "How much of its daily_loss limit an account's day has used up; at 1 entries stop."
    yield _gauge("fks_daily_loss_share", text, shares, "account")


def _audit() -> Iterator[GaugeMetricFamily]:
    loose = AuditEvent.objects.filter(position=None).aggregate(Count("pk"), at=Min("at"))
    text = "Audit events not yet sealed into the chain."
    yield _gauge("fks_audit_unsealed_events", text, {(): loose["pk__count"]})
    text = "How long the oldest unsealed audit event has waited."
    yield _gauge("fks_audit_unsealed_age_seconds", text, {(): _age(loose["at"])})
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        (size,) = cursor.fetchone()
    yield _gauge("fks_database_bytes", "Size of the database on its disk.", {(): size})


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
    text = "Realised profit and loss since midnight UTC; daily_loss has the account's own day."
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


class SurroundingsCollector(Collector):
    """The queue in Valkey, and the disk FKS_VAR lies on."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        waiting = _queues()
        up = {(): int(waiting is not None)}
        yield _gauge("fks_valkey_up", "Whether this scrape could read the queues.", up)
        if waiting is not None:
            text = "Messages that wait in a queue."
            yield _gauge("fks_queue_messages", text, waiting, "queue")
        disk = shutil.disk_usage(settings.FKS_VAR if settings.FKS_VAR.exists() else "/")
        yield _gauge("fks_disk_bytes", "Size of the disk under FKS_VAR.", {(): disk.total})
        yield _gauge("fks_disk_free_bytes", "Free there.", {(): disk.free})


def _queues() -> dict[tuple[str], int] | None:
    with redis.Redis.from_url(settings.REDIS_URL, **_PATIENCE) as client:
        try:
            return {(name,): int(client.llen(name)) for name in (EXITS, ORDERS, SWEEPS)}
        except redis.RedisError as error:
            logger.warning("the queues could not be read for a scrape: %s", error)
            return None
