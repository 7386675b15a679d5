"""System checks: each finds what it names, and a sound installation passes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.utils import timezone

from execution.models import Strategy
from risk.models import AllowedNetwork, IPAllowlist
from tests.factories import StrategyFactory, webhook


def ids(**options: Any) -> list[str]:
    """The ids of our own findings."""
    found = (str(message.id) for message in run_checks(**options))
    return sorted(one for one in found if one.startswith("fks."))


def test_a_sound_installation_has_no_findings() -> None:
    assert ids() == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"CREDENTIAL_KEYS": []}, ["fks.E001"]),
        ({"CREDENTIAL_KEYS": ["c2hvcnQ="]}, ["fks.E002"]),
        ({"CREDENTIAL_KEYS": ["not base64!"]}, ["fks.E002"]),
        ({"DEBUG": True}, []),
        ({"DEBUG": True, "FKS_LIVE_TRADING": True}, ["fks.E003"]),
        ({"FKS_LIVE_TRADING": True}, []),
        ({"FKS_LIVE_TRADING": True, "ALLOWED_HOSTS": ["fks.example"]}, ["fks.W001"]),
        (
            {"FKS_LIVE_TRADING": True, "ALLOWED_HOSTS": ["fks.example"], "BEHIND_TLS": True},
            [],
        ),
        ({"ALLOWED_HOSTS": ["localhost", "*"]}, ["fks.E004"]),
        ({"TRUSTED_PROXIES": ("10.0.0.0/8", "::1")}, []),
        ({"TRUSTED_PROXIES": ("10.0.0.1/8",)}, ["fks.E005"]),
        ({"TRUSTED_PROXIES": ("proxy",)}, ["fks.E005"]),
        ({"TRUSTED_PROXIES": ("0.0.0.0/0", "::/0")}, ["fks.E006", "fks.E006"]),
    ],
)
def test_what_the_settings_say(settings: Any, changes: dict[str, Any], found: list[str]) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]  # the test runner adds a host of its own
    for name, value in changes.items():
        setattr(settings, name, value)

    assert ids() == found


def test_pages_are_loaded_by_what_shows_or_checks_them_alone() -> None:
    """A worker starts without any."""
    program = """
from fks_site.celery import app
app.loader.import_default_modules()
assert "execution.tasks.process_signal" in app.tasks
from django.contrib import admin
from django.core.checks import run_checks
before = len(admin.site._registry)
assert run_checks(tags=["admin"]) == []
print(before, len(admin.site._registry) > 20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 True\n", "")


def test_an_error_stops_a_command(settings: Any) -> None:
    settings.CREDENTIAL_KEYS = []

    with pytest.raises(SystemCheckError, match=r"fks\.E001"):
        call_command("check")


@pytest.mark.django_db
def test_an_allowlist_that_admits_nobody() -> None:
    allowlist = IPAllowlist.objects.create(name="office")
    webhook(slug="open")
    StrategyFactory.create(slug="idle", allowlist=allowlist, is_enabled=False)
    assert ids(databases=["default"]) == []

    webhook(slug="closed", allowlist=allowlist)
    assert ids() == []
    assert ids(databases=["default"]) == ["fks.W002"]

    AllowedNetwork.objects.create(allowlist=allowlist, cidr="192.0.2.0/24")
    assert ids(databases=["default"]) == []


@pytest.mark.django_db
def test_an_enabled_strategy_nobody_can_post_to() -> None:
    StrategyFactory.create(slug="manual")
    strategy, _ = webhook()
    StrategyFactory.create(auth=Strategy.Auth.JWT)
    assert ids(databases=["default"]) == []

    strategy.secrets.update(expires_at=timezone.now())
    assert ids(databases=["default"]) == ["fks.W003"]

    Strategy.objects.filter(pk=strategy.pk).update(is_enabled=False)
    assert ids(databases=["default"]) == []
