from __future__ import annotations

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import connection
from django.utils import timezone

from brokers.models import Account
from risk import breakers
from risk.models import AuditEvent, CircuitBreaker

State = CircuitBreaker.State


@pytest.fixture
def key(account) -> int:
    breakers.of_account(account.pk)
    return account.pk


def state(key: int) -> str:
    return CircuitBreaker.objects.get(account_id=key).state


def rewind(key: int, **since: int) -> None:
    """Let the time pass that the breaker measures."""
    earlier = timezone.now() - timedelta(**since)
    rows = CircuitBreaker.objects.filter(account_id=key)
    rows.filter(opened_at__isnull=False).update(opened_at=earlier)
    rows.filter(probe_until__isnull=False).update(probe_until=earlier)


def open_it(key: int) -> None:
    for _ in range(5):
        breakers.failed(key, "timeout")


def test_five_failures_in_a_row_open_it(key):
    for count in range(1, 5):
        breakers.failed(key, "timeout")
        assert CircuitBreaker.objects.get(account_id=key).failures == count
    assert breakers.admits(key)
    breakers.failed(key, "connection reset")
    assert state(key) == State.OPEN
    assert not breakers.admits(key)
    event = AuditEvent.objects.get()
    assert (event.kind, event.subject) == ("breaker.opened", "breaker desk")
    assert event.reason == "connection reset"


def test_a_success_forgets_the_failures(key):
    for _ in range(3):
        for _ in range(4):
            breakers.failed(key, "timeout")
        breakers.succeeded(key)
    assert CircuitBreaker.objects.get(account_id=key).failures == 0
    assert state(key) == State.CLOSED


def test_one_probe_after_sixty_seconds(key):
    open_it(key)
    rewind(key, seconds=59)
    assert not breakers.admits(key)
    rewind(key, seconds=60)
    assert breakers.admits(key)
    assert state(key) == State.HALF_OPEN
    assert not breakers.admits(key)


def test_two_good_probes_close_it(key):
    open_it(key)
    rewind(key, seconds=60)
    assert breakers.admits(key)
    breakers.succeeded(key)
    assert state(key) == State.HALF_OPEN
    assert breakers.admits(key)
    breakers.succeeded(key)
    row = CircuitBreaker.objects.get(account_id=key)
    assert (row.state, row.failures, row.successes, row.opened_at) == (State.CLOSED, 0, 0, None)
    assert AuditEvent.objects.order_by("pk").last().kind == "breaker.closed"


def test_a_failed_probe_opens_it_again_and_the_count_starts_anew(key):
    open_it(key)
    rewind(key, seconds=60)
    assert breakers.admits(key)
    breakers.succeeded(key)
    assert breakers.admits(key)
    breakers.failed(key, "still down")
    assert state(key) == State.OPEN
    assert not breakers.admits(key)
    rewind(key, seconds=60)
    assert breakers.admits(key)
    breakers.succeeded(key)
    assert state(key) == State.HALF_OPEN


def test_a_probe_that_never_reported_frees_its_place(key):
    open_it(key)
    rewind(key, seconds=60)
    assert breakers.admits(key)
    rewind(key, seconds=1)
    assert breakers.admits(key)


def test_an_operator_trips_and_resets_it(key):
    breakers.trip(key, "maintenance")
    assert not breakers.admits(key)
    breakers.reset(key, "done")
    assert breakers.admits(key)
    kinds = list(AuditEvent.objects.order_by("pk").values_list("kind", "reason"))
    assert kinds == [("breaker.tripped", "maintenance"), ("breaker.reset", "done")]


@pytest.mark.django_db(transaction=True)
def test_of_many_callers_one_wins_the_probe():
    key = Account.objects.create(name="desk", broker="paper").pk
    breakers.trip(key, "test")
    rewind(key, seconds=60)
    start, answers = Barrier(8), []

    def ask() -> None:
        start.wait(10)
        answers.append(breakers.admits(key))
        connection.close()

    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [False] * 7 + [True]
