"""What somebody sees who tried too many passwords: our own page, and JSON at the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from risk import ratelimit
from risk.models import RateLimit
from tests.factories import PASSWORD, UserFactory

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    ratelimit.forget()
    with time_machine.travel("2026-11-21T12:00:00Z", tick=False):
        yield
    ratelimit.forget()


def wrong(client: Client, times: int, name: str = "olivia") -> Any:
    answer = None
    for _ in range(times):
        answer = client.post(LOGIN, {"username": name, "password": "wrong"})
    return answer


@pytest.mark.parametrize("name", ["olivia", "nobody"])
def test_a_locked_name_sees_our_page_whether_it_exists_or_not(name: str) -> None:
    UserFactory.create(username="olivia")
    client = Client()
    assert wrong(client, 4, name).status_code == 200
    answer = wrong(client, 1, name)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "900")
    page = answer.content.decode()
    assert "<title>" in page
    assert "unfold" in page  # our dress
    assert "too many failed logins for this name from this address" in page
    assert "Try again in 15 minutes at most." in page
    assert f'href="{reverse("admin:login")}"' in page
    assert name not in page
    assert "default-src" in answer.headers["Content-Security-Policy"]
    answer = client.post(LOGIN, {"username": "olivia", "password": PASSWORD})
    assert answer.status_code == (429 if name == "olivia" else 302)


def test_a_locked_address_sees_it_too(client: Client) -> None:
    RateLimit.objects.update_or_create(pk=1, defaults={"login_failures": 3})
    answers = [wrong(client, 1, f"name{number}") for number in range(40)]
    locked = [one for one in answers if one.status_code == 429]
    assert locked
    page = locked[-1].content.decode()
    assert "too many failed logins from this address" in page
    assert int(locked[-1].headers["Retry-After"]) > 0
    assert "default-src" in locked[-1].headers["Content-Security-Policy"]


def test_programs_get_json(client: Client) -> None:
    for number in range(40):
        body = {"username": f"name{number}", "password": "wrong"}
        answer = client.post("/api/token", body, content_type="application/json")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert answer.json() == {
        "code": "RATE_LIMITED",
        "detail": "too many failed logins from this address",
    }
