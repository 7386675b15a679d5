from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from threading import Barrier, Thread
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from brokers.errors import HeldBackError, NotShownError
from brokers.models import Account
from risk import audit, breakers
from risk.models import AuditEvent, BreakerEvent, CircuitBreaker
from tests.threads import wait_for_a_blocked_backend

State = CircuitBreaker.State


@pytest.fixture
def desk(account) -> Account:
    breakers.of_account(account.pk)
    return account


def state(desk: Account) -> str:
    return CircuitBreaker.objects.get(account=desk).state


def rewind(desk: Account, **since: int) -> None:
    """Let the time pass that the breaker measures."""
    earlier = timezone.now() - timedelta(**since)
    rows = CircuitBreaker.objects.filter(account=desk)
    rows.filter(opened_at__isnull=False).update(opened_at=earlier)
    rows.filter(probe_until__isnull=False).update(probe_until=earlier)


def open_it(desk: Account) -> None:
    for _ in range(5):
        breakers.failed(desk, "timeout")


def test_five_failures_in_a_row_open_it(desk):
    for count in range(1, 5):
        breakers.failed(desk, "timeout")
        assert CircuitBreaker.objects.get(account=desk).failures == count
    assert breakers.admits(desk)
    breakers.failed(desk, "connection reset")
    assert state(desk) == State.OPEN
    assert not breakers.admits(desk)
    event = AuditEvent.objects.get()
    assert (event.kind, event.subject) == ("breaker.opened", "breaker desk")
    assert event.reason == "connection reset"


def test_a_success_forgets_the_failures(desk):
    for _ in range(3):
        for _ in range(4):
            breakers.failed(desk, "timeout")
        breakers.succeeded(desk)
    assert CircuitBreaker.objects.get(account=desk).failures == 0
    assert state(desk) == State.CLOSED


def test_one_probe_after_sixty_seconds(desk):
    open_it(desk)
    rewind(desk, seconds=59)
    assert not breakers.admits(desk)
    rewind(desk, seconds=60)
    assert breakers.admits(desk)
    assert state(desk) == State.HALF_OPEN
    assert not breakers.admits(desk)


def test_two_good_probes_close_it(desk):
    open_it(desk)
    rewind(desk, seconds=60)
    assert breakers.admits(desk)
    breakers.succeeded(desk)
    assert state(desk) == State.HALF_OPEN
    assert breakers.admits(desk)
    breakers.succeeded(desk)
    row = CircuitBreaker.objects.get(account=desk)
    assert (row.state, row.failures, row.successes, row.opened_at) == (State.CLOSED, 0, 0, None)
    assert AuditEvent.objects.order_by("pk").last().kind == "breaker.closed"


def test_a_failed_probe_opens_it_again_and_the_count_starts_anew(desk):
    open_it(desk)
    rewind(desk, seconds=60)
    assert breakers.admits(desk)
    breakers.succeeded(desk)
    assert breakers.admits(desk)
    breakers.failed(desk, "still down")
    assert state(desk) == State.OPEN
    assert not breakers.admits(desk)
    rewind(desk, seconds=60)
    assert breakers.admits(desk)
    breakers.succeeded(desk)
    assert state(desk) == State.HALF_OPEN


def test_a_probe_that_never_reported_frees_its_place(desk):
    open_it(desk)
    rewind(desk, seconds=60)
    assert breakers.admits(desk)
    rewind(desk, seconds=1)
    assert breakers.admits(desk)


def test_a_clock_that_is_set_back_keeps_no_breaker_open(desk):
    open_it(desk)
    rewind(desk, seconds=-59)
    assert breakers.due(timezone.now()) == set()
    assert not breakers.admits(desk)
    rewind(desk, hours=-1)
    assert breakers.due(timezone.now()) == {desk.pk}
    assert breakers.admits(desk)
    assert breakers.due(timezone.now()) == set()
    assert not breakers.admits(desk)
    rewind(desk, hours=-1)
    assert breakers.due(timezone.now()) == {desk.pk}
    assert breakers.admits(desk)
    assert not breakers.admits(desk)


def test_an_operator_trips_and_resets_it(desk):
    breakers.trip(breakers.of_account(desk.pk), "maintenance")
    assert not breakers.admits(desk)
    breakers.reset(breakers.of_account(desk.pk), "done")
    assert breakers.admits(desk)
    kinds = list(AuditEvent.objects.order_by("pk").values_list("kind", "reason"))
    assert kinds == [("breaker.tripped", "maintenance"), ("breaker.reset", "done")]


@pytest.mark.django_db(transaction=True)
def test_of_many_callers_one_wins_the_probe():
    desk = Account.objects.create(name="desk", broker="paper")
    breakers.trip(breakers.of_account(desk.pk), "test")
    rewind(desk, seconds=60)
    start, answers = Barrier(8), []

    def ask() -> None:
        start.wait(10)
        answers.append(breakers.admits(desk))
        connection.close()

    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [False] * 7 + [True]


