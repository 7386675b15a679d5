"""HTTP to a broker without an SDK: questions, which may be asked again, and acts, which never are.

One request leaves per ``act``, with every timeout named, no redirect followed and no retry below it;
what was seen of it comes back as a ``Reply`` and is judged by the plugin. httpx is used because it
tells "never connected" from "cut afterwards" by the class of its errors.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from brokers.decimals import decimal_text
from brokers.errors import (
    BrokerError,
    CredentialError,
    HeldBackError,
    LoginNeededError,
    QueryFailedError,
)
from brokers.limiter import Limiter, Purpose
from brokers.outcome import SOON, THROTTLE_STATUSES, Verdict, throttled, unknown
from brokers.patience import seconds_asked
from brokers.timing import LOOPBACK
from brokers.types import Outcome, TokenSource

if TYPE_CHECKING:
    import httpx

BODY_LIMIT = 16 << 20
BODY_HEAD = 2000
CONNECTING = 3
"""Seconds for a connection: an order must not leave long after its claim was looked at."""
ASK_TRIES = 3
ASK_PAUSE = 0.2
PASSING = frozenset({500, 502, 503, 504})
"""Statuses after which a question is asked again."""
NOT_PASSING = frozenset({"RATE_LIMITED", CredentialError.code, LoginNeededError.code})
"""Why nothing was sent, where asking again at once cannot help."""
UNAUTHORIZED = 401
BEARER = "Bearer "
TOKENS_REMEMBERED = 3
NEVER_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""Classes of httpx that prove that no byte of the request left."""
MASK = "***"


@dataclass(frozen=True, slots=True)
class Reply:
    """What was seen of one request.

    ``sent`` is false only with proof; ``status`` and ``body`` are there only once the whole answer
    was. ``failure`` names what went wrong on the way; ``code`` says why nothing was sent. ``location``
    is the header of that name.
    """

    sent: bool
    status: int | None = None
    body: str = ""
    retry_after: int | None = None
    failure: str = ""
    code: str = "VENUE_UNREACHABLE"
    location: str = ""
    held_back: bool = False

    def json(self) -> Any:
        """The answer with every number as its text; ``None`` when it is no JSON."""
        try:
            return json.loads(self.body, parse_float=str, parse_int=str)
        except ValueError:
            return None

    def member(self, name: str) -> Any:
        """A member of an answer that is an object; ``None`` where there is none."""
        answer = self.json()
        return answer.get(name) if isinstance(answer, dict) else None


class RefusedError(QueryFailedError):
    """The venue answered a question with a refusal in its own words."""

    def __init__(self, label: str, reply: Reply, said: str) -> None:
        code = CredentialError.code if reply.status in (401, 403) else None
        super().__init__(f"{label}: HTTP {reply.status} {said}".rstrip(), code=code)
        self.reply = reply
        self.is_answer = code is None


class _TooMuchError(Exception):
    """The answer did not end within its time or size."""


def exact_json(value: Any) -> str:
    """``value`` as JSON; a Decimal becomes a number with all its digits, never by way of a float."""
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, Mapping):
        members = (f"{json.dumps(name)}:{exact_json(one)}" for name, one in value.items())
        return f"{{{','.join(members)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(exact_json, value))}]"
    return json.dumps(value)


