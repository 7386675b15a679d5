"""One request leaves, once, and only a whole answer counts."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers import venue_http
from brokers.errors import HeldBackError, QueryFailedError
from brokers.limiter import Purpose
from brokers.types import Outcome
from brokers.venue_http import RefusedError, Reply, VenueHttp, before_words, exact_json

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def listening(answer: Callable[[Any], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server on loopback that reads one request per connection, and what it has read."""
    seen: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = []
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                lines.append(line)
            seen.append(b"".join(lines))
            answer(self)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def whole(body: bytes, status: bytes = b"200 OK", *more: bytes) -> Callable[[Any], None]:
    head = b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *more])

    def send(handler: Any) -> None:
        handler.wfile.write(head + b"\r\nConnection: close\r\n\r\n" + body)

    return send


@pytest.fixture
def http() -> Iterator[VenueHttp]:
    client = VenueHttp("Venue", {"X-Key": "canary-key"}, ("canary-key",), 1, None)
    yield client
    client.close()


def post(http: VenueHttp, url: str, **more: Any) -> Reply:
    return http.act("POST", url, {"qty": "1"}, Purpose.ORDER, **more)


def test_numbers_come_as_their_text(http: VenueHttp) -> None:
    body = b'{"price": 0.10, "id": 12345678901234567890, "small": 1e-9}'
    with listening(whole(body)) as (url, seen):
        assert http.ask(url) == {"price": "0.10", "id": "12345678901234567890", "small": "1e-9"}
    assert b"X-Key: canary-key" in seen[0]