CALLER = """
import django; django.setup()
from brokers.models import Account
from risk import breakers
desk = Account.objects.get()
print("ready", flush=True)
input()
print(breakers.admits(desk), flush=True)
"""


def caller() -> subprocess.Popen[str]:
    """A process of its own on this test's database; asks for the probe once it is given a line."""
    name = str(connection.settings_dict["NAME"])
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CALLER],
        cwd=settings.BASE_DIR,
        env=os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "fks_site.settings"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("half_open", [False, True], ids=["the first probe", "a later one"])
def test_of_two_processes_one_wins_the_probe(half_open: bool) -> None:
    """Both have read that it is free when they are held at its row; then both go on."""
    desk = Account.objects.create(name="desk", broker="paper")
    breakers.of_venue(desk)
    breakers.trip(breakers.of_account(desk.pk), "test")
    rewind(desk, seconds=60)
    if half_open:
        assert breakers.admits(desk)
        breakers.succeeded(desk)
    with ExitStack() as stack:
        callers = [stack.enter_context(caller()) for _ in range(2)]
        assert [line_of(one) for one in callers] == ["ready"] * 2
        with transaction.atomic():
            CircuitBreaker.objects.select_for_update().get(account=desk)
            for one in callers:
                assert one.stdin is not None
                one.stdin.write("\n")
                one.stdin.flush()
            wait_for_a_blocked_backend(2)
        assert sorted(line_of(one) for one in callers) == ["False", "True"]
    assert state(desk) == State.HALF_OPEN


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- the venue's breaker --------------------------------------------------------------------------


@pytest.fixture
def pair(db) -> tuple[Account, Account]:
    """Two accounts at one venue."""
    return tuple(
        Account.objects.create(name=name, broker="ccxt", options={"exchange": "kraken"})
        for name in ("one", "two")
    )


def test_failures_of_all_its_accounts_open_a_venue(pair):
    for count in range(10):
        breakers.failed(pair[count % 2], "timeout")
        if count < 9:
            assert CircuitBreaker.objects.get(venue="kraken").state == State.CLOSED
        CircuitBreaker.objects.filter(venue="").update(failures=0)
    assert CircuitBreaker.objects.get(venue="kraken").state == State.OPEN
    assert [state(one.pk) for one in pair] == [State.CLOSED] * 2
    assert not any(breakers.are_closed(one) for one in pair)
    assert not any(breakers.admits(one) for one in pair)
    event = AuditEvent.objects.get()
    assert (event.kind, event.subject) == ("breaker.opened", "breaker venue:kraken")


def test_a_success_of_any_account_speaks_for_the_venue(pair):
    for _ in range(9):
        breakers.failed(pair[0], "timeout")
    breakers.succeeded(pair[1])
    assert CircuitBreaker.objects.get(venue="kraken").failures == 0
    assert state(pair[0].pk) == State.OPEN


def test_a_sandbox_is_another_venue(pair):
    Account.objects.filter(pk=pair[1].pk).update(environment="sandbox")
    pair[1].refresh_from_db()
    breakers.trip(breakers.of_venue(pair[0]), "maintenance")
    assert not breakers.are_closed(pair[0])
    assert breakers.are_closed(pair[1])
    assert breakers.of_venue(pair[1]).name == "venue:kraken-sandbox"


def test_terminals_behind_different_agents_are_different_venues(db) -> None:
    urls = ("http://127.0.0.1:8811", "https://MT5.example:8811/", "http://127.0.0.1:8811")
    accounts = [
        Account.objects.create(
            name=f"terminal{number}",
            broker="bridge",
            environment="live",
            options={"url": url, "account": str(number)},
        )
        for number, url in enumerate(urls)
    ]
    assert [breakers.of_venue(one).name for one in accounts] == [
        "venue:127.0.0.1:8811",
        "venue:mt5.example:8811",
        "venue:127.0.0.1:8811",
    ]
    assert {one.venue for one in accounts} == {"bridge"}
    breakers.trip(breakers.of_venue(accounts[0]), "its computer is off")
    assert [breakers.are_closed(one) for one in accounts] == [False, True, False]
    accounts[1].options = {"url": f"http://{'a' * 70}:8811"}
    assert breakers.of_venue(accounts[1]).venue == f"{'a' * 55}:8811"


def test_an_account_whose_own_breaker_is_open_has_no_say_about_its_venue(pair):
    dead, alive = pair
    for _ in range(30):
        breakers.failed(dead, "the key is refused")
    venue = CircuitBreaker.objects.get(venue="kraken")
    assert (venue.state, venue.failures) == (State.CLOSED, 5)
    assert breakers.are_closed(alive)
    assert not breakers.are_closed(dead)


