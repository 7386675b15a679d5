"""Standard Webhooks 1.0 (https://www.standardwebhooks.com): HMAC-SHA256 over id, time and raw body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

PREFIX = "whsec_"
TOLERANCE = 300
"""Seconds a delivery's timestamp may be off, either way; what the reference libraries allow."""
LEAST_BYTES, MOST_BYTES = 24, 64
MOST_SIGNATURES = 8
_ID = re.compile(r"[!-~]{1,150}", re.ASCII)
_SECONDS = re.compile(r"\d{1,11}", re.ASCII)


class MalformedSecret(ValueError):
    """The text is no Standard Webhooks secret; the message says why and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The three headers as they came; ``id`` is the sender's key of the delivery."""

    id: str
    timestamp: str
    signatures: str = field(repr=False)

    @property
    def sent_at(self) -> datetime:
        """The sender's time. Only of a head that ``is_signed`` has accepted."""
        return datetime.fromtimestamp(int(self.timestamp), UTC)


def new_secret() -> str:
    """A fresh secret of 32 random bytes, as senders are given it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes behind ``whsec_…``. Raises MalformedSecret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedSecret("a Standard Webhooks secret is whsec_ and base64") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise MalformedSecret(f"a Standard Webhooks secret has {LEAST_BYTES} to {MOST_BYTES} bytes")
    return key


def signature(key: bytes, id: str, timestamp: str, body: bytes) -> str:
    """``v1,…`` over the delivery."""
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def is_signed(head: SignedHead, key: bytes, body: bytes, now: float | None = None) -> bool:
    """Whether one of the head's ``v1`` signatures is ``key``'s and its time is now.

    Signatures of other versions are passed over, as the standard asks.
    """
    if not _ID.fullmatch(head.id) or not _SECONDS.fullmatch(head.timestamp):
        return False
    now = time.time() if now is None else now
    if abs(now - int(head.timestamp)) > TOLERANCE:
        return False
    expected = signature(key, head.id, head.timestamp, body).encode()
    given = head.signatures.split(" ")[:MOST_SIGNATURES]
    matches = [hmac.compare_digest(expected, one.encode("utf-8", "replace")) for one in given]
    return any(matches)
