"""Channels in the admin: the address is written and never read, a test says how it went."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from execution import notify
from risk import notices
from risk.channels import Channel, Event, Notice, Severity
from risk.models import AuditEvent
from tests.factories import AccountFactory, UserFactory

pytestmark = pytest.mark.django_db
TOKEN = "canary-token-73fe"
FORM = {
    "name": "desk",
    "is_active": "on",
    "address": f"json://127.0.0.1:9/{TOKEN}",
    "least_severity": "20",
    "events": ["drift", "order_rejected"],
    "accounts": ["main"],
    "strategies": "trend, mean",
    "per_minute": "10",
    "reason": "a new desk",
}


def added(client: Client, **changes: Any) -> Any:
    AccountFactory.create(name="main")
    return client.post(reverse("admin:risk_channel_add"), FORM | changes)


def test_a_channel_is_added_audited_and_its_address_never_shown(admin_client: Client) -> None:
    assert added(admin_client).status_code == 302
    channel = Channel.objects.get()
    assert channel.reveal() == FORM["address"]
    assert (channel.service, channel.least_severity) == ("json", Severity.WARNING)
    assert (channel.events, channel.accounts) == (["drift", "order_rejected"], ["main"])
    assert channel.strategies == ["trend", "mean"]
    event = AuditEvent.objects.get(kind="channel.created")
    assert event.reason == "a new desk"
    page = admin_client.get(reverse("admin:risk_channel_change", args=[channel.pk]))
    listed = admin_client.get(reverse("admin:risk_channel_changelist"))
    for text in (page.content.decode(), listed.content.decode(), str(event.after)):
        assert TOKEN not in text
    assert "Stored: json://…" in page.content.decode()


def test_an_empty_address_keeps_the_stored_one(admin_client: Client) -> None:
    added(admin_client)
    channel = Channel.objects.get()
    where = reverse("admin:risk_channel_change", args=[channel.pk])
    assert admin_client.post(where, FORM | {"address": "", "per_minute": "3"}).status_code == 302
    channel.refresh_from_db()
    assert (channel.reveal(), channel.per_minute) == (FORM["address"], 3)
    admin_client.post(where, FORM | {"address": "json://127.0.0.1:9/another"})
    channel.refresh_from_db()
    assert channel.reveal() == "json://127.0.0.1:9/another"
    assert AuditEvent.objects.filter(kind="channel.address replaced").count() == 1


@pytest.mark.parametrize("address", ["", "https-hooks", "bogus://x", "tgram://"])
def test_an_address_no_service_is_known_by_is_refused(admin_client: Client, address: str) -> None:
    assert added(admin_client, address=address).status_code == 200
    assert not Channel.objects.exists()


def test_the_test_button_sends_past_every_filter(admin_client: Client) -> None:
    added(admin_client)
    channel = Channel.objects.get()
    where = reverse("admin:risk_channel_test", args=[channel.pk])
    assert "Send a test to desk?" in admin_client.get(where).content.decode()
    assert not Notice.objects.exists()
    answer = admin_client.post(where)
    assert answer["Location"].endswith(f"/risk/notice/?channel__id__exact={channel.pk}")
    notice = Notice.objects.get()
    assert (notice.event, notice.state) == (Event.TEST, Notice.State.WAITING)
    assert notify.due_channels() == [channel.pk]
    notify.deliver(channel.pk)
    page = admin_client.get(answer["Location"]).content.decode()
    assert "given up" in page
    assert TOKEN not in page


def test_who_may_only_look_cannot_send_or_change() -> None:
    channel = Channel.objects.create(name="desk")
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    assert client.post(reverse("admin:risk_channel_test", args=[channel.pk])).status_code == 403
    where = reverse("admin:risk_channel_change", args=[channel.pk])
    assert client.post(where, FORM).status_code == 403
    page = client.get(where)
    assert page.status_code == 200
    assert 'name="address"' not in page.content.decode()
    assert not Notice.objects.exists()


def test_new_keys_seal_channels_anew(settings: Any) -> None:
    channel = Channel.objects.create(name="desk")
    channel.seal("json://127.0.0.1/x")
    channel.save()
    old = channel.sealed
    settings.CREDENTIAL_KEYS = [
        "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
        *settings.CREDENTIAL_KEYS,
    ]
    call_command("rotate_keys")
    channel.refresh_from_db()
    assert channel.sealed.partition(".")[0] != old.partition(".")[0]
    assert channel.reveal() == "json://127.0.0.1/x"


def test_what_a_channel_told_goes_with_it(admin_client: Client) -> None:
    added(admin_client)
    channel = Channel.objects.get()
    notices.write(Event.TEST, notices.News("a test"), [channel])
    where = reverse("admin:risk_channel_delete", args=[channel.pk])
    page = admin_client.get(where).content.decode()
    assert f"what it told: {channel.notices.count()}" in page
    answer = admin_client.post(where, {"post": "yes", "reason": "moved"})
    assert answer.status_code == 302
    assert not Channel.objects.exists()
    assert not Notice.objects.filter(event=Event.TEST).exists()
    assert AuditEvent.objects.get(kind="channel.deleted").reason == "moved"
