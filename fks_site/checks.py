"""What ``manage.py check`` says about an installation that is not safe to trade with."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

KEY_BYTES = 32
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@register(Tags.security)
def credential_keys(**_: Any) -> list[CheckMessage]:
    """Without a sound key no credential can be stored or read."""
    if not settings.CREDENTIAL_KEYS:
        return [
            Error(
                "CREDENTIAL_KEYS is not set: exchange credentials cannot be stored or read.",
                hint="`manage.py up` makes a key under var/; elsewhere set CREDENTIAL_KEYS or "
                "CREDENTIAL_KEYS_FILE.",
                id="fks.E001",
            )
        ]
    return [
        Error(
            f"Key number {number} of CREDENTIAL_KEYS is not {KEY_BYTES} bytes in base64url.",
            id="fks.E002",
        )
        for number, key in enumerate(settings.CREDENTIAL_KEYS, start=1)
        if not _is_sound(key)
    ]


def _is_sound(key: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(key)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False


@register(Tags.security)
def live_trading(**_: Any) -> list[CheckMessage]:
    """Real money asks for more than a rehearsal."""
    if not settings.FKS_LIVE_TRADING:
        return []
    found: list[CheckMessage] = []
    if settings.DEBUG:
        found.append(
            Error(
                "DEBUG is on with live trading: error pages show settings and code.",
                hint="Unset DEBUG or FKS_LIVE_TRADING.",
                id="fks.E003",
            )
        )
    if not settings.BEHIND_TLS and set(settings.ALLOWED_HOSTS) - LOOPBACK:
        found.append(
            Warning(
                "Live trading is reachable from elsewhere without TLS: passwords and webhook "
                "secrets travel in the clear.",
                hint="Put a TLS proxy in front and set FKS_BEHIND_TLS.",
                id="fks.W001",
            )
        )
    return found


@register(Tags.security)
def allowed_hosts(**_: Any) -> list[CheckMessage]:
    """``*`` lets any page of the web aim a browser's session at this host."""
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "Name the hosts FKS is reached by."
    return [Error("ALLOWED_HOSTS contains '*'.", hint=hint, id="fks.E004")]


@register(Tags.security)
def trusted_proxies(**_: Any) -> list[CheckMessage]:
    """Whoever is trusted as a proxy may claim any client address."""
    found: list[CheckMessage] = []
    for cidr in settings.TRUSTED_PROXIES:
        try:
            everyone = ip_network(cidr).prefixlen == 0
        except ValueError:
            found.append(
                Error(f"TRUSTED_PROXIES: {cidr!r} is no address or network.", id="fks.E005")
            )
            continue
        if everyone:
            found.append(
                Error(
                    f"TRUSTED_PROXIES: {cidr!r} trusts everybody, so anybody can forge an address.",
                    id="fks.E006",
                )
            )
    return found


@register(Tags.database)
def allowlists(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None, **_: Any
) -> list[CheckMessage]:
    """An allowlist without a network admits nobody. Asked of a migrated database only."""
    from django.db import ProgrammingError

    from execution.models import Strategy

    if not databases:
        return []
    closed = Strategy.objects.filter(
        is_enabled=True, allowlist__isnull=False, allowlist__networks__isnull=True
    )
    try:
        rows = list(closed.values_list("slug", "allowlist__name"))
    except ProgrammingError:
        return []
    return [
        Warning(
            f"The allowlist {name!r} of the strategy {slug!r} is empty: nobody can post to it.",
            hint="Add the sender's networks, or take the allowlist off the strategy.",
            id="fks.W002",
        )
        for slug, name in rows
    ]


@register(Tags.database)
def live_secrets(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None, **_: Any
) -> list[CheckMessage]:
    """An enabled strategy whose last secret has ended. Asked of a migrated database only."""
    from django.db import ProgrammingError

    from execution.models import Strategy

    if not databases:
        return []
    try:
        rows = [row for row in Strategy.objects.filter(is_enabled=True) if row.needs_secret]
        mute = [row.slug for row in rows if not row.live_secrets.exists()]
    except ProgrammingError:
        return []
    return [
        Warning(
            f"The strategy {slug!r} is enabled and has no live secret: nobody can post to it.",
            hint="Make a new secret in the admin, or disable the strategy.",
            id="fks.W003",
        )
        for slug in mute
    ]
