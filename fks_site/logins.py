"""Who came in, who tried, who left: written to the audit trail as Django's own login tells it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import AbstractBaseUser, User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from execution.guards import client_ip
from risk import access_news, audit, log_ins, second_factor

LONGEST_NAME = 100
LAST_TIME = "last_time"
"""Kept in the session until the person has proved to be who the password says."""


def listen() -> None:
    """Have every login, failed login, lock-out and logout recorded."""
    user_logged_in.connect(_came, dispatch_uid="audit login")
    user_login_failed.connect(_failed, dispatch_uid="audit failed login")
    user_logged_out.connect(_left, dispatch_uid="audit logout")
    # its import connects django-axes: the failure that locks must have been recorded before
    from axes.signals import user_locked_out

    user_locked_out.connect(_locked, dispatch_uid="audit lock-out")


def _came(request: HttpRequest | None, user: AbstractBaseUser, **_: Any) -> None:
    name = user.get_username()
    last = log_ins.last_time(name)
    log_ins.came(name, _address(request))
    if request is not None and last is not None and last.is_news_to(_address(request)):
        request.session[LAST_TIME] = _in_words(last)
        if isinstance(user, User) and not second_factor.is_asked(user):
            greet(request)


def greet(request: HttpRequest) -> None:
    """Tell whoever has proved to be the person, once, of their last time here and what came after."""
    said = request.session.pop(LAST_TIME, "")
    if said:
        messages.warning(request, said, fail_silently=True)


def _in_words(last: log_ins.LastTime) -> str:
    place = f" from {last.address}" if last.address else ""
    said = [f"You were here last on {_moment(last.at)}{place}."]
    if last.failed:
        said.append(f"Failed log-ins with your name since: {last.failed}.")
    said += [
        f"{access_news.in_words(one)} on {_moment(one.at)} by {one.actor}." for one in last.changes
    ]
    return " ".join(said)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _locked(request: HttpRequest, username: str | None, **_: Any) -> None:
    log_ins.locked(_shortened(username), _address(request))


def _left(request: HttpRequest | None, user: AbstractBaseUser | None, **_: Any) -> None:
    if user is not None:
        _record("login.ended", user.get_username(), user.get_username(), request)


def _failed(credentials: Mapping[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    """Failures are recorded until the lock-out: what comes after it must not fill the trail."""
    if not getattr(request, "axes_locked_out", False):
        _record("login.failed", "anonymous", _shortened(credentials.get("username")), request)


def _shortened(name: object) -> str:
    return str(name or "").replace("\x00", "")[:LONGEST_NAME]


def _address(request: HttpRequest | None) -> str:
    return (client_ip(request) if request is not None else "") or ""


def _record(kind: str, actor: str, name: str, request: HttpRequest | None) -> None:
    with audit.acting(audit.Actor(actor, _address(request))):
        audit.record(kind, f"user {name}")
