"""Probes: ``/health`` says that the process lives, ``/ready`` whether FKS can trade, else why not.

Both are open to everybody, so they name no account and show no error text.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, wraps
from typing import Any, TypeVar

import redis
from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from redis.backoff import NoBackoff
from redis.retry import Retry

from brokers.models import Account
from execution.models import Heartbeat
from fks_site import schema
from risk.models import CircuitBreaker

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
View = Callable[[HttpRequest], HttpResponse]

TIMEOUT = 0.9  # seconds for the answers of all dependencies together
PING_TIMEOUT = 0.5  # seconds
FRESH = timedelta(seconds=15)
HEARTBEATS = ("worker", "beat")

# A dependency that hangs holds a thread of this pool, never one that serves requests.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ready")
_applied: set[str] = set()  # databases whose migrations were seen complete by this process


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database says. ``unapplied`` counts migrations; above zero nothing else is read."""

    unapplied: int
    heartbeats: dict[str, datetime] = field(default_factory=dict)
    breakers: dict[str, dict[str, int]] = field(default_factory=dict)


def _probe(look: Callable[[], tuple[dict[str, Any], int]]) -> View:
    """A view that answers with ``look``'s body and status; never cached, only ever asked."""

    def view(request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            refusal = {"code": "METHOD_NOT_ALLOWED", "detail": "this path answers GET and HEAD"}
            return JsonResponse(refusal, status=405, headers={"Allow": "GET, HEAD"})
        body, status = look()
        return JsonResponse(body, status=status, headers={"Cache-Control": "no-store"})

    return wraps(look)(view)


@_probe
def health() -> tuple[dict[str, Any], int]:
    """``GET /health``: 200 while the process answers; asks nothing else."""
    return {"status": "ok"}, 200


@_probe
def ready() -> tuple[dict[str, Any], int]:
    """``GET /ready``: 200 when orders can flow, else 503 with the reason of every failed check.

    Answers within a second, whatever hangs. Breakers are shown for information: an open one stops
    one venue, not FKS.
    """
    stored = _threads.submit(_ask_database)
    ping = _threads.submit(_ask_valkey)
    deadline = time.monotonic() + TIMEOUT
    checks = _database_checks(_within(deadline, stored, "database"))
    checks["valkey"] = _check(_within(deadline, ping, "Valkey") or False, "does not answer")
    failed = {name: check for name, check in checks.items() if check["status"] != "ok"}
    if failed:
        reasons = [f"{name} {check['reason']}" for name, check in failed.items()]
        logger.warning("not ready: %s", "; ".join(reasons))
    status = "unavailable" if failed else "ok"
    return {"status": status, "checks": checks}, 503 if failed else 200


def _within(deadline: float, answer: Future[Result], what: str) -> Result | None:
    """The answer, or ``None`` when it failed (which is logged) or did not come in time."""
    try:
        return answer.result(timeout=max(deadline - time.monotonic(), 0))
    except TimeoutError:
        answer.cancel()
        logger.warning("%s did not answer in %s s", what, TIMEOUT)
    except (Error, redis.RedisError) as error:
        logger.warning("%s: %s", what, error)
    return None


def _check(passed: bool, reason: str, **facts: Any) -> dict[str, Any]:
    if passed:
        return {"status": "ok", **facts}
    return {"status": "failed", "reason": reason, **facts}


def _database_checks(stored: _Stored | None) -> dict[str, dict[str, Any]]:
    if stored is None:
        return {"database": _check(False, "does not answer")}
    checks = {
        "database": _check(True, ""),
        "migrations": _check(not stored.unapplied, f"{stored.unapplied} are not applied"),
    }
    if stored.unapplied:
        return checks
    now = timezone.now()
    for name in HEARTBEATS:
        checks[name] = _heartbeat_check(stored.heartbeats.get(name), now)
    checks["brokers"] = _check(True, "", breakers=stored.breakers)
    return checks


def _heartbeat_check(at: datetime | None, now: datetime) -> dict[str, Any]:
    if at is None:
        return _check(False, "has never run")
    age = max(int((now - at).total_seconds()), 0)
    return _check(now - at <= FRESH, f"was last seen {age} s ago", age_seconds=age)


def _ask_database() -> _Stored:
    """Runs in a thread of the pool, on a connection of its own that is closed again."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {int(TIMEOUT * 1000)}")
        unapplied = _unapplied_migrations()
        if unapplied:
            return _Stored(unapplied)
        return _Stored(0, dict(Heartbeat.objects.values_list("name", "at")), _breakers())
    finally:
        connection.close()


def _unapplied_migrations() -> int:
    """How many are missing. Zero is remembered: the code of a process does not change."""
    name = str(connection.settings_dict["NAME"])
    if name in _applied:
        return 0
    unapplied = len(schema.unapplied())
    if not unapplied:
        _applied.add(name)
    return unapplied


def _breakers() -> dict[str, dict[str, int]]:
    """Per plugin: how many active accounts have their breaker in which state."""
    rows = Account.objects.filter(is_active=True).values_list("broker", "breaker__state")
    closed = CircuitBreaker.State.CLOSED.value
    counts = Counter((broker, state or closed) for broker, state in rows)
    plugins: dict[str, dict[str, int]] = {}
    for (broker, state), count in sorted(counts.items()):
        plugins.setdefault(broker, {})[state] = count
    return plugins


def _ask_valkey() -> bool:
    return bool(_valkey().ping())


@cache
def _valkey() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=PING_TIMEOUT,
        socket_connect_timeout=PING_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
