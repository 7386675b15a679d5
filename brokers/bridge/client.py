"""Asking the agent, so that every failure says whether the request can have arrived.

The connection is made first, and by itself: what fails there was never sent. After that only an answer
signed for this very request counts.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from brokers.bridge import PROTOCOL
from brokers.bridge.listening import check_address
from brokers.bridge.signing import same, sign_answer, sign_request

CONNECT_SECONDS = 3
MOST_BYTES = 8 * 1024 * 1024


class BridgeError(Exception):
    """The agent did not answer. ``sent`` tells whether the request may have reached it."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class BridgeRefusal(Exception):
    """The agent said, signed, that it did not do it. ``is_answer``: the terminal answered, and does not
    show what was asked about.
    """

    def __init__(self, code: str, detail: str, *, is_answer: bool = False) -> None:
        super().__init__(detail)
        self.code, self.is_answer = code, is_answer


@dataclass(frozen=True, slots=True)
class BridgeClient:
    """Where the agent is. ``fingerprint`` pins its certificate (SHA-256, hex); without it the
    system's authorities decide. ``vpn`` vouches for plain HTTP to a private address.
    """

    url: str
    key: bytes = field(repr=False)
    fingerprint: str = ""
    vpn: bool = False

    def check(self) -> None:
        """Raise ValueError for an address that cannot be used or would show orders to strangers."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ValueError("url is http:// or https:// with a host and a port, nothing behind it")
        _ = parts.port  # which is read, and refused, when it is asked for
        check_address(parts.hostname, tls=parts.scheme == "https", vpn=self.vpn)

    def ask(self, call: str, told: dict[str, Any], seconds: float) -> Any:
        """The agent's answer to ``call``. Raises BridgeError or BridgeRefusal."""
        path, nonce = f"/v1/{call}", secrets.token_urlsafe(18)
        body = json.dumps({"protocol": PROTOCOL, **told}).encode()
        connection = self._connect(seconds)
        try:
            now = int(time.time())
            headers = {
                "Content-Type": "application/json",
                "X-Bridge-Time": str(now),
                "X-Bridge-Nonce": nonce,
                "X-Bridge-Signature": sign_request(self.key, path, now, nonce, body),
            }
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            text, signature = answer.read(MOST_BYTES), answer.getheader("X-Bridge-Signature", "")
        except (OSError, http.client.HTTPException) as error:
            raise BridgeError(f"no answer: {type(error).__name__}", sent=True) from error
        finally:
            connection.close()
        return self._judged(answer.status, nonce, text, signature)

    def _judged(self, status: int, nonce: str, body: bytes, signature: str) -> Any:
        if not same(sign_answer(self.key, nonce, status, body), signature):
            raise BridgeError(f"an answer the agent did not sign (HTTP {status})", sent=True)
        try:
            told = json.loads(body)
            if status == 200:
                return told
            code, is_answer = str(told["code"]), told.get("is_answer") is True
            refusal = BridgeRefusal(code, str(told["detail"]), is_answer=is_answer)
        except (ValueError, KeyError, TypeError) as error:
            raise BridgeError(f"an unreadable answer (HTTP {status})", sent=True) from error
        if status in (400, 401):
            raise refusal
        raise BridgeError(f"HTTP {status}: {refusal}", sent=True)

    def _connect(self, seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_SECONDS, context=self._trust()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            self._check_certificate(connection)
            connection.sock.settimeout(seconds)
        except OSError as error:
            connection.close()
            raise BridgeError(f"no connection: {type(error).__name__}", sent=False) from error
        return connection

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.fingerprint:
            # the pin below takes the authorities' place
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _check_certificate(self, connection: http.client.HTTPConnection) -> None:
        if not self.fingerprint or not isinstance(connection.sock, ssl.SSLSocket):
            return
        shown = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest()
        if not same(shown, self.fingerprint.replace(":", "").lower()):
            connection.close()
            raise BridgeError("the agent shows another certificate than the pinned one", sent=False)