@pytest.mark.alone
def test_an_answer_that_drips_ends_in_time(http: VenueHttp) -> None:
    def drip(handler: Any) -> None:
        handler.wfile.write(HEAD + b"Content-Length: 100\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)

    with listening(drip) as (url, seen):
        started = time.monotonic()
        reply = post(http, url)
        assert time.monotonic() - started < 3
    assert (reply.sent, reply.status, len(seen)) == (True, None, 1)
    verdict = before_words(reply)
    assert verdict is not None
    assert verdict.outcome is Outcome.UNKNOWN


def test_an_answer_without_end_is_none(http: VenueHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venue_http, "BODY_LIMIT", 1000)
    with listening(whole(b"x" * 100_000)) as (url, seen):
        assert post(http, url) == Reply(True, failure="_TooMuchError")
    assert len(seen) == 1


@pytest.mark.parametrize("status", [b"301 Moved", b"307 Temporary", b"308 Permanent"])
def test_no_redirect_is_followed(http: VenueHttp, status: bytes) -> None:
    with listening(whole(b"{}", status, b"Location: /elsewhere")) as (url, seen):
        reply = post(http, url)
    assert (reply.sent, len(seen)) == (True, 1)
    assert reply.status == int(status[:3])


@pytest.mark.parametrize(
    "cut", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{", b"nonsense\r\n\r\n"]
)
def test_a_cut_answer_is_unknown_and_never_repeated(http: VenueHttp, cut: bytes) -> None:
    with listening(lambda handler: handler.wfile.write(cut)) as (url, seen):
        reply = post(http, url)
    assert (reply.sent, reply.status, len(seen)) == (True, None, 1)


def test_no_listener_proves_that_nothing_left(http: VenueHttp) -> None:
    with listening(whole(b"{}")) as (url, _):
        pass
    reply = post(http, url)
    assert (reply.sent, reply.failure) == (False, "ConnectError")
    verdict = before_words(reply)
    assert verdict is not None
    assert (verdict.outcome, verdict.retry_after) == (Outcome.NOT_SENT, 1)


def test_nothing_leaves_after_the_claim_ended(http: VenueHttp) -> None:
    with listening(whole(b"{}")) as (url, seen):
        reply = post(http, url, send_before=datetime.now(UTC) - timedelta(seconds=1))
    assert (reply.sent, reply.retry_after, seen) == (False, 1, [])


class Full:
    """A limiter without room."""

    def wait(self, *_: object) -> int:
        return 9


def test_nothing_leaves_while_the_venue_was_asked_enough() -> None:
    http = VenueHttp("Venue", {}, (), 1, Full())  # type: ignore[arg-type]
    with listening(whole(b"{}")) as (url, seen):
        reply = post(http, url)
        assert (reply.sent, reply.code, reply.retry_after) == (False, "RATE_LIMITED", 9)
        verdict = before_words(reply)
        assert verdict is not None
        assert (verdict.outcome, verdict.held_back) == (Outcome.NOT_SENT, True)
        with pytest.raises(HeldBackError) as full:
            http.ask(url)
    assert (full.value.code, seen) == ("RATE_LIMITED", [])


class Told:
    """A limiter that remembers what it was told."""

    def __init__(self) -> None:
        self.waits: list[tuple[int, int | None]] = []

    def wait(self, *_: object) -> int:
        return 0

    def told_to_wait(self, status: int, seconds: int | None) -> None:
        self.waits.append((status, seconds))


@pytest.mark.parametrize(
    ("status", "header", "told"),
    [
        (b"429 Too Many", b"Retry-After: 9", [(429, 9)]),
        (b"429 Too Many", b"X-Other: 9", [(429, None)]),
        (b"200 OK", b"Retry-After: 9", []),
        (b"503 Busy", b"Retry-After: 9", []),
    ],
)
def test_the_limiter_hears_how_long_the_venue_wants_to_be_left_alone(
    status: bytes, header: bytes, told: list[tuple[int, int | None]]
) -> None:
    limiter = Told()
    http = VenueHttp("Venue", {}, (), 1, limiter)  # type: ignore[arg-type]
    with listening(whole(b"{}", status, header)) as (url, seen):
        reply = post(http, url)
    assert (limiter.waits, len(seen)) == (told, 1)
    verdict = before_words(reply)
    if status == b"429 Too Many":
        assert verdict is not None
        assert (verdict.outcome, verdict.code) == (Outcome.UNKNOWN, "RATE_LIMITED")
        assert verdict.retry_after == reply.retry_after == told[0][1]


def test_a_question_is_asked_three_times_and_a_refusal_once(http: VenueHttp) -> None:
    with listening(whole(b"{}", b"503 Busy")) as (url, seen), pytest.raises(QueryFailedError):
        http.ask(url)
    assert len(seen) == 3
    told = b'{"message": "no canary-key"}'
    with (
        listening(whole(told, b"422 No")) as (url, seen),
        pytest.raises(RefusedError) as refused,
    ):
        http.ask(url)
    assert (len(seen), str(refused.value)) == (1, "Venue: HTTP 422 no ***")


def test_closing_cuts_nothing_that_is_under_way(http: VenueHttp) -> None:
    """An account is saved while an order of it leaves, and the venue answers later."""
    arrived, may_answer, ended = threading.Event(), threading.Event(), threading.Event()

    def answer(handler: Any) -> None:
        arrived.set()
        assert may_answer.wait(10)
        handler.wfile.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
        handler.rfile.read()
        ended.set()

    replies: list[Reply] = []
    with listening(answer) as (url, seen):
        http._patience = 10
        placing = threading.Thread(target=lambda: replies.append(post(http, url)))
        placing.start()
        assert arrived.wait(10)
        http.close()
        may_answer.set()
        placing.join(10)
        assert ended.wait(10), "its connection is closed once nobody needs it"
    assert [(one.sent, one.status, one.body) for one in replies] == [(True, 200, "{}")]
    assert len(seen) == 1


def test_after_closing_it_opens_anew(http: VenueHttp) -> None:
    with listening(whole(b"{}")) as (url, seen):
        http.ask(url)
        http.close()
        http.ask(url)
    assert len(seen) == 2


def test_decimals_leave_as_exact_numbers() -> None:
    value = {"price": Decimal("0.10"), "big": Decimal("1E+3"), "size": 2, "legs": [{"a": None}]}
    assert exact_json(value) == '{"price":0.1,"big":1000,"size":2,"legs":[{"a":null}]}'


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
def test_no_digit_of_a_number_is_lost_on_the_way(value: Decimal) -> None:
    assert json.loads(
        exact_json([value, {"x": value}]), parse_float=Decimal, parse_int=Decimal
    ) == [
        value,
        {"x": value},
    ]