def test_it_does_not_open_again_what_another_probes(pair):
    dead, alive = pair
    breakers.trip(breakers.of_account(dead.pk), "test")
    breakers.trip(breakers.of_venue(dead), "test")
    CircuitBreaker.objects.update(opened_at=timezone.now() - timedelta(seconds=60))
    assert breakers.admits(dead)
    breakers.failed(dead, "the key is refused")
    venue = CircuitBreaker.objects.get(venue="kraken")
    assert (venue.state, venue.probe_until) == (State.HALF_OPEN, None)
    for _ in range(2):
        assert breakers.admits(alive)
        breakers.succeeded(alive)
    assert breakers.are_closed(alive)
    assert not breakers.are_closed(dead)


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_an_outage_opens_a_venue_however_early_its_accounts_gave_up(db, names):
    accounts = [
        Account.objects.create(name=name, broker="ccxt", options={"exchange": "kraken"})
        for name in names
    ]
    for one in accounts:
        CircuitBreaker.objects.create(account=one, failure_threshold=2)
    for number in range(9):
        breakers.failed(accounts[number % len(accounts)], "timeout")
    assert CircuitBreaker.objects.get(venue="kraken").state == State.CLOSED
    breakers.failed(accounts[0], "timeout")
    assert CircuitBreaker.objects.get(venue="kraken").state == State.OPEN


def test_accounts_that_are_switched_off_do_not_vouch_for_a_venue(pair):
    Account.objects.filter(pk=pair[1].pk).update(is_active=False)
    for _ in range(10):
        breakers.failed(pair[0], "timeout")
    assert CircuitBreaker.objects.get(venue="kraken").state == State.OPEN


def test_a_question_that_says_nothing_lets_the_next_one_ask(pair):
    breakers.trip(breakers.of_venue(pair[0]), "test")
    CircuitBreaker.objects.update(opened_at=timezone.now() - timedelta(seconds=60))
    assert breakers.admits(pair[0])
    assert not breakers.admits(pair[1])
    breakers.told_nothing(pair[0])
    assert breakers.admits(pair[1])
    breakers.unanswered(pair[1], HeldBackError("the limiter"))
    assert breakers.admits(pair[0])
    assert CircuitBreaker.objects.get(venue="kraken").state == State.HALF_OPEN


def test_an_answer_that_does_not_tell_is_an_answer(desk):
    breakers.failed(desk, "timeout")
    for _ in range(5):
        breakers.unanswered(desk, NotShownError("the order is not shown"))
    assert [one.failures for one in CircuitBreaker.objects.all()] == [0, 0]


def test_a_probe_needs_both_and_gives_back_what_it_won(pair):
    account = breakers.of_account(pair[0].pk)
    venue = breakers.of_venue(pair[0])
    breakers.trip(account, "test")
    breakers.trip(venue, "test")
    rewind(pair[0].pk, seconds=60)
    assert not breakers.admits(pair[0])
    account.refresh_from_db()
    assert (account.state, account.probe_until) == (State.HALF_OPEN, None)
    CircuitBreaker.objects.update(opened_at=timezone.now() - timedelta(seconds=60))
    assert breakers.admits(pair[0])
    assert not breakers.admits(pair[0])
    breakers.succeeded(pair[0])
    assert breakers.admits(pair[0])
    breakers.succeeded(pair[0])
    assert breakers.are_closed(pair[0])
    assert breakers.are_closed(pair[1])


def test_no_order_is_sent_before_the_breaker_is_closed(desk):
    open_it(desk)
    rewind(desk, seconds=60)
    assert breakers.admits(desk)
    assert not breakers.are_closed(desk)
    breakers.succeeded(desk)
    assert not breakers.are_closed(desk)


def test_its_thresholds_are_the_operators(desk):
    CircuitBreaker.objects.filter(account=desk).update(
        failure_threshold=2, success_threshold=1, open_seconds=10
    )
    for _ in range(2):
        breakers.failed(desk, "timeout")
    rewind(desk, seconds=9)
    assert not breakers.admits(desk)
    rewind(desk, seconds=10)
    assert breakers.admits(desk)
    breakers.succeeded(desk)
    assert state(desk) == State.CLOSED


def test_what_is_due_for_a_question(pair):
    now = timezone.now()
    assert breakers.due(now) == set()
    breakers.trip(breakers.of_venue(pair[0]), "test")
    assert breakers.due(now) == set()
    soon = now + timedelta(seconds=61)
    assert breakers.due(soon) == {one.pk for one in pair}
    breakers.trip(breakers.of_account(pair[0].pk), "test")
    Account.objects.filter(pk=pair[1].pk).update(is_active=False)
    assert breakers.due(soon) == {pair[0].pk}
    Account.objects.update(is_active=False)
    assert breakers.due(soon) == set()


def test_its_history_tells_every_change(desk):
    open_it(desk)
    rewind(desk, seconds=60)
    for _ in range(2):
        assert breakers.admits(desk)
        breakers.succeeded(desk)
    with audit.acting(audit.Actor("maria")):
        breakers.trip(breakers.of_account(desk.pk), "maintenance")
    history = BreakerEvent.objects.order_by("id").values_list("to_state", "actor", "reason")
    assert list(history) == [
        ("open", "system", "timeout"),
        ("half_open", "system", "the first probe"),
        ("closed", "system", "probes succeeded"),
        ("open", "maria", "maintenance"),
    ]
