"""The probes: what they answer when all is well, and when each dependency fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from brokers.models import Account
from execution.models import Heartbeat
from fks_site import health
from risk import breakers

needs_commits = pytest.mark.django_db(transaction=True)
"""``/ready`` looks from a thread, on a connection of its own."""


@pytest.fixture
def beating(transactional_db: None) -> None:
    for name in ("worker", "beat"):
        Heartbeat.objects.create(name=name, at=timezone.now())


@pytest.fixture
def valkey_at(settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Points ``/ready`` to another Valkey for one test."""

    def point(url: str) -> None:
        settings.REDIS_URL = url
        health._valkey.cache_clear()

    yield point
    health._valkey.cache_clear()


@pytest.mark.parametrize("path", ["/health", "/health/"])
def test_health_asks_nothing_but_the_process(client: Client, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert response.json() == {"status": "ok"}
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_probe_takes_no_orders(client: Client, path: str) -> None:
    response = client.post(path)

    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD"
    assert response.json()["code"] == "METHOD_NOT_ALLOWED"


@needs_commits
@pytest.mark.parametrize("path", ["/ready", "/ready/"])
def test_ready_when_everything_answers(client: Client, beating: None, path: str) -> None:
    account = Account.objects.create(name="desk", broker="paper")
    Account.objects.create(name="other", broker="paper")
    Account.objects.create(name="retired", broker="paper", is_active=False)
    breakers.trip(breakers.of_account(account.pk), "maintenance of the venue")

    response = client.get(path)

    assert response.status_code == 200
    body = response.json()
    for name in ("worker", "beat"):
        assert body["checks"].pop(name)["age_seconds"] in range(15)
    assert body == {
        "status": "ok",
        "checks": {
            "database": {"status": "ok"},
            "migrations": {"status": "ok"},
            "valkey": {"status": "ok"},
            "brokers": {"status": "ok", "breakers": {"paper": {"closed": 1, "open": 1}}},
        },
    }


@needs_commits
def test_not_ready_without_heartbeats(client: Client) -> None:
    Heartbeat.objects.create(name="beat", at=timezone.now() - timedelta(seconds=16))

    response = client.get("/ready")

    assert response.status_code == 503
    body = response.json()
    assert body["status"] == "unavailable"
    assert body["checks"]["worker"] == {"status": "failed", "reason": "has never run"}
    assert body["checks"]["beat"] == {
        "status": "failed",
        "reason": "was last seen 16 s ago",
        "age_seconds": 16,
    }
    assert body["checks"]["database"] == {"status": "ok"}


@needs_commits
def test_not_ready_while_migrations_are_missing(
    client: Client, beating: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_unapplied_migrations", lambda: 2)

    response = client.get("/ready")

    assert response.status_code == 503
    assert response.json()["checks"] == {
        "database": {"status": "ok"},
        "migrations": {"status": "failed", "reason": "2 are not applied"},
        "valkey": {"status": "ok"},
    }


@pytest.mark.django_db
def test_missing_migrations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_applied", set())
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'execution'")
        forgotten = cursor.rowcount
    assert health._unapplied_migrations() == forgotten > 0
    assert health._applied == set()


@needs_commits
def test_a_failing_database_is_named_without_its_words(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> health._Stored:
        raise OperationalError("password authentication failed for user fks at 10.0.0.7")

    monkeypatch.setattr(health, "_ask_database", fail)

    response = client.get("/ready")

    assert response.status_code == 503
    assert response.json() == {
        "status": "unavailable",
        "checks": {
            "database": {"status": "failed", "reason": "does not answer"},
            "valkey": {"status": "ok"},
        },
    }
    assert b"10.0.0.7" not in response.content


@pytest.mark.alone
@needs_commits
def test_a_hanging_database_does_not_hang_the_probe(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(health, "_ask_database", lambda: release.wait(30))
    started = time.monotonic()
    try:
        response = client.get("/ready")
    finally:
        release.set()

    assert response.status_code == 503
    assert response.json()["checks"]["database"]["status"] == "failed"
    assert health.TIMEOUT <= time.monotonic() - started < 2


@needs_commits
def test_not_ready_without_valkey(client: Client, beating: None, valkey_at) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        valkey_at(f"redis://127.0.0.1:{free.getsockname()[1]}/0")

        response = client.get("/ready")

    assert response.status_code == 503
    checks = response.json()["checks"]
    assert checks["valkey"] == {"status": "failed", "reason": "does not answer"}
    assert {name for name, check in checks.items() if check["status"] == "failed"} == {"valkey"}


@pytest.mark.alone
@needs_commits
def test_a_valkey_that_takes_calls_and_says_nothing(
    client: Client, beating: None, valkey_at
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        valkey_at(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        started = time.monotonic()

        response = client.get("/ready")

    assert response.status_code == 503
    assert response.json()["checks"]["valkey"]["status"] == "failed"
    assert time.monotonic() - started < 2


@pytest.mark.alone
@needs_commits
def test_the_probe_is_cheap(client: Client, beating: None) -> None:
    client.get("/ready")
    started = time.perf_counter()
    for _ in range(5):
        assert client.get("/ready").status_code == 200
    assert (time.perf_counter() - started) / 5 < 0.5
