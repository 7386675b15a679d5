"""Who may post to a webhook: the profiles of ``docs/webhook.md``, one live secret being enough.

An unknown strategy, a missing credential and a wrong one are answered alike and cost about the
same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from brokers import crypto
from execution.models import Strategy, WebhookSecret

BODY_FIELDS = ("secret", "token", "passphrase", "key")
SIGNATURE_HEADERS = ("HTTP_X_WEBHOOK_SIGNATURE", "HTTP_X_TRADINGVIEW_SIGNATURE")
TOKEN_BYTES = 24
MASK = "***"
_IN_UNREADABLE = re.compile(r'"(?:secret|token|passphrase|key)"\s*:\s*"([^"\\]{1,200})"')


@dataclass(frozen=True, slots=True)
class LiveSecret:
    """A secret as the hot path needs it: a token's digest, or the key a signature is made with."""

    id: int
    profile: str
    digest: bytes
    key: bytes
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a request presents. ``path_token`` is the last path segment, empty without one."""

    body: bytes
    path_token: str
    signature: str


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_secret(strategy: Strategy, profile: str, value: str = "") -> tuple[WebhookSecret, str]:
    """Store a new secret of ``strategy``; returns the row and the value, which is never shown
    again.
    """
    value = value or secrets.token_urlsafe(TOKEN_BYTES)
    row = WebhookSecret(strategy=strategy, profile=profile)
    if profile == Strategy.Auth.TOKEN:
        row.digest = digest_of(value).hex()
    else:
        row.sealed = crypto.encrypt({"key": value}, bound_to=_binding(strategy.pk, profile))
    row.save()
    return row, value


def live(row: WebhookSecret) -> LiveSecret:
    """``row`` ready for comparing. Raises crypto.DecryptionError."""
    key = ""
    if row.sealed:
        key = crypto.decrypt(row.sealed, bound_to=_binding(row.strategy_id, row.profile))["key"]
    return LiveSecret(row.pk, row.profile, bytes.fromhex(row.digest), key.encode(), row.expires_at)


def _binding(strategy_id: int, profile: str) -> str:
    return f"webhook secret of strategy {strategy_id}, {profile}"


def verify(
    delivery: Delivery, document: dict[str, Any] | None, live_secrets: tuple[LiveSecret, ...]
) -> LiveSecret | None:
    """The secret that proves ``delivery``, or ``None``. Every live secret is tried, always.

    ``document`` is the parsed body, ``None`` when it could not be parsed: a token is then looked
    for in the text, only so that the body can be kept for the operator.
    """
    token = delivery.path_token or _token_in(delivery, document)
    token_digest = digest_of(token)
    proven: LiveSecret | None = None
    for secret in live_secrets:
        if secret.profile == Strategy.Auth.TOKEN:
            matches = bool(token) and hmac.compare_digest(secret.digest, token_digest)
        else:
            matches = _signature_matches(delivery, secret.key)
        if matches:
            proven = secret
    return proven


def _token_in(delivery: Delivery, document: dict[str, Any] | None) -> str:
    if document is None:
        found = _IN_UNREADABLE.search(delivery.body.decode("utf-8", "replace"))
        return found[1] if found else ""
    for name in BODY_FIELDS:
        value = document.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _signature_matches(delivery: Delivery, key: bytes) -> bool:
    if not delivery.signature or not key:
        return False
    expected = hmac.new(key, delivery.body, hashlib.sha256).hexdigest()
    given = delivery.signature.strip().lower().removeprefix("sha256=")
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def credentials_in(delivery: Delivery, document: dict[str, Any] | None) -> tuple[str, ...]:
    """Every credential the delivery carries, longest first, so that it can be masked."""
    values = {delivery.path_token}
    if document is None:
        values |= set(_IN_UNREADABLE.findall(delivery.body.decode("utf-8", "replace")))
    else:
        values |= {text for name in BODY_FIELDS if isinstance(text := document.get(name), str)}
    return tuple(sorted(filter(None, values), key=len, reverse=True))


def masked(text: str, credentials: tuple[str, ...]) -> str:
    """``text`` without ``credentials``, also where JSON escapes hide them."""
    for value in credentials:
        text = text.replace(value, MASK).replace(json.dumps(value)[1:-1], MASK)
    return text


def masked_body(delivery: Delivery, document: dict[str, Any] | None) -> str:
    """The body as it is stored. A credential written in escapes of its own is cut out with its
    field.
    """
    credentials = credentials_in(delivery, document)
    text = delivery.body.decode("utf-8-sig", "backslashreplace")
    if document is not None:
        hidden = [
            name
            for name in BODY_FIELDS
            if isinstance(value := document.get(name), str) and value and value not in text
        ]
        if hidden:
            shown = {name: MASK if name in hidden else value for name, value in document.items()}
            text = json.dumps(shown, default=str)
    return masked(text, credentials)
