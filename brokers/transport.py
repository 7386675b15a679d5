"""The gate every request to an exchange passes, and the record of what went through it.

Exchange libraries translate options they do not know into silence or into another order. So nothing
leaves unless its destination, its endpoint and, for an order, each of its fields is what was meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from brokers.errors import BrokerError
from brokers.exchanges import Endpoint, ExchangeProfile
from brokers.limiter import Limiter, Purpose
from brokers.outcome import THROTTLE_STATUSES, VenueError
from brokers.patience import BANNED, seconds_asked

ErrorReader = Callable[[str], VenueError | None]
"""Reads the venue's own error from the body of an answer, where it is one."""
Wire = Mapping[str, str | Decimal]
"""The fields an order request must carry: exact text, or a number in plain notation.

Fields inside a JSON body are named by their path: ``order.0.price``.
"""


@dataclass(frozen=True, slots=True)
class LooseWire:
    """What an order to an unverified venue must carry somewhere, whatever the fields are called."""

    client_id: str
    numbers: tuple[Decimal, ...]


PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
SIGNATURE = re.compile(r"(signature=)[^&\s\"']+", re.IGNORECASE)
BODY_HEAD = 2000
MASK = "***"


class RequestRefusedError(BrokerError):
    """A request was not what was meant and did not leave."""

    code = "INTERNAL_ERROR"


def origin(url: str) -> str:
    """Scheme, host and port of ``url``."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class ThrottledError(RequestRefusedError):
    """A request did not leave because the exchange has been asked enough for now."""

    code = "RATE_LIMITED"

    def __init__(self, label: str, seconds: int) -> None:
        super().__init__(f"{label} has been asked enough for now; again in {seconds} s")
        self.seconds = seconds


class TooLateError(RequestRefusedError):
    """An order did not leave because the claim on it had ended."""

    code = "VENUE_UNREACHABLE"


@dataclass(slots=True)
class Attempt:
    """One write (an order or a cancel): what it must look like and what was seen of it.

    ``sent`` turns true when a request is handed to the network; ``status`` and ``body`` stay
    empty until an answer arrived. ``wire`` is ``None`` for a cancel. ``left`` holds the endpoints
    not yet used, each good for one request; ``request`` is the method and path of the last one.
    """

    left: list[Endpoint]
    wire: Wire | LooseWire | None
    send_before: datetime | None = None
    is_cancel: bool = False
    sent: bool = False
    request: tuple[str, str] = ("", "")
    fields: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    body: str = ""
    retry_after: int | None = None


class Gate:
    """Lets out reads, and exactly the write that was announced; remembers the last answer."""

    def __init__(
        self,
        profile: ExchangeProfile,
        origins: frozenset[str],
        secrets: tuple[str, ...],
        limiter: Limiter | None = None,
        read_error: ErrorReader = lambda _: None,
    ) -> None:
        self.origins = origins
        self.forget()
        self._profile = profile
        self._limiter = limiter
        self._read_error = read_error
        self._attempt: Attempt | None = None
        self._has_room = False
        self._hidden = [
            form for secret in secrets if secret for form in {secret, quote(secret, safe="")}
        ]

    def forget(self) -> None:
        """What is remembered is of the questions from here on."""
        self.asked = ""
        self.status: int | None = None
        self.body = ""
        self.unreadable = False

    @contextmanager
    def announce(
        self,
        *endpoints: Endpoint,
        wire: Wire | LooseWire | None = None,
        send_before: datetime | None = None,
    ) -> Iterator[Attempt]:
        """Allow one request to each of ``endpoints`` within the block and before that moment,
        carrying ``wire`` if given.
        """
        cancels = set(endpoints) <= set(self._profile.cancel_endpoints) and wire is None
        self._attempt = Attempt(list(endpoints), wire, send_before, cancels)
        try:
            yield self._attempt
        finally:
            self._attempt = None

    def expect(self, wire: Wire) -> None:
        """Let the announced request leave only with these fields."""
        if self._attempt is not None:
            self._attempt.wire = wire

    @contextmanager
    def room(self, url: str, method: str) -> Iterator[None]:
        """Wait for the limits' room before a request, and not as it passes within the block.

        Raises ThrottledError.
        """
        path = urlsplit(url).path
        is_read = self._profile.reads(method, path)
        is_cancel = self._attempt is not None and self._attempt.is_cancel
        purpose = Purpose.CANCEL if is_cancel else Purpose.ORDER
        self._await_turn(Purpose.READ if is_read else purpose, method, path)
        self._has_room = True
        try:
            yield
        finally:
            self._has_room = False

    def inspect(self, url: str, method: str, body: str | None) -> None:
        """Called with every request before it leaves. Raises RequestRefusedError."""
        path = urlsplit(url).path
        self.asked, self.status, self.body = f"{method} {path}", None, ""
        if origin(url) not in self.origins:
            raise RequestRefusedError(f"{origin(url)} is not where this account talks to")
        if self._profile.reads(method, path):
            self._await_turn(Purpose.READ, method, path)
            return
        attempt = self._attempt
        fitting = [] if attempt is None else [e for e in attempt.left if e.fits(method, path)]
        if attempt is not None and not fitting and attempt.request == (method, path):
            raise RequestRefusedError("a second request of one attempt")
        if attempt is None or not fitting:
            raise RequestRefusedError(f"{method} {path} was not announced")
        attempt.fields = _fields(urlsplit(url).query, body)
        if isinstance(attempt.wire, LooseWire):
            _look_over(attempt.wire, attempt.fields)
        elif attempt.wire is not None:
            _compare(attempt.wire, attempt.fields, self._profile.order_extras)
        purpose = Purpose.CANCEL if attempt.is_cancel else Purpose.ORDER
        self._await_turn(purpose, method, path)
        if attempt.send_before is not None and datetime.now(UTC) >= attempt.send_before:
            raise TooLateError("the claim on this order ended before it could be sent")
        attempt.left.remove(fitting[0])
        attempt.request, attempt.sent = (method, path), True

    def or_else(self, question: Callable[[Any], Any], instead: Any) -> Callable[[Any], Any]:
        """``question``, with ``instead`` for the answer where the venue has only an error for it."""
        from ccxt import BaseError

        def ask(params: Any) -> Any:
            try:
                return question(params)
            except BaseError:
                if self.status is None:
                    raise
                return instead

        return ask

    def _await_turn(self, purpose: Purpose, method: str, path: str) -> None:
        if self._has_room or self._limiter is None:
            return
        seconds = self._limiter.wait(purpose, method, path)
        if seconds:
            raise ThrottledError(self._profile.label, seconds)

    def answered(
        self, url: str, method: str, status: int, headers: Mapping[str, str], body: str
    ) -> None:
        """Called with every answer, before anything is made of it."""
        self.status, self.body = status, body
        self.unreadable = self.unreadable or not _is_json(body)
        asked = seconds_asked(headers)
        if self._limiter is not None:
            self._rest(self._limiter, status, body, asked)
        attempt = self._attempt
        if attempt is not None and attempt.request == (method, urlsplit(url).path):
            attempt.status, attempt.body, attempt.retry_after = status, body, asked

    def _rest(self, limiter: Limiter, status: int, body: str, seconds: int | None) -> None:
        """Leave the venue alone where it says so, and only with this key where it counts by key."""
        profile = self._profile
        ban = profile.ban
        if ban is not None and ban.is_told(status, body[:BODY_HEAD]):
            limiter.told_to_wait(status, ban.seconds)
            return
        said = self._read_error(body) if len(body) < BODY_HEAD else None
        if status in THROTTLE_STATUSES or (said is not None and said.has(profile.throttled)):
            counted = said is not None and said.has(profile.throttled_key)
            limiter.told_to_wait(status, seconds, of_key=counted and status != BANNED)

    def scrub(self, text: str) -> str:
        """``text`` without the key, the secret and signatures."""
        for secret in self._hidden:
            text = text.replace(secret, MASK)
        return SIGNATURE.sub(rf"\1{MASK}", text)

    def evidence(self, attempt: Attempt) -> dict[str, Any]:
        """What was seen of ``attempt``, ready for JSON, without secrets."""
        fields = {k: self.scrub(v) for k, v in attempt.fields.items() if k != "signature"}
        method, path = attempt.request
        return {
            "sent": attempt.sent,
            "request": {"method": method, "path": path, "fields": fields},
            "status": attempt.status,
            "body": self.scrub(attempt.body[:BODY_HEAD]),
        }


def _is_json(body: str) -> bool:
    """Whether an answer is a whole JSON object or list."""
    try:
        return isinstance(json.loads(body), dict | list)
    except ValueError:
        return False


def _fields(query: str, body: str | None) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    if body and body.lstrip()[:1] in ("{", "["):
        said = json.loads(body, parse_float=str, parse_int=str, object_pairs_hook=_Pairs)
        pairs += _flat(said, "")
    else:
        pairs += parse_qsl(body or "", keep_blank_values=True)
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise RequestRefusedError("a field is in the request twice")
    return fields


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object as they were sent, repeated names included."""


