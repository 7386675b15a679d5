"""The audit page says how far the chain reaches."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from risk import audit, sealing
from risk.models import AuditChain, AuditEvent

pytestmark = pytest.mark.django_db


def test_the_list_says_what_is_sealed_and_what_waits(admin_client: Client) -> None:
    where = reverse("admin:risk_auditevent_changelist")
    sealing.seal()
    audit.record("strategy.changed", "one")
    page = admin_client.get(where).content.decode()
    assert "1 waits for the next seal" in page
    sealing.seal()
    assert not AuditEvent.objects.filter(position=None).exists()
    chain = AuditChain.objects.get()
    audit.record("strategy.changed", "two")
    audit.record("strategy.changed", "three")
    page = admin_client.get(where).content.decode()
    assert f"{chain.position} events sealed" in page
    assert "2 wait for the next seal" in page
    assert chain.hash[:16] in page
