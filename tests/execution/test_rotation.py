"""A strategy's secrets are replaced, or end with the profile they are of."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.messages import get_messages
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from execution import rotation
from execution.authentication import new_secret
from execution.models import Strategy, WebhookSecret
from risk.models import AuditEvent
from tests.execution.posting import ALERT, forget, post, signature_of
from tests.factories import StrategyFactory, webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]

DAY = timedelta(hours=24)


def page_of(strategy: Strategy, name: str = "change") -> str:
    return reverse(f"admin:execution_strategy_{name}", args=[strategy.pk])


def change(client: Client, strategy: Strategy, **fields: Any) -> HttpResponse:
    """Save the strategy's page with ``fields`` changed."""
    form = client.get(page_of(strategy)).context["adminform"].form
    shown = {name: form[name].value() for name in form.fields}
    given = {name: value for name, value in shown.items() if value not in (None, False)}
    counts = {
        f"{prefix}-{what}_FORMS": 0
        for prefix in ("routes", "secrets")
        for what in ("TOTAL", "INITIAL")
    }
    given |= {"reason": "safer", "format_options": "{}"}
    answer: HttpResponse = client.post(page_of(strategy), given | counts | fields)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    return answer


def accepts_token(strategy: Strategy, token: str) -> bool:
    forget()
    body = json.dumps({**ALERT, "id": f"t{time.perf_counter_ns()}"}).encode()
    return post(f"{strategy.slug}/{token}", body).status_code == 202


def accepts_signature(strategy: Strategy, key: str) -> bool:
    forget()
    body = json.dumps(
        {**ALERT, "timestamp": int(time.time()), "id": f"s{time.perf_counter_ns()}"}
    ).encode()
    signature = signature_of(body, key)
    return post(strategy.slug, body, HTTP_X_WEBHOOK_SIGNATURE=signature).status_code == 202


@pytest.mark.parametrize("auth", ["hmac", "standard", "jwt"])
def test_another_profile_ends_the_secrets_of_the_former_one(
    admin_client: Client, auth: str
) -> None:
    strategy, token = webhook()

    answer = change(admin_client, strategy, auth=auth)

    told = " ".join(str(message) for message in get_messages(answer.wsgi_request))
    assert "Secrets of its former profile work until" in told
    old = strategy.secrets.get(profile="token")
    assert old.expires_at is not None
    assert timedelta(hours=23) < old.expires_at - timezone.now() <= DAY
    assert accepts_token(strategy, token), "its senders have a day to change over"
    event = AuditEvent.objects.get(kind="secret.ended")
    assert (event.subject, event.reason) == (f"strategy {strategy}", "safer")
    old.expires_at = timezone.now()
    old.save()
    assert not accepts_token(strategy, token)


def messages_of(answer: HttpResponse) -> str:
    return " ".join(str(message) for message in get_messages(answer.wsgi_request))


@pytest.mark.parametrize("auth", ["hmac", "jwt"])
def test_a_profile_changed_by_mistake_and_back_ends_nothing(
    admin_client: Client, auth: str
) -> None:
    strategy, token = webhook()
    _, key = new_secret(strategy, "hmac", "known-for-years")
    change(admin_client, strategy, auth=auth)

    answer = change(admin_client, strategy, auth="token")

    assert "they do not end any more" in messages_of(answer)
    assert "ends at" not in messages_of(answer)
    assert not WebhookSecret.objects.exclude(expires_at=None).exists()
    event = AuditEvent.objects.get(kind="secret.restored")
    assert (event.subject, event.reason) == (f"strategy {strategy}", "safer")
    with time_machine.travel(timezone.now() + DAY + timedelta(hours=1)):
        assert accepts_token(strategy, token)
        assert accepts_signature(strategy, key)


