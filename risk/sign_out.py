"""Ending what a person's log-ins have opened: sessions in browsers, and tokens of the API."""

from __future__ import annotations

from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from risk import audit
from risk.models import SignOut


def end_tokens(user: User) -> None:
    """Renew no API token of ``user`` made before; access tokens end by themselves in five minutes."""
    SignOut.objects.update_or_create(user=user, defaults={"at": timezone.now()})


@transaction.atomic
def password_changed(user: User) -> None:
    """Another password of ``user`` is stored: record it and end the tokens of the old one. Django
    ends its sessions, all but the one it was changed in.
    """
    end_tokens(user)
    audit.record("user.password_changed", f"user {user}")


@transaction.atomic
def everywhere(user: User, reason: str = "", *, but: str | None = None) -> int:
    """End the tokens and every session of ``user`` except the one of key ``but``; returns how many
    sessions there were.
    """
    end_tokens(user)
    mine = [
        row.pk
        for row in Session.objects.filter(expire_date__gt=timezone.now()).iterator()
        if row.pk != but and row.get_decoded().get(SESSION_KEY) == str(user.pk)
    ]
    Session.objects.filter(pk__in=mine).delete()
    ended = len(mine)
    audit.record("login.ended_everywhere", f"user {user}", after={"sessions": ended}, reason=reason)
    return ended
