"""Who may ask: HMAC-SHA256 over every request and every answer, each request at most once.

A request is signed with its time and a nonce; it counts for 30 seconds and once. The answer is
signed with the request's nonce, so that nothing but this agent can answer this question.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable

from brokers.bridge import PROTOCOL

WINDOW = 30
"""Seconds a request stays good, before and after the agent's own time."""
KEY_BYTES = 32
MOST_NONCES = 100_000


class SignatureError(Exception):
    """The request is not from who it claims to be, or not from now."""


class NotNowError(SignatureError):
    """Genuine, and not let in for a reason that passes: the asker may sign it anew later."""


def new_key() -> str:
    """A fresh key as text."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def read_key(text: str) -> bytes:
    """The bytes of a key. Raises ValueError."""
    try:
        key = base64.urlsafe_b64decode(text.strip())
    except (binascii.Error, ValueError) as error:
        raise ValueError("a bridge key is 32 bytes, base64url encoded") from error
    if len(key) != KEY_BYTES:
        raise ValueError("a bridge key is 32 bytes, base64url encoded")
    return key


def sign_request(key: bytes, path: str, timestamp: int, nonce: str, body: bytes) -> str:
    return _signature(key, "request", path, str(timestamp), nonce, body)


def sign_answer(key: bytes, nonce: str, status: int, body: bytes) -> str:
    return _signature(key, "answer", nonce, str(status), "", body)


def same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _signature(key: bytes, kind: str, first: str, second: str, third: str, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    told = "\n".join((f"fks-bridge {PROTOCOL} {kind}", first, second, third, digest))
    return hmac.new(key, told.encode(), hashlib.sha256).hexdigest()


class Doorkeeper:
    """Lets each signed request in once. ``clock`` gives Unix seconds.

    Requests signed before this agent started are refused: what was seen then is forgotten.
    """

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock
        self._started = int(clock())
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}

    def admit(self, path: str, timestamp: str, nonce: str, signature: str, body: bytes) -> None:
        """Raise SignatureError unless the request is genuine, of now, and new."""
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
            raise SignatureError("no time")
        at, now = int(timestamp), int(self._clock())
        if not 16 <= len(nonce) <= 64:
            raise SignatureError("no nonce")
        if not same(sign_request(self._key, path, at, nonce, body), signature):
            raise SignatureError("wrong signature")
        if abs(at - now) > WINDOW:
            raise NotNowError(f"the clocks differ by {at - now} s")
        if at < self._started:
            raise NotNowError("signed before this agent started")
        self._once(nonce, at, now)

    def _once(self, nonce: str, at: int, now: int) -> None:
        with self._lock:
            if nonce in self._seen:
                raise SignatureError("this request was here already")
            if len(self._seen) >= MOST_NONCES:
                self._seen = {n: end for n, end in self._seen.items() if end >= now}
            if len(self._seen) >= MOST_NONCES:
                raise NotNowError("too many requests to remember")
            self._seen[nonce] = at + WINDOW
