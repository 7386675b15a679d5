"""Who may post to a webhook: the profiles of ``docs/webhook.md``, one live secret being enough.

An unknown strategy, a missing credential and a wrong one are answered alike and cost about the
same.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from time import monotonic
from typing import Any

from django.db import Error
from django.utils import timezone

from brokers import crypto
from execution import standard_webhooks
from execution.formats import FORMATS, Format
from execution.models import Strategy, WebhookSecret
from execution.parsing import legible
from execution.standard_webhooks import SignedHead

logger = logging.getLogger(__name__)

SIGNATURE_HEADERS = ("HTTP_X_WEBHOOK_SIGNATURE", "HTTP_X_TRADINGVIEW_SIGNATURE")
STANDARD_HEADERS = ("HTTP_WEBHOOK_ID", "HTTP_WEBHOOK_TIMESTAMP", "HTTP_WEBHOOK_SIGNATURE")
TOKEN_BYTES = 24
NOTE_EVERY = 60.0  # seconds
_noted: dict[int, float] = {}


@dataclass(frozen=True, slots=True)
class LiveSecret:
    """A secret as the hot path needs it: a token's digest, or the key a signature is made with."""

    id: int
    profile: str
    digest: bytes = field(repr=False)
    key: bytes = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a request presents. ``path_token`` is the last path segment, empty without one;
    ``format`` says in which fields a token may stand, ``head`` holds the headers of Standard Webhooks.
    """

    body: bytes = field(repr=False)
    path_token: str = field(repr=False)
    signature: str = field(repr=False)
    format: Format = FORMATS["fks"]
    head: SignedHead | None = None


def delivery_of(
    body: bytes, path_token: str, format: Format, headers: Mapping[str, Any]
) -> Delivery:
    """What came with ``headers``, which are named as WSGI does."""
    signature = next((headers[name] for name in SIGNATURE_HEADERS if name in headers), "")
    given = [headers.get(name, "") for name in STANDARD_HEADERS]
    head = SignedHead(*given) if all(given) else None
    return Delivery(body, path_token, signature, format, head)


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_secret(strategy: Strategy, profile: str, value: str = "") -> tuple[WebhookSecret, str]:
    """Store a new secret of ``strategy``; returns the row and the value, which is never shown
    again. Raises ValueError for a value that is no secret of the profile.
    """
    if profile == Strategy.Auth.JWT:
        raise ValueError("the profile jwt has no secret: users post with tokens of their own")
    value = value or _fresh(profile)
    if profile == Strategy.Auth.STANDARD:
        standard_webhooks.key_of(value)
    row = WebhookSecret(strategy=strategy, profile=profile)
    if profile == Strategy.Auth.TOKEN:
        row.digest = digest_of(value).hex()
    else:
        row.sealed = crypto.encrypt({"key": value}, bound_to=_binding(strategy.pk, profile))
    row.save()
    return row, value


def _fresh(profile: str) -> str:
    if profile == Strategy.Auth.STANDARD:
        return standard_webhooks.new_secret()
    value = "-"
    while value.startswith("-"):  # a command line would take it for an option
        value = secrets.token_urlsafe(TOKEN_BYTES)
    return value


def live(row: WebhookSecret) -> LiveSecret:
    """``row`` ready for comparing. Raises crypto.DecryptionError."""
    key = ""
    if row.sealed:
        key = crypto.decrypt(row.sealed, bound_to=_binding(row.strategy_id, row.profile))["key"]
    return LiveSecret(row.pk, row.profile, bytes.fromhex(row.digest), key.encode(), row.expires_at)


def binding_of(row: WebhookSecret) -> str:
    """What the secret's token is bound to."""
    return _binding(row.strategy_id, row.profile)


def _binding(strategy_id: int, profile: str) -> str:
    return f"webhook secret of strategy {strategy_id}, {profile}"


def verify(
    delivery: Delivery, document: Mapping[str, Any] | None, live_secrets: tuple[LiveSecret, ...]
) -> LiveSecret | None:
    """The secret that proves ``delivery``, or ``None``. Every live secret is tried, always.

    ``document`` is the parsed body, ``None`` when it could not be parsed: a token is then looked
    for in the text, only so that the body can be kept for the operator.
    """
    token = next(iter(presented(delivery, document)), "")
    token_digest = digest_of(token)
    proven: LiveSecret | None = None
    for secret in live_secrets:
        if secret.profile == Strategy.Auth.TOKEN:
            matches = bool(token) and hmac.compare_digest(secret.digest, token_digest)
        elif secret.profile == Strategy.Auth.STANDARD:
            matches = _standard_matches(delivery, secret.key)
        else:
            matches = _signature_matches(delivery, secret.key)
        if matches:
            proven = secret
    return proven


def presented(delivery: Delivery, document: Mapping[str, Any] | None) -> list[str]:
    """Every text presented as a token, in order of precedence: the path's, then the body fields'."""
    names = delivery.format.secrets
    if document is None:
        found = _in_unreadable(names).findall(legible(delivery.body))
        pairs = [
            (name, value) if name else (word.lower(), text) for name, value, word, text in found
        ]
        pairs = [pair for pair in pairs if pair[0] in names]
    else:
        pairs = [(name, document.get(name)) for name in names]
    pairs.sort(key=lambda pair: names.index(pair[0]))
    values = (delivery.path_token, *(value for _, value in pairs))
    return [value for value in values if value and isinstance(value, str)]


@cache
def _in_unreadable(names: tuple[str, ...]) -> re.Pattern[str]:
    """A field of JSON, or of a text alert."""
    known = "|".join(names)
    return re.compile(
        rf'"({known})"\s*:\s*"([^"\\]{{1,200}})"|\b((?i:{known}))=([^\s,;|&"]{{1,200}})'
    )


def _signature_matches(delivery: Delivery, key: bytes) -> bool:
    if not delivery.signature or not key:
        return False
    expected = hmac.new(key, delivery.body, hashlib.sha256).hexdigest()
    given = delivery.signature.strip().lower().removeprefix("sha256=")
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def _standard_matches(delivery: Delivery, secret: bytes) -> bool:
    if delivery.head is None or not secret:
        return False
    key = standard_webhooks.key_of(secret.decode())
    return standard_webhooks.is_signed(delivery.head, key, delivery.body)


def note_use(secret: LiveSecret) -> None:
    """Record that ``secret`` was used, at most once a minute per process: a delivery that comes
    alone pays one statement more, and none fails over it.
    """
    now = monotonic()
    if now - _noted.get(secret.id, -NOTE_EVERY) < NOTE_EVERY:
        return
    _noted[secret.id] = now
    try:
        WebhookSecret.objects.filter(pk=secret.id).update(last_used_at=timezone.now())
    except Error:
        logger.warning("the use of webhook secret %s could not be noted", secret.id, exc_info=True)
