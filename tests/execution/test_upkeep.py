"""Keeping the house: keys rotated without a gap, old texts forgotten, evidence kept."""

from __future__ import annotations

import base64
import json
import os
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from brokers import crypto
from brokers.accounts import set_credentials
from brokers.models import Account, AccountLogin, ExchangeCredential
from execution.authentication import live, new_secret
from execution.ids import first_id_at
from execution.models import IdempotencyKey, Order, QuarantinedBody, Signal
from execution.states import OrderState, SignalState
from risk import proposals
from risk.models import AuditEvent, Proposal, Safeguards
from tests.factories import AccountFactory, OrderFactory, SignalFactory, StrategyFactory

pytestmark = pytest.mark.django_db

KEYS = {"api_key": "canary-key-0123456789", "api_secret": "canary-secret"}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    call_command(*arguments)
    return json.loads(capsys.readouterr().out)


# --- rotate_keys ----------------------------------------------------------------------------------


@pytest.fixture
def old_and_new(settings: Settings) -> tuple[str, str]:
    """Two keys; everything is encrypted with the old one, and the new one is first from now on."""
    old, new = (base64.urlsafe_b64encode(os.urandom(32)).decode() for _ in range(2))
    settings.CREDENTIAL_KEYS = [old]
    return old, new


def test_keys_are_rotated_and_the_old_one_can_go(
    old_and_new: tuple[str, str], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = old_and_new
    account = AccountFactory.create(name="desk")
    set_credentials(account, KEYS)
    secret, value = new_secret(StrategyFactory.create(), "hmac")
    new_secret(StrategyFactory.create(), "token")
    Safeguards.objects.create(two_person=True)
    payload = {"account": "desk", "values": {}}
    waiting = proposals.submit("account", payload, reason="new key", secrets=KEYS)
    assert waiting is not None
    login = AccountLogin(account=account, access_until=timezone.now(), ends_at=timezone.now())
    login.seal("canary-access", "canary-refresh")
    login.save()

    settings.CREDENTIAL_KEYS = [new, old]
    said = run(capsys, "rotate_keys")
    current = crypto.current_key_id()
    assert said == {"current": current, "changed": 4, "rows_by_key": {current: 4}}
    assert run(capsys, "rotate_keys")["changed"] == 0

    settings.CREDENTIAL_KEYS = [new]
    assert ExchangeCredential.objects.get().reveal() == KEYS
    secret.refresh_from_db()
    assert live(secret).key == value.encode()
    sealed = Proposal.objects.get().sealed
    assert crypto.decrypt(sealed, bound_to=proposals.binding(waiting)) == KEYS
    assert AccountLogin.objects.get().reveal()["refresh"] == "canary-refresh"
    assert AuditEvent.objects.get(kind="keys.rotated").after == {"key": current, "rows": 4}
    assert "canary" not in str(list(AuditEvent.objects.values()))


def test_a_rotation_goes_on_where_it_stopped_and_names_what_cannot_be_read(
    old_and_new: tuple[str, str], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = old_and_new
    lost = AccountFactory.create()
    set_credentials(lost, KEYS)
    settings.CREDENTIAL_KEYS = [new]
    set_credentials(AccountFactory.create(), KEYS)
    with pytest.raises(CommandError, match=r"credentials .*: no configured key has the id"):
        call_command("rotate_keys")
    counts = json.loads(capsys.readouterr().out)["rows_by_key"]
    assert sorted(counts.values()) == [1, 1]
    settings.CREDENTIAL_KEYS = [new, old]
    assert run(capsys, "rotate_keys")["changed"] == 1
    assert Account.objects.get(pk=lost.pk).config().credentials == KEYS


# --- prune ----------------------------------------------------------------------------------------


def long_ago(state: SignalState = SignalState.EXECUTED, days: int = 100) -> Signal:
    received_at = timezone.now() - timedelta(days=days)
    identity = UUID(int=first_id_at(received_at).int | secrets.randbits(62))
    signal: Signal = SignalFactory.create(
        id=identity, state=state, body='{"symbol": "x"}', received_at=received_at
    )
    return signal


def test_without_apply_it_only_counts(capsys: pytest.CaptureFixture[str]) -> None:
    signal = long_ago()
    said = run(capsys, "prune")
    assert said == {
        "applied": False,
        "alert texts": 1,
        "quarantined bodies": 0,
        "idempotency keys": 0,
        "notifications": 0,
        "sessions": 0,
    }
    signal.refresh_from_db()
    assert signal.body
    assert not AuditEvent.objects.exists()


def test_old_texts_go_and_evidence_stays(capsys: pytest.CaptureFixture[str]) -> None:
    now = timezone.now()
    ended = long_ago()
    order = OrderFactory.create(signal=ended, state=OrderState.FILLED)
    kept = [long_ago(days=89), long_ago(SignalState.RECEIVED), long_ago(SignalState.WORKING)]
    still_open = long_ago()
    OrderFactory.create(signal=still_open, state=OrderState.UNKNOWN)
    kept.append(still_open)
    quarantined = {"strategy": ended.strategy, "code": "UNREADABLE", "detail": "x", "body": "y"}
    QuarantinedBody.objects.create(received_at=now - timedelta(days=91), **quarantined)
    young = QuarantinedBody.objects.create(received_at=now, **quarantined)
    for number, ends in enumerate((now - timedelta(days=1), now + timedelta(days=1), None)):
        IdempotencyKey.objects.create(
            strategy=ended.strategy, key=str(number), signal=ended, expires_at=ends
        )
    Session.objects.create(session_key="a", session_data="", expire_date=now - timedelta(1))
    Session.objects.create(session_key="b", session_data="", expire_date=now + timedelta(1))

    said = run(capsys, "prune", "--apply")
    counts = (said["alert texts"], said["quarantined bodies"], said["idempotency keys"])
    assert (counts, said["sessions"]) == ((1, 1, 1), 1)
    ended.refresh_from_db()
    assert (ended.body, ended.alert["symbol"]) == ("", "BTC/USDT")
    assert all(Signal.objects.get(pk=signal.pk).body for signal in kept)
    assert Order.objects.filter(pk=order.pk).exists()
    assert list(QuarantinedBody.objects.all()) == [young]
    assert set(IdempotencyKey.objects.values_list("key", flat=True)) == {"1", "2"}
    assert list(Session.objects.values_list("session_key", flat=True)) == ["b"]
    assert AuditEvent.objects.get().kind == "pruned"
    assert run(capsys, "prune", "--apply")["alert texts"] == 0


def test_rows_are_walked_through_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.management.commands.prune.BATCH", 2)
    old = [long_ago() for _ in range(5)]
    kept = long_ago(days=1)

    with CaptureQueriesContext(connection) as asked:
        assert run(capsys, "prune", "--apply")["alert texts"] == 5

    looks = [
        q["sql"] for q in asked if q["sql"].startswith("SELECT") and "execution_signal" in q["sql"]
    ]
    assert len(looks) == 4  # three batches, and the look that finds no more
    assert all('"id" > ' in sql for sql in looks[1:])
    assert {Signal.objects.get(pk=signal.pk).body for signal in old} == {""}
    assert Signal.objects.get(pk=kept.pk).body


def test_a_week_is_kept_whatever_is_asked() -> None:
    with pytest.raises(CommandError, match="at least 7"):
        call_command("prune", "--days", "6")
