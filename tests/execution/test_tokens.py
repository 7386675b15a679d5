"""``/api/token``: who gets one, and which ones are believed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings as django_settings
from django.test import Client
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from tests.factories import PASSWORD, UserFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quick_passwords")]

REFUSED = {
    "code": "NO_ACTIVE_ACCOUNT",
    "detail": "No active account found with the given credentials",
}


@pytest.fixture
def quick_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def post(client: Client, path: str, **body: str) -> Any:
    return client.post(path, body, content_type="application/json")


def status_with(client: Client, token: str) -> int:
    """What a list answers to somebody with ``token``."""
    return client.get("/api/v1/orders", headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_token_and_the_next_one(client: Client, slash: str) -> None:
    user = UserFactory.create(is_superuser=True)

    pair = post(client, f"/api/token{slash}", username=user.username, password=PASSWORD)
    assert pair.status_code == 200
    assert status_with(client, pair.json()["access"]) == 200

    following = post(client, f"/api/token/refresh{slash}", refresh=pair.json()["refresh"])
    assert following.status_code == 200
    assert status_with(client, following.json()["access"]) == 200
    assert status_with(client, pair.json()["refresh"]) == 401


def test_a_stranger_learns_nothing(client: Client) -> None:
    user = UserFactory.create()
    gone = UserFactory.create(is_active=False)
    for name, password in (
        (user.username, "wrong"),
        ("nobody", PASSWORD),
        (gone.username, PASSWORD),
    ):
        answer = post(client, "/api/token", username=name, password=password)
        assert (answer.status_code, answer.json()) == (401, REFUSED)


def test_guessing_locks_the_name_out_from_that_address(client: Client) -> None:
    user = UserFactory.create()
    for _ in range(django_settings.AXES_FAILURE_LIMIT):
        post(client, "/api/token", username=user.username, password="guess")

    right = post(client, "/api/token", username=user.username, password=PASSWORD)
    assert (right.status_code, right.json()) == (401, REFUSED)

    elsewhere = client.post(
        "/api/token",
        {"username": user.username, "password": PASSWORD},
        content_type="application/json",
        REMOTE_ADDR="192.0.2.7",
    )
    assert elsewhere.status_code == 200


def test_a_token_ends_with_its_user(client: Client) -> None:
    user = UserFactory.create(is_superuser=True)
    access, refresh = str(AccessToken.for_user(user)), str(RefreshToken.for_user(user))
    user.is_active = False
    user.save()
    assert status_with(client, access) == 401
    assert post(client, "/api/token/refresh", refresh=refresh).status_code == 401

    user.delete()
    assert status_with(client, access) == 401
    answer = post(client, "/api/token/refresh", refresh=refresh)
    assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_NOT_VALID")


def test_an_expired_token(client: Client) -> None:
    token = AccessToken.for_user(UserFactory.create(is_superuser=True))
    token.set_exp(lifetime=timedelta(seconds=-1))

    assert status_with(client, str(token)) == 401


@pytest.mark.parametrize(
    ("change", "algorithm"),
    [
        ({}, "HS512"),
        ({}, "none"),
        ({"aud": "somebody else"}, "HS256"),
        ({"iss": "somebody else"}, "HS256"),
        ({"token_type": "refresh"}, "HS256"),
    ],
)
def test_only_our_own_tokens_are_believed(
    client: Client, change: dict[str, str], algorithm: str
) -> None:
    claims = AccessToken.for_user(UserFactory.create(is_superuser=True)).payload
    claims |= {"aud": "fks", "iss": "fks"}
    ours = jwt.encode(claims, django_settings.SECRET_KEY, "HS256")
    assert status_with(client, ours) == 200

    key = None if algorithm == "none" else django_settings.SECRET_KEY
    forged = jwt.encode(claims | change, key, algorithm)

    assert status_with(client, forged) == 401
