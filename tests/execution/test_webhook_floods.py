"""Failures in masses: who is answered 429, and who never is."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from execution.models import Strategy
from risk import ratelimit
from risk.models import ClientAddress, RateLimit
from tests.execution.posting import body_of, post, signature_of, stored
from tests.factories import PASSWORD, UserFactory, webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]

SHARED = "52.89.214.238"
CONSTANT = b'{"code":"RATE_LIMITED","detail":"too many failed attempts from this address"}'


def test_a_flood_of_failures_is_answered_429_and_then_locked() -> None:
    strategy, _ = webhook()

    with time_machine.travel(timezone.now(), tick=False):
        answers = [
            post(name, body_of(secret=f"guess {n}"), REMOTE_ADDR=SHARED)
            for n in range(160)
            for name in (strategy.slug, "nobody")
        ]

    counts = Counter(answer.status_code for answer in answers)
    assert counts == {401: 110, 429: 210}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.content for answer in refused} == {CONSTANT}
    assert all(int(answer["Retry-After"]) >= 1 for answer in refused)
    assert int(refused[-1]["Retry-After"]) > 30
    assert stored() == (0, 0, 0)


@pytest.mark.parametrize("auth", [Strategy.Auth.TOKEN, Strategy.Auth.HMAC])
def test_a_right_credential_from_a_locked_address_is_taken(auth: str) -> None:
    """TradingView's four addresses are everybody's: nobody may lock out its other users."""
    strategy, secret = webhook(auth=auth)
    RateLimit.objects.create(pk=1, requests=1, burst=0, lockout_after=3)
    for _ in range(5):
        last = post("nobody", body_of(), REMOTE_ADDR=SHARED)
    assert last.status_code == 429
    assert ClientAddress.objects.get().locked_until is not None

    body = body_of(secret=secret) if auth == "token" else body_of(timestamp=int(time.time()))
    proof = {} if auth == "token" else {"HTTP_X_WEBHOOK_SIGNATURE": signature_of(body, secret)}

    assert post(strategy.slug, body, REMOTE_ADDR=SHARED, **proof).status_code == 202


def test_many_different_alerts_from_one_sender_are_all_taken() -> None:
    strategy, token = webhook()

    answers = Counter(
        post(strategy.slug, body_of(secret=token, id=str(n)), REMOTE_ADDR=SHARED).status_code
        for n in range(400)
    )

    assert answers == {202: 400}
    assert not ClientAddress.objects.exists()


def test_a_forged_header_makes_no_new_address(settings: Any) -> None:
    settings.TRUSTED_PROXIES = ("10.0.0.0/8",)
    RateLimit.objects.create(pk=1, requests=1, burst=0)

    answers = [
        post(
            "nobody",
            body_of(),
            REMOTE_ADDR="10.0.0.1",
            HTTP_X_FORWARDED_FOR=f"198.51.100.{n}, 203.0.113.9",
        ).status_code
        for n in range(5)
    ]

    assert answers == [401, 429, 429, 429, 429]
    assert ClientAddress.objects.get().network == "203.0.113.9"


def test_an_address_that_is_not_allowed_and_a_bad_body_cost_no_token() -> None:
    strategy, token = webhook()

    post(f"{strategy.slug}/{token}", b"{")
    post(strategy.slug, b"x" * 70_000)

    assert not ClientAddress.objects.exists()


class TestLogins:
    def token(self, client: Client, username: str, password: str) -> Any:
        body = {"username": username, "password": password}
        return client.post("/api/token", body, content_type="application/json")

    def test_guessing_many_names_locks_the_address(self, client: Client) -> None:
        user = UserFactory.create()
        RateLimit.objects.create(pk=1, login_failures=4)

        statuses = [self.token(client, f"name{n}", "guess").status_code for n in range(6)]

        assert statuses == [401, 401, 401, 401, 429, 429]
        refused = self.token(client, user.username, PASSWORD)
        assert refused.status_code == 429
        assert refused.json()["code"] == "RATE_LIMITED"
        assert int(refused["Retry-After"]) > 0

    def test_the_admins_form_counts_too(self, client: Client) -> None:
        RateLimit.objects.create(pk=1, login_failures=3)
        form = {"username": "admin", "password": "guess"}

        statuses = [client.post("/admin/login/", form).status_code for _ in range(5)]

        assert statuses == [200, 200, 200, 429, 429]
        assert client.get("/admin/login/").status_code == 200

    def test_a_success_costs_nothing_and_a_release_helps(self, client: Client) -> None:
        user = UserFactory.create()
        RateLimit.objects.create(pk=1, login_failures=2)
        for _ in range(5):
            assert self.token(client, user.username, PASSWORD).status_code == 200
        assert not ClientAddress.objects.exists()
        for n in range(2):
            self.token(client, f"name{n}", "guess")
        assert self.token(client, user.username, PASSWORD).status_code == 429

        ratelimit.release(ClientAddress.objects.get(), "it was us")

        assert self.token(client, user.username, PASSWORD).status_code == 200
