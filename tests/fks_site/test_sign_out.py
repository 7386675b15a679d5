"""Signing out everywhere: one's own sessions, somebody else's, and tokens of the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework_simplejwt.tokens import RefreshToken

from fks_site import sign_out
from risk.models import AuditEvent, SignOut
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

PAGE = "/admin/sign-out-everywhere/"


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    return client


def is_in(client: Client) -> bool:
    return client.get("/admin/password_change/").status_code == 200


def test_all_of_ones_own_sessions_end_and_nobody_elses() -> None:
    user = UserFactory.create()
    here, there, other = logged_in(user), logged_in(user), logged_in(UserFactory.create())
    asked = here.get(PAGE)
    assert "Sign out everywhere?" in asked.content.decode()
    assert is_in(there), "looking at the question ends nothing"
    answer = here.post(PAGE)
    assert (answer.status_code, answer.headers["Location"]) == (302, reverse("admin:login"))
    assert [is_in(one) for one in (here, there, other)] == [False, False, True]
    event = AuditEvent.objects.get(kind="login.ended_everywhere")
    assert (event.actor, event.subject, event.after) == (
        user.username,
        f"user {user}",
        {"sessions": 2},
    )


def test_whoever_manages_users_signs_another_out_for_a_reason() -> None:
    user, manager = UserFactory.create(), UserFactory.create()
    rights = ("change_user", "view_user")
    manager.user_permissions.set(Permission.objects.filter(codename__in=rights))
    theirs, client = logged_in(user), logged_in(manager)
    page = reverse("admin:auth_user_sign_out", args=[user.pk])
    client.post(page, {"reason": ""})
    assert is_in(theirs)
    client.post(page, {"reason": "a lost telephone"})
    assert (is_in(theirs), is_in(client)) == (False, True)
    event = AuditEvent.objects.get(kind="login.ended_everywhere")
    assert (event.actor, event.reason) == (manager.username, "a lost telephone")


@pytest.mark.parametrize("target", ["anybody", "superuser"])
def test_who_may_not_change_a_user_may_not_sign_them_out(target: str) -> None:
    user = UserFactory.create(is_superuser=target == "superuser")
    stranger = UserFactory.create()
    if target == "superuser":
        stranger.user_permissions.set(Permission.objects.filter(codename="change_user"))
    theirs = logged_in(user)
    page = reverse("admin:auth_user_sign_out", args=[user.pk])
    answer = logged_in(stranger).post(page, {"reason": "because"})
    assert answer.status_code == 403
    assert is_in(theirs)


def refreshed(client: Client, token: Any) -> int:
    body = {"refresh": str(token)}
    return client.post("/api/token/refresh", body, content_type="application/json").status_code


def test_tokens_made_before_are_not_renewed(client: Client) -> None:
    user, other = UserFactory.create(), UserFactory.create()
    theirs, others = RefreshToken.for_user(user), RefreshToken.for_user(other)
    assert refreshed(client, theirs) == 200
    sign_out.everywhere(user)
    assert [refreshed(client, one) for one in (theirs, others)] == [401, 200]
    SignOut.objects.update(at=timezone.now() - timedelta(minutes=1))
    assert refreshed(client, RefreshToken.for_user(user)) == 200


def test_sessions_that_have_ended_are_not_counted() -> None:
    user = UserFactory.create()
    logged_in(user)
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert sign_out.everywhere(user) == 0