def _flat(value: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(value, list) and value:
        named = value if isinstance(value, _Pairs) else [(str(i), v) for i, v in enumerate(value)]
        prefix = f"{path}." if path else ""
        return [pair for name, member in named for pair in _flat(member, f"{prefix}{name}")]
    if not path:
        return []
    return [(path, value if isinstance(value, str) else json.dumps(value))]


def _look_over(wire: LooseWire, fields: Mapping[str, str]) -> None:
    if wire.client_id not in fields.values():
        raise RequestRefusedError("the order would leave without its id")
    numbers = {Decimal(text) for text in fields.values() if PLAIN_NUMBER.fullmatch(text)}
    lacking = [number for number in wire.numbers if number not in numbers]
    if lacking:
        raise RequestRefusedError(f"the order would leave without its number {lacking[0]:f}")


def _compare(wire: Wire, fields: Mapping[str, str], extras: frozenset[str]) -> None:
    unmeant = fields.keys() - wire.keys() - extras
    if unmeant:
        raise RequestRefusedError(f"fields nobody meant to send: {', '.join(sorted(unmeant))}")
    for name, meant in wire.items():
        sent = fields.get(name, "")
        if isinstance(meant, Decimal):
            same = PLAIN_NUMBER.fullmatch(sent) is not None and Decimal(sent) == meant
        else:
            same = sent == meant
        if not same:
            raise RequestRefusedError(f"{name} would leave as {sent!r} instead of {str(meant)!r}")
