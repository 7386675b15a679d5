"""``manage.py doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import redis
from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from brokers import crypto
from brokers.errors import BrokerError
from brokers.models import Account, ExchangeCredential
from brokers.sessions import plugin_for
from execution.models import Heartbeat, Order, Signal, Strategy
from execution.states import UNRESOLVED, SignalState
from risk.models import RiskLimit, TradingState

Findings = Iterator[str]
HEARTBEAT_AGE = timedelta(seconds=15)
UNUSABLE = (ValueError, TypeError, LookupError, OSError)
"""What a plugin raises by mistake when its options, its keys or REDIS_URL are malformed."""


def _settings() -> Findings:
    for finding in run_checks():
        if finding.level >= ERROR:
            yield f"{finding.msg} {finding.hint or ''}".strip()


def _database() -> Findings:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        yield "migrations are missing: run `manage.py migrate`"


def _queue() -> Findings:
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1).ping()
    except (ValueError, TypeError):  # its text may hold the password
        yield "REDIS_URL is no address of Valkey: it reads redis://HOST:6379/0"
    except redis.RedisError as error:
        yield f"the queue does not answer ({error}); alerts are stored and wait"


def _workers() -> Findings:
    for name, part in (("worker", "a worker"), ("beat", "beat")):
        row = Heartbeat.objects.filter(name=name).first()
        if row is None or timezone.now() - row.at > HEARTBEAT_AGE:
            since = f"since {row.at:%Y-%m-%d %H:%M:%S} UTC" if row else "ever"
            yield f"{part} has not been heard of {since}: is `manage.py up` running?"


def _credentials() -> Findings:
    for credential in ExchangeCredential.objects.select_related("account"):
        try:
            credential.reveal()
        except crypto.DecryptionError as error:
            yield f"the credential of {credential.account.name} cannot be read: {error}"
        except ValueError:
            yield f"the credential of {credential.account.name} cannot be read: see CREDENTIAL_KEYS"


def _accounts() -> Findings:
    for account in Account.objects.filter(is_active=True):
        try:
            health = plugin_for(account).health_check()
        except BrokerError as error:
            yield f"account {account.name}: {error}"
            continue
        except UNUSABLE as error:  # its text may hold what is secret
            kind = type(error).__name__
            yield f"account {account.name}: {account.broker} failed with {kind}: see its options"
            continue
        if not health.ok:
            yield f"account {account.name}: {health.detail}"


def _strategies() -> Findings:
    for strategy in Strategy.objects.filter(is_enabled=True):
        signs = strategy.auth != Strategy.Auth.JWT
        if signs and not strategy.live_secrets.exists():
            yield f"strategy {strategy.slug} has no live secret: nobody can post to it"
        if not strategy.routes.filter(is_enabled=True).exists():
            yield f"strategy {strategy.slug} has no enabled route: its alerts trade nowhere"
        if strategy.allowlist and not strategy.allowlist.networks.exists():
            yield f"strategy {strategy.slug} uses the empty allowlist {strategy.allowlist}"


def _trading() -> Findings:
    if not RiskLimit.objects.filter(mode=RiskLimit.Mode.ENFORCE).exists():
        yield "no limit is enforced, so nothing trades: see `manage.py set_limit --help`"
    for row in TradingState.objects.exclude(state=TradingState.State.ACTIVE):
        yield f"{row}: {row.reason} (release it with `manage.py resume`)"


def _orders() -> Findings:
    unresolved = Order.objects.filter(state__in=UNRESOLVED)
    for order in unresolved.select_related("account")[:20]:
        yield f"order {order.pk} ({order}) is {order.get_state_display()}"
    waiting = Signal.objects.filter(
        state=SignalState.RECEIVED, received_at__lt=timezone.now() - timedelta(seconds=30)
    ).count()
    if waiting:
        yield f"{waiting} alerts have waited more than 30 s for a decision"


def _audit_role() -> Findings:
    """Whoever trades for real on a database of their own can keep the trail from FKS's own role."""
    own_server = not str(connection.settings_dict["HOST"]).startswith(str(settings.FKS_VAR))
    if not (settings.FKS_LIVE_TRADING and own_server):
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT right_ FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS right_"
            " WHERE has_table_privilege('risk_auditevent', right_)"
        )
        rights = [right for (right,) in cursor.fetchall()]
    if rights:
        named = ", ".join(rights)
        yield f"the database role may {named} the audit trail: docs/audit.md has a role that may not"


CHECKS: dict[str, Callable[[], Findings]] = {
    "settings": _settings,
    "database": _database,
    "queue": _queue,
    "worker and beat": _workers,
    "credentials": _credentials,
    "accounts": _accounts,
    "strategies": _strategies,
    "limits and switches": _trading,
    "orders": _orders,
    "audit trail": _audit_role,
}


class Command(BaseCommand):
    help = "Check the whole installation; exit status 0 only when all is well."
    requires_system_checks: list[str] = []  # noqa: RUF012  (Django's own declaration)

    def handle(self, *_args: Any, **_options: Any) -> None:
        bad = 0
        for name, check in CHECKS.items():
            try:
                findings = list(check())
            except DatabaseError as error:
                findings = [f"the database does not answer as it should: {type(error).__name__}"]
            bad += len(findings)
            self.stdout.write(f"{'ok  ' if not findings else 'BAD '} {name}")
            for finding in findings:
                self.stdout.write(f"       {finding}")
        if bad:
            raise CommandError(f"{bad} thing{'s' if bad > 1 else ''} to look at")
