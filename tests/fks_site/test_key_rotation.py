"""Another SECRET_KEY: sessions and API tokens count on while the old one is a fallback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as installed
from django.test import Client
from rest_framework_simplejwt.backends import TokenBackend

from execution.token_keys import AccessToken, RefreshToken
from tests.e2e.product import ROOT
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db
OLD = "the-old-key-" * 5
BACKEND = "django.contrib.auth.backends.ModelBackend"


def logged_in(settings: Any) -> Client:
    """A browser whose session was made while OLD was the key."""
    user = UserFactory.create(is_staff=True, is_superuser=True)
    now, settings.SECRET_KEY = settings.SECRET_KEY, OLD
    client = Client()
    client.force_login(user, BACKEND)
    settings.SECRET_KEY = now
    return client


def is_in(client: Client) -> bool:
    return client.get("/metrics", REMOTE_ADDR="192.0.2.7").status_code == 200


def signed_with_old(token: AccessToken | RefreshToken) -> str:
    old = TokenBackend("HS256", OLD, audience="fks", issuer="fks")
    return old.encode(token.payload)


def api(token: str) -> int:
    return Client().get("/api/v1/orders", headers={"Authorization": f"Bearer {token}"}).status_code


def test_who_is_logged_in_stays_so_and_goes_over_to_the_new_key(settings: Any) -> None:
    seen, unseen = logged_in(settings), logged_in(settings)
    settings.SECRET_KEY_FALLBACKS = [OLD]
    assert is_in(seen)

    settings.SECRET_KEY_FALLBACKS = []
    assert is_in(seen)
    assert not is_in(unseen)


def test_api_tokens_count_until_the_old_key_is_gone(settings: Any) -> None:
    user = UserFactory.create(is_superuser=True)
    access = signed_with_old(AccessToken.for_user(user))
    refresh = signed_with_old(RefreshToken.for_user(user))
    assert api(access) == 401

    settings.SECRET_KEY_FALLBACKS = ["some-other-key-" * 4, OLD]
    assert api(access) == 200
    answer = Client().post("/api/token/refresh", {"refresh": refresh}, "application/json")
    assert answer.status_code == 200

    settings.SECRET_KEY_FALLBACKS = []
    assert api(access) == 401
    assert api(answer.json()["access"]) == 200, "a new token is signed with the new key"


@pytest.mark.parametrize("damage", ["x", ".", "=", "é", ""])
def test_a_fallback_lets_no_forged_token_in(settings: Any, damage: str) -> None:
    settings.SECRET_KEY_FALLBACKS = [OLD]
    head, body, signature = signed_with_old(
        AccessToken.for_user(UserFactory.create(is_superuser=True))
    ).split(".")

    assert api(f"{head}.{body}.{damage}") == 401
    assert api(f"{head}.{body[:-2]}{damage}.{signature}") == 401
    assert api(f"{head}.{body}.{signature[:-4]}AAAA") == 401


@pytest.mark.parametrize("given", ["environment", "file", "var", "missing"])
def test_the_older_keys_come_from_the_environment_or_a_file(tmp_path: Path, given: str) -> None:
    file = tmp_path / "secret_key_fallbacks"
    file.write_text("one, two,\n")
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "fks_site.settings", "FKS_VAR": "/nowhere"}
    env |= {
        "environment": {"SECRET_KEY_FALLBACKS": " one ,,two"},
        "file": {"SECRET_KEY_FALLBACKS_FILE": str(file)},
        "var": {"FKS_VAR": str(tmp_path)},
        "missing": {"SECRET_KEY_FALLBACKS_FILE": str(tmp_path / "nothing")},
    }[given]
    script = "from django.conf import settings; print(settings.SECRET_KEY_FALLBACKS)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.stdout.strip() == {"missing": "[]"}.get(given, "['one', 'two']"), done.stderr
    assert installed.SECRET_KEY_FALLBACKS == []
