"""What ends sessions and tokens of the API: signing out everywhere, a password, a second factor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework_simplejwt.tokens import RefreshToken

from risk import second_factor, sign_out
from risk.models import AuditEvent, SignOut
from tests.factories import PASSWORD, UserFactory
from tests.fks_site.test_access_news import channel, told
from tests.fks_site.test_twofactor import code_of

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


NEW = "another battery staple"


@dataclass
class Opened:
    """What a person's password has opened: two browsers and a token of the API."""

    user: User
    here: Client
    there: Client
    token: RefreshToken

    def still(self) -> list[bool]:
        """Whether each of them is open."""
        renewed = refreshed(Client(), self.token) == 200
        return [is_in(self.here), is_in(self.there), renewed]


@pytest.fixture
def opened() -> Opened:
    user = UserFactory.create(username="olivia")
    one = Opened(user, logged_in(user), logged_in(user), RefreshToken.for_user(user))
    assert one.still() == [True, True, True]
    return one


def in_the_audit() -> list[tuple[str, str, object, object]]:
    rows = AuditEvent.objects.exclude(kind__startswith="login.").order_by("id")
    return [(row.kind, row.actor, row.before, row.after) for row in rows]


def test_ones_own_new_password_ends_the_rest_and_is_told(opened: Opened) -> None:
    desk = channel()
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert opened.here.post("/admin/password_change/", form).status_code == 302
    assert opened.still() == [True, False, False]
    assert in_the_audit() == [("user.password_changed", "olivia", None, None)]
    assert told(desk) == [("access_changed", "User password changed: user olivia")]


def test_a_password_that_was_refused_ends_nothing(opened: Opened) -> None:
    form = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}
    assert opened.here.post("/admin/password_change/", form).status_code == 200
    assert opened.still() == [True, True, True]
    assert in_the_audit() == []


@pytest.mark.parametrize("usable", ["true", "false"])
def test_a_password_set_or_disabled_by_another_ends_all(opened: Opened, usable: str) -> None:
    admin = UserFactory.create(username="sue", is_superuser=True)
    form = {"password1": NEW, "password2": NEW, "usable_password": usable, "unset-password": "1"}
    page = reverse("admin:auth_user_password_change", args=[opened.user.pk])
    assert logged_in(admin).post(page, form).status_code == 302
    assert opened.still() == [False, False, False]
    assert in_the_audit() == [("user.password_changed", "sue", None, None)]


def test_a_password_set_in_the_shell_ends_all(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: NEW)
    call_command("changepassword", "olivia")
    assert opened.still() == [False, False, False]
    assert in_the_audit() == [("user.password_changed", "command", None, None)]


def test_neither_a_log_in_nor_a_stronger_hash_nor_another_column_ends_anything(
    opened: Opened, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    opened.user.password = make_password(PASSWORD)
    opened.user.save()
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]
    log_in = {"username": "olivia", "password": PASSWORD}
    assert Client().post(reverse("admin:login"), log_in).status_code == 302
    opened.user.refresh_from_db()
    assert opened.user.password.startswith("pbkdf2_")
    opened.user.first_name = "Olivia"
    opened.user.save()
    assert refreshed(Client(), opened.token) == 200
    assert in_the_audit() == []


def test_setting_up_a_second_factor_ends_what_the_password_alone_had_opened(opened: Opened) -> None:
    second_factor.begin(opened.user)
    page = reverse("admin:second_factor")
    opened.here.post(page, {"code": "000000"})
    assert opened.still() == [True, True, True]
    opened.here.post(page, {"code": code_of(opened.user)})
    assert second_factor.has_one(opened.user)
    assert opened.still() == [True, False, False]
    assert logged_in(opened.user).get("/admin/")["Location"].startswith(page)
    event = AuditEvent.objects.get(kind="login.ended_everywhere")
    assert (event.reason, event.after) == ("a second factor was set up", {"sessions": 1})
