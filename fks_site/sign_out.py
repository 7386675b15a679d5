"""The page to sign out everywhere: every session of a person ends, and no API token is renewed."""

from __future__ import annotations

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from risk import sign_out
from risk.admin.confirm import Question, ask


def page(request: HttpRequest) -> HttpResponse:
    """A person's own: for a telephone left in a taxi."""
    user = request.user
    if not isinstance(user, User):
        raise PermissionDenied
    if request.method != "POST":
        return ask(request, admin.site, forms.Form(), _question())
    sign_out.everywhere(user)
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
