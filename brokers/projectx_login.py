"""ProjectX's log-in with a key: a token for a day, asked for by each process for itself."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlsplit

from brokers.errors import CredentialError, QueryFailedError
from brokers.refused_tokens import RefusedTokens
from brokers.timing import LOOPBACK

LASTS = 23 * 3600
"""Seconds a token is used; it is good for 24 hours (Gateway API, Authenticate)."""
PATIENCE, CONNECTING = 10, 3  # seconds
REFUSED_FOR = 60.0
"""Seconds in which a refused key is not tried again."""
FINAL = (*range(1, 8), 9, 10)
"""Codes that speak of the user, the key or the subscription (``LoginErrorCode``); 8 is "unknown"."""


class KeyLogin:
    """A ``TokenSource`` for a user's key; safe for threads."""

    def __init__(self, url: str, user: str, key: str) -> None:
        self._url, self._user, self._key = url, user, key
        self._lock = threading.Lock()
        self._known: tuple[str, float] | None = None
        self._refused: tuple[str, float] | None = None
        self._refusals = RefusedTokens()

    def token(self) -> str:
        """Raises CredentialError when the key is refused, QueryFailedError when nobody knows."""
        with self._lock:
            now = time.monotonic()
            if self._known is not None and now < self._known[1]:
                return self._known[0]
            if self._refused is not None and now < self._refused[1]:
                raise CredentialError(self._refused[0])
            self._refusals.rest()
            try:
                self._known = (self._log_in(), now + LASTS)
            except CredentialError as error:
                self._refused = (str(error), now + REFUSED_FOR)
                raise
            return self._known[0]

    def refused(self, token: str) -> None:
        with self._lock:
            if self._known is not None and self._known[0] == token:
                self._known = None
                self._refusals.note()

    def _log_in(self) -> str:
        import httpx

        local = urlsplit(self._url).hostname in LOOPBACK
        timeout = httpx.Timeout(PATIENCE, connect=CONNECTING)
        try:
            with httpx.Client(timeout=timeout, trust_env=not local) as client:
                body = {"userName": self._user, "apiKey": self._key}
                answer = client.post(self._url, json=body)
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            name = type(error).__name__
            raise QueryFailedError(f"ProjectX: no answer about the log-in ({name})") from error
        fields = told if isinstance(told, dict) else {}
        token, code = fields.get("token"), fields.get("errorCode")
        if answer.status_code == httpx.codes.OK:
            if isinstance(token, str) and token.isascii():
                return token
            if fields.get("success") is False and code in FINAL:
                raise CredentialError(f"ProjectX refuses the key: code {code}")
        raise QueryFailedError(f"ProjectX: no token, HTTP {answer.status_code}, code {code}")
