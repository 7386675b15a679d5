"""The payload lab, dry runs of what is stored, quarantine, and messages to paste."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from rest_framework_simplejwt.tokens import AccessToken

from execution import standard_webhooks, webhook_config
from execution.models import Order, QuarantinedBody, Signal, Strategy
from risk.models import AuditEvent
from tests.execution.posting import body_of, post, signature_of, tables_with
from tests.factories import RouteFactory, SignalFactory, UserFactory, allow_trading, webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process")]
HOSTILE = "<script>alert('x')</script>"
MAPPING = {
    "fields": {
        "symbol": {"path": "pair"},
        "action": {"path": "side", "words": {"up": "buy"}},
        "quantity": {"constant": "0.01"},
    }
}


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(UserFactory.create(is_superuser=True))
    return client


@pytest.fixture
def stranger() -> Client:
    """Staff, allowed to look at strategies and at nothing that happened."""
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename="view_strategy"))
    client = Client()
    client.force_login(user)
    return client


def tried(client: Client, strategy: Strategy, body: str, **fields: Any) -> HttpResponse:
    data = {"strategy": strategy.pk, "body": body} | fields
    response: HttpResponse = client.post(reverse("admin:execution_lab"), data)
    assert response.status_code == 200
    return response


def text_of(response: HttpResponse) -> str:
    return " ".join(response.content.decode().split())


def test_an_alert_is_told_from_credential_to_order(admin: Client) -> None:
    strategy, secret = webhook()
    response = tried(admin, strategy, body_of(secret=secret, comment=HOSTILE, plot="7").decode())

    page = text_of(response)
    assert "would be sent" in page
    assert "is one of the strategy&#x27;s live secrets" in page
    assert "quantity asked for" in page
    assert "max_order_value" in page
    assert "not read" in page
    assert secret not in page
    assert HOSTILE not in page
    assert "no-store" in response["Cache-Control"]
    assert (Signal.objects.count(), Order.objects.count()) == (0, 0)
    assert tables_with(secret) == []


class TestHeaders:
    """What senders prove themselves by beside the body."""

    BODY = f"{body_of(timestamp=int(time.time())).decode()}\n"

    def told(self, admin: Client, strategy: Strategy, *headers: str) -> str:
        sent = self.BODY.replace("\n", "\r\n")
        response = tried(admin, strategy, sent, headers="\r\n".join(headers))
        for header in headers:
            assert header.partition(": ")[2].encode() not in response.content
        return text_of(response)

    def test_a_signature(self, admin: Client) -> None:
        strategy, secret = webhook(auth=Strategy.Auth.HMAC)
        right = signature_of(self.BODY.encode(), secret)

        assert "signature is by one" in self.told(admin, strategy, f"X-Webhook-Signature: {right}")
        assert "no signature is by one" in self.told(admin, strategy, "x-webhook-signature: 00ab")
        assert "not judged" in self.told(admin, strategy)

    def test_standard_webhooks(self, admin: Client) -> None:
        strategy, secret = webhook(auth=Strategy.Auth.STANDARD)
        key, now = standard_webhooks.key_of(secret), str(int(time.time()))
        signed = standard_webhooks.signature(key, "msg_1", now, self.BODY.encode())

        page = self.told(
            admin,
            strategy,
            *("webhook-id: msg_1", f"webhook-timestamp: {now}", f"webhook-signature: {signed}"),
        )

        assert "signature is by one" in page

    def test_a_bearer_token(self, admin: Client) -> None:
        strategy = RouteFactory.create(strategy__auth=Strategy.Auth.JWT).strategy
        user = UserFactory.create()
        header = f"Authorization: Bearer {AccessToken.for_user(user)}"

        assert "is not of a user who may post" in self.told(admin, strategy, header)
        strategy.senders.add(user)
        webhook_config.forget()
        assert "is of a user who may post" in self.told(admin, strategy, header)


def test_a_mapping_is_tried_before_it_is_saved(admin: Client) -> None:
    strategy, secret = webhook()
    body = json.dumps({"secret": secret, "pair": "BTC/USDT", "side": "up"})
    fields = {"format": "mapping", "format_options": json.dumps(MAPPING)}

    assert "would be sent" in text_of(tried(admin, strategy, body, **fields))
    strategy.refresh_from_db()
    assert (strategy.format, strategy.format_options) == ("fks", {})


def test_a_mapping_that_makes_no_sense_is_explained(admin: Client) -> None:
    strategy, _ = webhook()
    fields = {"format": "mapping", "format_options": '{"fields": {"symbol": {"path": "x"}}}'}
    assert "action must be mapped" in text_of(tried(admin, strategy, "{}", **fields))


def test_an_alert_that_cannot_be_read_is_told_with_its_place(admin: Client) -> None:
    strategy, _ = webhook(format="octobot")
    page = text_of(tried(admin, strategy, "SYMBOL=BTCUSDT\nSIGNAL BUY"))
    assert "It would not be accepted" in page
    assert "NOT_A_PAIR" in page
    assert "line 2, column 1" in page


def test_a_stored_signal_is_opened_in_the_lab(admin: Client) -> None:
    signal = SignalFactory.create(body='{"symbol": "ETHUSDT"}')
    page = text_of(admin.get(reverse("admin:execution_lab"), {"signal": str(signal.pk)}))
    assert "{&quot;symbol&quot;: &quot;ETHUSDT&quot;}" in page


@pytest.mark.parametrize("query", [{"signal": "x"}, {"quantified": "1"}, {"quarantined": "9" * 30}])
def test_an_address_that_names_nothing_opens_an_empty_lab(
    admin: Client, query: dict[str, str]
) -> None:
    assert admin.get(reverse("admin:execution_lab"), query).status_code == 200


def test_a_signal_is_run_dry_from_its_page(admin: Client) -> None:
    route = RouteFactory.create()
    allow_trading()
    body = '{"symbol": "BTCUSDT", "action": "buy", "quantity": "0.02"}'
    signal = SignalFactory.create(
        strategy=route.strategy, body=body, state="denied", reason="STALE"
    )
    address = reverse("admin:execution_signal_replay", args=[signal.pk])
    assert (
        address
        in admin.get(reverse("admin:execution_signal_change", args=[signal.pk])).content.decode()
    )

    page = text_of(admin.get(address))

    assert "<strong>denied</strong> <code>STALE</code>" in page
    assert "buy 0.02 BTC/USDT" in page
    assert not Order.objects.exists()


def test_a_quarantined_body_is_tried_again_and_accepted(admin: Client, nudged: list[str]) -> None:
    strategy, secret = webhook()
    post(strategy.slug, json.dumps({"secret": secret, "pair": "BTCUSDT", "side": "up"}).encode())
    row = QuarantinedBody.objects.get()
    again = reverse("admin:execution_quarantinedbody_try_again", args=[row.pk])
    accept = reverse("admin:execution_quarantinedbody_accept", args=[row.pk])
    page = text_of(admin.get(again))
    assert "It would not be accepted" in page
    assert "authenticated" not in page
    refused = admin.post(accept, {"reason": "too early"}, follow=True)
    assert "It still cannot be read" in refused.content.decode()
    strategy.format, strategy.format_options = "mapping", MAPPING
    strategy.save()

    assert "would be sent" in text_of(admin.get(again))
    admin.post(accept, {"reason": "the mapping is mended"})

    signal = Signal.objects.get()
    assert (signal.auth, signal.action) == ("quarantine", "buy")
    assert AuditEvent.objects.filter(kind="quarantine.accepted").count() == 1


def test_a_mapping_is_checked_when_it_is_saved(admin: Client) -> None:
    strategy, _ = webhook()
    address = reverse("admin:execution_strategy_change", args=[strategy.pk])
    form = admin.get(address).context["adminform"].form
    data = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    data |= {"format": "mapping", "format_options": '{"fields": {"symbol": {"path": "a..b"}}}'}
    for name in ("routes", "secrets"):
        data |= {f"{name}-TOTAL_FORMS": "0", f"{name}-INITIAL_FORMS": "0"}
    data["reason"] = "a mapping"

    page = text_of(admin.post(address, data))

    assert "action must be mapped" in page
    assert "symbol: &#x27;a..b&#x27; is no path such as order.side" in page
    strategy.refresh_from_db()
    assert strategy.format == "fks"


@pytest.mark.parametrize("format", Strategy.Format.values)
def test_messages_to_paste(admin: Client, format: str) -> None:
    options = MAPPING if format == "mapping" else {}
    strategy, secret = webhook(format=format, format_options=options)
    response = admin.get(reverse("admin:execution_strategy_messages", args=[strategy.pk]))
    page = text_of(response)
    assert f"/webhook/{strategy.slug}" in page
    assert "data-copy" in page
    assert "curl -X POST" in page
    assert secret not in page


def test_who_may_not_look_gets_nothing(stranger: Client) -> None:
    signal = SignalFactory.create()
    address = reverse("admin:execution_signal_replay", args=[signal.pk])
    assert stranger.get(reverse("admin:execution_lab")).status_code == 403
    assert stranger.get(address).status_code == 403
    assert "Payload lab" not in stranger.get(reverse("admin:index")).content.decode()
    assert Client().get(reverse("admin:execution_lab")).status_code == 302
