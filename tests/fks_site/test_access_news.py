"""Who may come in, and who came: told to the channels and to the person it concerns."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from django.urls import reverse

from risk import audit, ratelimit
from risk.access_news import event_of
from risk.channels import Channel, Event, Notice, Severity
from risk.models import AuditEvent
from tests.factories import PASSWORD
from tests.fks_site.test_twofactor import clock, code_of, enrol, olivia

__all__ = ["clock", "olivia"]

pytestmark = pytest.mark.django_db
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def channel(name: str = "desk", **columns: Any) -> Channel:
    columns.setdefault("least_severity", Severity.WARNING)
    return Channel.objects.create(name=name, **columns)


def log_in(name: str = "olivia", password: str = PASSWORD, address: str = HOME) -> Client:
    browser = Client(REMOTE_ADDR=address)
    browser.post(reverse("admin:login"), {"username": name, "password": password})
    return browser


def told(to: Channel) -> list[tuple[str, str]]:
    rows = Notice.objects.filter(channel=to).order_by("id")
    return [(one.event, one.title) for one in rows]


def test_a_log_in_is_told_once_for_each_address(olivia: User) -> None:
    desk = channel()
    for address in (HOME, HOME, ELSEWHERE, "2001:db8::1", "2001:db8::2", HOME):
        log_in(address=address)
    title = "Log-in from a new address: user olivia"
    assert told(desk) == [("login_from_new_address", title)] * 3
    texts = Notice.objects.order_by("id").values_list("text", flat=True)
    assert list(texts) == [
        "by olivia from 192.0.2.1",
        "by olivia from 198.51.100.7",
        "by olivia from 2001:db8::1",
    ]


def test_a_token_of_the_api_is_a_log_in(olivia: User) -> None:
    desk = channel()
    log_in()
    given = {"username": "olivia", "password": PASSWORD}
    for address in (HOME, ELSEWHERE):
        Client(REMOTE_ADDR=address).post("/api/token", given, content_type="application/json")
    assert len(told(desk)) == 2
    made = AuditEvent.objects.filter(kind="login.token_made").values_list("actor", "address")
    assert sorted(made) == [("olivia", HOME), ("olivia", ELSEWHERE)]


def test_a_lock_out_is_told_once_and_names_the_address(olivia: User) -> None:
    desk = channel()
    ratelimit.forget()
    for _ in range(9):
        log_in(password="wrong", address=ELSEWHERE)
    assert told(desk) == [("locked_out", "Too many failed log-ins: user olivia")]
    assert Notice.objects.get().text == f"by anonymous from {ELSEWHERE}"


def test_a_reset_second_factor_is_an_alarm_with_who_and_why(olivia: User, clock: Any) -> None:
    desk = channel(least_severity=Severity.ALARM)
    enrol(olivia, clock)
    call_command("reset_second_factor", "olivia", reason="lost the telephone")
    [(event, title)] = told(desk)
    assert (event, title) == ("second_factor_gone", "Second factor reset: user olivia")
    assert Notice.objects.get().text == "by command: lost the telephone"


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("second_factor.set_up", Event.ACCESS_CHANGED),
        ("second_factor.recovered", Event.SECOND_FACTOR_GONE),
        ("user.rights_changed", Event.ACCESS_CHANGED),
        ("user.password_changed", Event.ACCESS_CHANGED),
        ("group.changed", Event.ACCESS_CHANGED),
        ("credential.changed", Event.ACCESS_CHANGED),
        ("secret.rotated", Event.ACCESS_CHANGED),
        ("safeguards.changed", Event.ACCESS_CHANGED),
        ("network.deleted", Event.ACCESS_CHANGED),
        ("channel.deleted", Event.ACCESS_CHANGED),
        ("login.succeeded", None),
        ("login.failed", None),
        ("limit.changed", None),
        ("order.cancel_asked", None),
    ],
)
def test_what_is_told_as_what(kind: str, event: Event | None) -> None:
    assert event_of(audit.record(kind, "something")) == event


@pytest.mark.parametrize(("door", "is_told"), [("login", True), ("webhook", False)])
def test_of_locked_addresses_those_at_the_log_in_are_told(door: str, is_told: bool) -> None:
    event = audit.record("address.locked", f"{ELSEWHERE} ({door})")
    assert event_of(event) == (Event.LOCKED_OUT if is_told else None)


def test_a_persons_own_channel_hears_of_them_whatever_it_was_told_to_leave_out(
    olivia: User,
) -> None:
    quiet = {"least_severity": Severity.ALARM, "events": [Event.DRIFT]}
    own, other = channel("own", person=olivia, **quiet), channel("other", **quiet)
    audit.record("user.password_changed", "user olivia")
    audit.record("user.password_changed", "user someone")
    audit.record("credential.changed", "credential of account main")
    assert told(own) == [("access_changed", "User password changed: user olivia")]
    assert told(other) == []


def test_what_is_rolled_back_is_not_told(olivia: User) -> None:
    desk = channel()
    with transaction.atomic():
        audit.record("user.password_changed", "user olivia")
        assert len(told(desk)) == 1
        transaction.set_rollback(True)
    assert told(desk) == []


def messages_of(browser: Client) -> list[str]:
    context = browser.get(reverse("admin:index")).context
    return [str(one) for one in context["messages"]]


def test_at_the_next_log_in_a_person_learns_what_happened_since(olivia: User) -> None:
    assert messages_of(log_in()) == []
    assert messages_of(log_in()) == [], "nothing happened since"
    log_in(password="wrong")
    with audit.acting(audit.Actor("mallory", ELSEWHERE)):
        audit.record("user.rights_changed", "user olivia")
        audit.record("user.rights_changed", "user someone")
    with audit.acting(audit.Actor("olivia", HOME)):
        audit.record("user.password_changed", "user olivia")
    [said] = messages_of(browser := log_in())
    assert f"from {HOME}. Failed log-ins with your name since: 1. User rights changed on " in said
    assert said.endswith("UTC by mallory.")
    assert said.count("mallory") == 1
    assert "password" not in said
    assert messages_of(browser) == []


def test_whoever_has_a_second_factor_is_told_only_after_proving_it(
    olivia: User, clock: Any
) -> None:
    log_in()
    enrol(olivia, clock)
    browser = log_in(address=ELSEWHERE)
    page = browser.get(reverse("admin:second_factor"))
    assert list(page.context["messages"]) == []
    browser.post(reverse("admin:second_factor"), {"code": code_of(olivia)})
    [said] = messages_of(browser)
    assert said.startswith(f"You were here last on 2026-11-21 12:00 UTC from {HOME}. ")
