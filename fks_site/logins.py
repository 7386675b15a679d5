"""Who came in, who tried, who left: written to the audit trail as Django's own login tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from execution.guards import client_ip
from risk import audit

LONGEST_NAME = 100


def listen() -> None:
    """Have every login, failed login and logout recorded."""
    user_logged_in.connect(_came, dispatch_uid="audit login")
    user_login_failed.connect(_failed, dispatch_uid="audit failed login")
    user_logged_out.connect(_left, dispatch_uid="audit logout")


def _came(request: HttpRequest | None, user: AbstractBaseUser, **_: Any) -> None:
    _record("login.succeeded", user.get_username(), user.get_username(), request)


def _left(request: HttpRequest | None, user: AbstractBaseUser | None, **_: Any) -> None:
    if user is not None:
        _record("login.ended", user.get_username(), user.get_username(), request)


def _failed(credentials: Mapping[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    """Failures are recorded until the lock-out: what comes after it must not fill the trail."""
    if not getattr(request, "axes_locked_out", False):
        name = str(credentials.get("username", "")).replace("\x00", "")[:LONGEST_NAME]
        _record("login.failed", "anonymous", name, request)


def _record(kind: str, actor: str, name: str, request: HttpRequest | None) -> None:
    address = (client_ip(request) if request is not None else "") or ""
    with audit.acting(audit.Actor(actor, address)):
        audit.record(kind, f"user {name}")