def test_only_the_changes_since_the_profile_was_left_are_taken_back(admin_client: Client) -> None:
    strategy, _ = webhook()
    new_secret(strategy, "hmac")
    for auth in ("hmac", "jwt", "hmac"):
        change(admin_client, strategy, auth=auth)
    lasting = WebhookSecret.objects.filter(expires_at=None).values_list("profile", flat=True)
    assert list(lasting.all()) == ["hmac"]

    change(admin_client, strategy, auth="token")

    assert sorted(lasting.all()) == ["hmac", "token"]
    change(admin_client, strategy, auth="hmac")
    assert list(lasting.all()) == ["hmac"], "the change is as any other"


def test_what_was_replaced_meanwhile_ends_for_all_that(admin_client: Client) -> None:
    strategy, token = webhook()
    change(admin_client, strategy, auth="hmac")
    strategy.refresh_from_db()
    rotation.rotate(strategy, at_once=False, reason="monthly")
    ended = strategy.secrets.get(profile="token").expires_at

    answer = change(admin_client, strategy, auth="token")

    assert strategy.secrets.get(profile="token").expires_at == ended
    assert f"Its last token secret ends at {ended:%Y-%m-%d %H:%M} UTC" in messages_of(answer)
    page = admin_client.get(page_of(strategy)).content.decode()
    assert "Its last token secret ends at" in page
    assert "Nothing is in the way" not in page
    assert accepts_token(strategy, token)


def test_a_change_of_something_else_ends_nothing(admin_client: Client) -> None:
    strategy, _ = webhook()
    new_secret(strategy, "hmac")
    change(admin_client, strategy, note="mine")
    assert not WebhookSecret.objects.exclude(expires_at=None).exists()


def test_the_former_secrets_end_at_once_with_a_new_one(admin_client: Client) -> None:
    strategy, token = webhook()
    change(admin_client, strategy, auth="hmac")

    answer = admin_client.post(page_of(strategy, "rotate"), {"old": "now", "reason": "leaked"})

    assert list(answer.context["secrets"]) == ["hmac"], "nothing new for what has been ended"
    assert not accepts_token(strategy, token)
    assert accepts_signature(strategy, answer.context["secrets"]["hmac"])


def test_under_jwt_the_former_secrets_can_be_ended_at_once(admin_client: Client) -> None:
    strategy, token = webhook()
    change(admin_client, strategy, auth="jwt")
    question = admin_client.post(page_of(strategy, "rotate"), {})
    assert "End them" in question.content.decode()

    admin_client.post(page_of(strategy, "rotate"), {"old": "now", "reason": "leaked"})

    assert not accepts_token(strategy, token)
    assert WebhookSecret.objects.count() == 1, "there is none to make"
    assert AuditEvent.objects.filter(kind="secret.ended", reason="leaked").exists()
    again = admin_client.post(page_of(strategy, "rotate"), {"old": "now", "reason": "x"})
    assert "has no secret" in " ".join(map(str, get_messages(again.wsgi_request)))


@pytest.mark.parametrize("old", ["now", "later"])
def test_every_profile_in_use_gets_a_new_secret(admin_client: Client, old: str) -> None:
    """As the first start makes ``tradingview`` with WEBHOOK_SECRET: by token and by signature."""
    strategy, _ = webhook(slug="tradingview")
    _, key = new_secret(strategy, "hmac", "known-for-years")

    answer = admin_client.post(page_of(strategy, "rotate"), {"old": old, "reason": "monthly"})

    values = answer.context["secrets"]
    assert list(values) == ["token", "hmac"]
    assert len(set(values.values())) == 2
    assert all(value in answer.content.decode() for value in values.values())
    assert accepts_token(strategy, values["token"])
    assert accepts_signature(strategy, values["hmac"])
    assert accepts_signature(strategy, key) is (old == "later")
    rotated = AuditEvent.objects.filter(kind="secret.rotated", reason="monthly")
    assert {event.after["profile"] for event in rotated} == {"token", "hmac"}


def test_what_ends_already_ends_no_later() -> None:
    strategy = StrategyFactory.create()
    row, _ = new_secret(strategy, "token")
    row.expires_at = soon = timezone.now() + timedelta(hours=1)
    row.save()

    rotation.rotate(strategy, at_once=False, reason="x")

    row.refresh_from_db()
    assert row.expires_at == soon