class VenueHttp:
    """The connections of one account to one venue; safe for threads and for a fork."""

    def __init__(
        self,
        label: str,
        headers: Mapping[str, str],
        secrets: tuple[str, ...],
        patience: int,
        limiter: Limiter | None,
        tokens: TokenSource | None = None,
    ) -> None:
        """``patience``: seconds for each wait on the socket, and for the whole of an answer.

        ``tokens``: where the access token of each request comes from, if it needs one.
        """
        self.label = label
        self._headers = dict(headers)
        self._own_secrets = tuple(secret for secret in secrets if secret)
        self._passing: tuple[str, ...] = ()
        self._secrets = self._own_secrets
        self._patience = patience
        self._limiter = limiter
        self._tokens = tokens
        self._lock = threading.Lock()
        self._clients: dict[tuple[int, bool], httpx.Client] = {}
        self._users: Counter[tuple[int, bool]] = Counter()
        self._is_closed = False

    def ask(self, url: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON of an answer with status 200, numbers as text; asked again after a bad moment.

        Raises RefusedError when the venue said no, QueryFailedError when nobody knows,
        LoginNeededError when somebody must log in first.
        """
        return self._asked("GET", url, params, None)

    def ask_by_post(self, url: str, body: Mapping[str, Any]) -> Any:
        """As ``ask``, where a venue takes its questions as POST. Never for what changes anything."""
        return self._asked("POST", url, None, body)

    def _asked(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> Any:
        reply = Reply(sent=False)
        for attempt in range(ASK_TRIES):
            if attempt:
                time.sleep(ASK_PAUSE)
            reply = self._request(method, url, params, body, Purpose.READ)
            if reply.status is not None and reply.status not in PASSING:
                break
            if reply.code in NOT_PASSING:
                break
        return self._answer(reply)

    def _answer(self, reply: Reply) -> Any:
        if reply.held_back:
            raise HeldBackError(f"{self.label}: {reply.failure}")
        if reply.status in THROTTLE_STATUSES or reply.code == "RATE_LIMITED":
            raise QueryFailedError(f"{self.label}: asked too often", code="RATE_LIMITED")
        for kind in (CredentialError, LoginNeededError):
            if reply.code == kind.code:
                raise kind(reply.failure)
        answer = reply.json()
        if reply.status == 200 and isinstance(answer, dict | list):
            return answer
        if reply.status is None or reply.status >= 500 or not isinstance(answer, dict):
            seen = f"HTTP {reply.status}" if reply.status else f"no answer ({reply.failure})"
            raise QueryFailedError(f"{self.label}: {seen}")
        said = answer.get("message") or answer.get("errorMessage") or ""
        raise RefusedError(self.label, reply, self.scrub(str(said)))

    def act(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        purpose: Purpose,
        send_before: datetime | None = None,
    ) -> Reply:
        """Send one request, once. Never raises for anything the venue or network does."""
        return self._request(method, url, None, body, purpose, send_before)

    def _request(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        purpose: Purpose,
        send_before: datetime | None = None,
    ) -> Reply:
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            headers |= self._authorisation()
        except BrokerError as error:
            again = 1 if isinstance(error, QueryFailedError) else None
            return Reply(False, retry_after=again, failure=str(error), code=error.code)
        held_back = self._held_back(purpose, method, url, send_before)
        if held_back is not None:
            return held_back
        import httpx

        content = None if body is None else exact_json(body).encode()
        try:
            with (
                self._lent(loopback=urlsplit(url).hostname in LOOPBACK) as client,
                client.stream(
                    method, url, params=params, content=content, headers=headers
                ) as response,
            ):
                text = self._read(response)
        except (httpx.HTTPError, _TooMuchError) as error:
            name = type(error).__name__
            if name in NEVER_CONNECTED:
                return Reply(False, retry_after=SOON, failure=name)
            return Reply(True, failure=name)
        patience = seconds_asked(response.headers)
        if response.status_code in THROTTLE_STATUSES and self._limiter is not None:
            self._limiter.told_to_wait(response.status_code, patience)
        if response.status_code == UNAUTHORIZED and self._tokens is not None:
            self._tokens.refused(headers["Authorization"].removeprefix(BEARER))
        location = response.headers.get("Location", "")
        return Reply(True, response.status_code, text, patience, location=location)

    def _authorisation(self) -> dict[str, str]:
        """The header with the access token, which is scrubbed from now on. Raises LoginNeededError
        or QueryFailedError."""
        if self._tokens is None:
            return {}
        token = self._tokens.token()
        if token not in self._secrets:
            with self._lock:
                self._passing = (*self._passing, token)[-TOKENS_REMEMBERED:]
                self._secrets = self._own_secrets + self._passing
        return {"Authorization": f"{BEARER}{token}"}

    def _held_back(
        self, purpose: Purpose, method: str, url: str, send_before: datetime | None
    ) -> Reply | None:
        """Why nothing may leave now; ``None`` when it may."""
        path = urlsplit(url).path
        wait = 0 if self._limiter is None else self._limiter.wait(purpose, method, path)
        if wait:
            return Reply(
                False,
                retry_after=wait,
                failure="asked enough for now",
                code=HeldBackError.code,
                held_back=True,
            )
        if send_before is not None and datetime.now(UTC) >= send_before:
            late = "the claim on this order ended before it could be sent"
            return Reply(False, retry_after=1, failure=late)
        return None

    def _read(self, response: httpx.Response) -> str:
        """The whole body; an answer that drips or never ends is none."""
        deadline, parts, size = time.monotonic() + self._patience, [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > BODY_LIMIT or time.monotonic() > deadline:
                raise _TooMuchError
        return b"".join(parts).decode(errors="replace")

    @contextmanager
    def _lent(self, *, loopback: bool) -> Iterator[httpx.Client]:
        """A client that is closed under nobody's hands. One per process: connections shared over a fork
        would mix up answers. A venue on this machine is never reached through a proxy."""
        key = (os.getpid(), loopback)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._connect(loopback=loopback)
            client = self._clients[key]
            self._users[key] += 1
        try:
            yield client
        finally:
            with self._lock:
                self._users[key] -= 1
            if self._is_closed:
                self._close_unused()

    def _connect(self, *, loopback: bool) -> httpx.Client:
        import httpx

        return httpx.Client(
            headers=self._headers,
            timeout=httpx.Timeout(
                self._patience,
                connect=min(self._patience, CONNECTING),
                pool=min(self._patience, CONNECTING),
            ),
            follow_redirects=False,
            trust_env=not loopback,
        )

    def close(self) -> None:
        """Close what is idle now, and what is in use, or opened anew, once its request has ended."""
        self._is_closed = True
        self._close_unused()

    def _close_unused(self) -> None:
        with self._lock:
            mine = [key for key in self._clients if key[0] == os.getpid()]
            unused = [self._clients.pop(key) for key in mine if not self._users[key]]
        for client in unused:
            client.close()

    def scrub(self, text: str) -> str:
        """``text`` without the account's secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def evidence(
        self, method: str, url: str, body: Mapping[str, Any] | None, reply: Reply
    ) -> dict[str, Any]:
        """What was seen of one act, ready for JSON, without secrets."""
        return {
            "sent": reply.sent,
            "request": {
                "method": method,
                "path": urlsplit(url).path,
                "fields": json.loads(exact_json(body or {}), parse_float=str),
            },
            "status": reply.status,
            "body": self.scrub(reply.body[:BODY_HEAD]),
        }


def before_words(reply: Reply) -> Verdict | None:
    """The end of a placement that the venue said nothing readable about; ``None`` when it spoke.

    NOT_SENT needs proof that nothing left; all else may be at the venue.
    """
    if not reply.sent:
        failure, again = reply.failure, reply.retry_after
        return Verdict(Outcome.NOT_SENT, reply.code, failure, again, reply.held_back)
    if reply.status is None:
        return unknown("no answer", reply.failure)
    if reply.status in THROTTLE_STATUSES:
        return throttled(f"HTTP {reply.status}", reply.retry_after)
    if reply.status >= 500 or reply.status == 408 or not isinstance(reply.json(), dict):
        return unknown(f"HTTP {reply.status}")
    return None


def token_refused(said: str) -> Verdict:
    """A placement whose access token the venue did not take: 401 says that the request "has not been
    applied" (RFC 9110, 15.5.2). It leaves with the token that replaces this one; whether there is one
    to be had, the source of the tokens says.
    """
    said = f"HTTP {UNAUTHORIZED} {said}".rstrip()
    return Verdict(Outcome.NOT_SENT, CredentialError.code, said, SOON)
