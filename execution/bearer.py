"""Alerts with ``Authorization: Bearer``: a user's token from ``/api/token`` instead of a secret.

Who may post is a permission: users with ``execution.post_alert`` ("Can post alerts") may post to every
strategy of the profile ``jwt`` that trades on no account but theirs; a strategy's ``senders`` to that
one, whatever its accounts.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import Count, Q, QuerySet
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings

from brokers.models import AccountRestriction
from execution.models import Strategy
from execution.token_keys import AccessToken

MAY_POST = "execution.post_alert"
_SCHEME = "bearer "
_BACKEND = "django.contrib.auth.backends.ModelBackend"


def token_in(header: str) -> str:
    """The token of an ``Authorization`` header; empty for every other scheme."""
    if header[: len(_SCHEME)].lower() != _SCHEME:
        return ""
    return header[len(_SCHEME) :].strip()


def senders_of(strategy: Strategy) -> QuerySet[User]:
    """The active users who may post to ``strategy``."""
    permitted = User.objects.with_perm(MAY_POST, backend=_BACKEND)
    everywhere = permitted.exclude(pk__in=_restricted(strategy)).values("pk")
    here = strategy.senders.values("pk")
    return User.objects.filter(Q(pk__in=everywhere) | Q(pk__in=here), is_active=True)


def _restricted(strategy: Strategy) -> QuerySet[Any, Any]:
    """Users who work with some accounts only, while ``strategy`` trades on another, or on none."""
    accounts = set(strategy.routes.values_list("account", flat=True))
    theirs = Count("accounts", filter=Q(accounts__in=accounts))
    rows = AccountRestriction.objects.filter(user__is_superuser=False).annotate(theirs=theirs)
    return rows.filter(theirs__lt=max(len(accounts), 1)).values("user")


def sender(token: str, allowed: frozenset[str]) -> str | None:
    """The id of the user ``token`` was made for, if it is one of ``allowed``.

    The algorithm, audience and issuer are those of SIMPLE_JWT, whatever the token's head says; an
    expired token and one made for refreshing are refused.
    """
    if not token or not allowed:
        return None
    try:
        claims = AccessToken(token)  # type: ignore[arg-type]
    except TokenError:
        return None
    user = str(claims.payload.get(api_settings.USER_ID_CLAIM, ""))
    return user if user in allowed else None


def token_for(user: User) -> str:
    """A short-lived access token of ``user``, as ``/api/token`` gives it."""
    return str(AccessToken.for_user(user))
