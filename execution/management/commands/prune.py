"""``manage.py prune``: forget what is old and proves nothing any more."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from execution.models import IdempotencyKey, Order, QuarantinedBody, Signal
from execution.states import TERMINAL, SignalState
from risk import audit
from risk.models import Notice

BATCH = 1000
LEAST_DAYS = 7


def old_bodies(before: datetime) -> QuerySet[Any]:
    """Alerts that ended long ago, with no order that is still open; only their text is forgotten."""
    unfinished = Order.objects.filter(signal=OuterRef("pk")).exclude(state__in=TERMINAL)
    undecided = (SignalState.RECEIVED, SignalState.WORKING)
    rows = Signal.objects.filter(~Exists(unfinished), received_at__lt=before).exclude(body="")
    return rows.exclude(state__in=undecided)


def old_quarantine(before: datetime) -> QuerySet[Any]:
    return QuarantinedBody.objects.filter(received_at__lt=before)


def ended_keys(_before: datetime) -> QuerySet[Any]:
    return IdempotencyKey.objects.filter(expires_at__lt=timezone.now())


def ended_sessions(_before: datetime) -> QuerySet[Any]:
    return Session.objects.filter(expire_date__lt=timezone.now())


def old_notices(before: datetime) -> QuerySet[Any]:
    return Notice.objects.filter(at__lt=before).exclude(state=Notice.State.WAITING)


def _empty(rows: QuerySet[Any]) -> int:
    return rows.update(body="")


def _delete(rows: QuerySet[Any]) -> int:
    return rows.delete()[0]


SORTS: dict[str, tuple[Callable[[datetime], QuerySet[Any]], Callable[[QuerySet[Any]], int]]] = {
    "alert texts": (old_bodies, _empty),
    "quarantined bodies": (old_quarantine, _delete),
    "idempotency keys": (ended_keys, _delete),
    "notifications": (old_notices, _delete),
    "sessions": (ended_sessions, _delete),
}


class Command(BaseCommand):
    help = (
        "Forget old texts of alerts, quarantined bodies, notifications, ended idempotency keys and "
        "sessions. Orders, "
        "fills, journals and the audit trail stay. Without --apply it only counts. Prints JSON."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days",
            type=int,
            default=settings.RETENTION_DAYS,
            help="keep what is younger (FKS_RETENTION_DAYS, %(default)s)",
        )
        parser.add_argument("--apply", action="store_true", help="do it")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["days"] < LEAST_DAYS:
            raise CommandError(f"--days must be at least {LEAST_DAYS}")
        before = timezone.now() - timedelta(days=options["days"])
        counts = {name: find(before).count() for name, (find, _) in SORTS.items()}
        if options["apply"]:
            for find, forget in SORTS.values():
                _in_batches(find(before), forget)
            with audit.acting(audit.Actor("command")):
                audit.record("pruned", f"older than {options['days']} days", after=counts)
        self.stdout.write(json.dumps({"applied": options["apply"], **counts}))


def _in_batches(rows: QuerySet[Any], forget: Callable[[QuerySet[Any]], int]) -> None:
    """In small transactions, so that nothing waits for it."""
    while keys := list(rows.values_list("pk", flat=True)[:BATCH]):
        if not forget(rows.filter(pk__in=keys)):
            break
