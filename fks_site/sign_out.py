"""Signing out everywhere: every session of a person ends, and no API token of theirs is renewed."""

from __future__ import annotations

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from risk import audit
from risk.admin.confirm import Question, ask
from risk.models import SignOut


@transaction.atomic
def everywhere(user: User, reason: str = "") -> int:
    """End every session of ``user``, this one included; returns how many there were.

    Access tokens of the API work until they expire, five minutes at most; none is renewed.
    """
    now = timezone.now()
    SignOut.objects.update_or_create(user=user, defaults={"at": now})
    mine = [
        row.pk
        for row in Session.objects.filter(expire_date__gt=now).iterator()
        if row.get_decoded().get(SESSION_KEY) == str(user.pk)
    ]
    Session.objects.filter(pk__in=mine).delete()
    ended = len(mine)
    audit.record("login.ended_everywhere", f"user {user}", after={"sessions": ended}, reason=reason)
    return ended


def page(request: HttpRequest) -> HttpResponse:
    """A person's own: for a telephone left in a taxi."""
    user = request.user
    if not isinstance(user, User):
        raise PermissionDenied
    if request.method != "POST":
        return ask(request, admin.site, forms.Form(), _question())
    everywhere(user)
    request.session.flush()
    messages.success(request, "You are signed out everywhere.")
    return HttpResponseRedirect(reverse("admin:login"))


def _question() -> Question:
    return Question(
        title="Sign out everywhere?",
        text="Every browser you are logged in with is logged out, this one included. Tokens of the API "
        "end within five minutes and are not renewed.",
        button="Sign out everywhere",
        back=reverse("admin:index"),
        is_dangerous=False,
    )
