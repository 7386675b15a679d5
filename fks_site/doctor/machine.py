"""The installation itself: settings, disk, clock, database, queue, and the programs that should run."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import redis
from django.conf import settings
from django.core.checks import ERROR, WARNING, run_checks
from django.db import connection
from django.utils import timezone

from execution.models import Heartbeat
from fks_site import preflight, schema
from fks_site.doctor.findings import Finding, Findings, ago

HEARTBEAT_AGE = timedelta(seconds=15)
ALMOST_FULL = 0.1
"""Of the disk, as the alert `DiskNearlyFull` says it; or less than this many bytes:"""
LITTLE_SPACE = 1_000_000_000
SKEW = timedelta(seconds=1)


def configuration() -> Findings:
    """What ``manage.py check`` finds, with ``--deploy`` where FKS is served to others."""
    for found in run_checks(include_deployment_checks=settings.BEHIND_TLS):
        if found.level >= WARNING:
            what, then = str(found.msg), str(found.hint or f"see the check {found.id}")
            yield Finding(what, then, is_warning=found.level < ERROR)


def disk() -> Findings:
    """Of the directory of all state; a database elsewhere has a disk of its own to look at."""
    var = next(path for path in (settings.FKS_VAR, *settings.FKS_VAR.parents) if path.exists())
    usage = shutil.disk_usage(var)
    is_short = usage.free < preflight.LEAST_FREE_BYTES
    if is_short or usage.free < max(LITTLE_SPACE, usage.total * ALMOST_FULL):
        yield Finding(
            f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB are free at {Path(var)}",
            "make room before PostgreSQL stops taking writes: old backups and logs, then "
            "`manage.py prune --apply` (docs/runbook.md#the-disk-is-full)",
            is_warning=not is_short,
        )


def clock() -> Findings:
    """This machine's against the database server's: ages and leases are reckoned with both."""
    before = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        theirs: datetime = cursor.fetchone()[0]
    after = timezone.now()
    skew = max(before - theirs, theirs - after)
    if skew > SKEW:
        ahead = "behind" if theirs > after else "ahead of"
        yield Finding(
            f"this machine's clock is {skew.total_seconds():.1f} s {ahead} the database server's",
            "keep both by NTP (`timedatectl set-ntp true`), then look again",
        )


def database() -> Findings:
    if unapplied := schema.unapplied():
        yield Finding(
            f"migrations are missing: {len(unapplied)}, first {unapplied[0]}",
            "run `manage.py migrate` as the owner of the tables (docs/upgrade.md)",
        )
    elif closed := schema.closed_tables():
        yield Finding(
            f"our role may not use {len(closed)} tables, such as {closed[0]}",
            "run `manage.py grant_role` as the owner of the tables (docs/audit.md)",
        )


def queue() -> Findings:
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1).ping()
    except (ValueError, TypeError):  # its text may hold the password
        yield Finding(
            "REDIS_URL is no address of Valkey", "it reads redis://HOST:6379/0: correct it, restart"
        )
    except redis.RedisError as error:
        yield Finding(
            f"the queue does not answer ({error}); alerts are stored and wait",
            "start Valkey; nothing is lost (docs/runbook.md#ready-answers-503)",
        )


def programs() -> Findings:
    """How long ago a worker and beat were last heard of."""
    for name, part in (("worker", "a worker"), ("beat", "beat")):
        row = Heartbeat.objects.filter(name=name).first()
        if row is None:
            yield Finding(f"{part} has never been heard of", _start(name))
        elif (age := timezone.now() - row.at) > HEARTBEAT_AGE:
            yield Finding(
                f"{part} was last heard of {ago(age)} ago, at {row.at:%Y-%m-%d %H:%M:%S} UTC",
                _start(name),
            )


def _start(program: str) -> str:
    return (
        f"look whether `manage.py up`, or `manage.py serve {program}`, runs, and at its log; alerts "
        "are stored and wait (docs/runbook.md#ready-answers-503)"
    )


def audit_role() -> Findings:
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
        yield Finding(
            f"the database role may {', '.join(rights)} the audit trail",
            "let FKS run as a role that may not: docs/audit.md",
        )
