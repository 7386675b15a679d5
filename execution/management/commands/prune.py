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

from execution.ids import first_id_at
from execution.models import IdempotencyKey, Order, QuarantinedBody, Signal
from execution.states import TERMINAL, SignalState
from risk import audit
from risk.models import Notice

BATCH = 1000
LEAST_DAYS = 7
CLOCKS = timedelta(hours=1)
"""An alert's id is made a moment before it is stored, by the clock of its web server."""


def old_bodies(before: datetime) -> QuerySet[Any]:
    """Alerts that ended long ago, with no order that is still open; only their text is forgotten."""
    unfinished = Order.objects.filter(signal=OuterRef("pk")).exclude(state__in=TERMINAL)
    undecided = (SignalState.RECEIVED, SignalState.WORKING)
    old = Signal.objects.filter(pk__lt=first_id_at(before + CLOCKS), received_at__lt=before)
    return old.filter(~Exists(unfinished)).exclude(body="").exclude(state__in=undecided)


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
        if not options["apply"]:
            counts = {name: find(before).count() for name, (find, _) in SORTS.items()}
        else:
            counts = {name: _in_batches(find(before), do) for name, (find, do) in SORTS.items()}
            with audit.acting(audit.Actor("command")):
                audit.record("pruned", f"older than {options['days']} days", after=counts)
        self.stdout.write(json.dumps({"applied": options["apply"], **counts}))


def _in_batches(rows: QuerySet[Any], forget: Callable[[QuerySet[Any]], int]) -> int:
    """How many were forgotten: in small transactions, so that nothing waits for it, and each goes on
    where the one before has ended, so that millions of rows are walked through once.
    """
    done, ahead = 0, rows.order_by("pk")
    while keys := list(ahead.values_list("pk", flat=True)[:BATCH]):
        done += forget(rows.filter(pk__in=keys))
        ahead = rows.order_by("pk").filter(pk__gt=keys[-1])
    return done
