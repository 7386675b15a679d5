"""The gate over real sockets: slow, cut, oversized and smuggled requests, and a server under load."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from django.utils.http import parse_header_parameters

from tests.e2e.product import ROOT, eventually, free_port
from tests.fks_site.gated import BODY_SECONDS

HOST = b"Host: fks\r\n"


@pytest.fixture(scope="module")
def slow_ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file whose coming ends ``/slow``."""
    return tmp_path_factory.mktemp("gate") / "slow ends"


@pytest.fixture(scope="module")
def port(slow_ends: Path) -> Iterator[int]:
    number = free_port()
    command = [*(sys.executable, "-m", "granian", "tests.fks_site.gated:application")]
    command += ["--interface", "asginl", "--no-ws", "--http", "1", "--port", str(number)]
    command += ["--backpressure", "400", "--http1-header-read-timeout", "2000"]
    env = os.environ | {"FKS_TEST_GATE": str(slow_ends)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: _listens(number), seconds=60, what="the server listens")
            yield number
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def talk(port: int, request: bytes, *, leave: bool = False) -> bytes:
    """Everything the server says until it closes, or nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        if leave:
            return b""
        said = b""
        try:
            while piece := connection.recv(65_536):
                said += piece
                head, separator, body = said.partition(b"\r\n\r\n")
                if separator and f"content-length: {len(body)}".encode() in head.lower():
                    break
        except (TimeoutError, ConnectionResetError):
            pass
        return said


def seen(port: int, request: bytes) -> dict[str, Any]:
    answer = talk(port, request)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def refusal(port: int, request: bytes) -> tuple[int, str]:
    answer = talk(port, request)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"] if body else ""


class TestWhole:
    def test_a_request_as_wsgi_has_it(self, port: int) -> None:
        environ = seen(
            port,
            b"POST /a%2Fb%FF/%00?q=%ff&x HTTP/1.1\r\n" + HOST + b"Content-Type: text/plain\r\n"
            b"X-One: 1\r\nX-One: 2\r\nCookie: a=1\r\nCookie: b=2\r\nContent-Length: 2\r\n\r\nhi",
        )

        assert (environ["REQUEST_METHOD"], environ["body"]) == ("POST", "hi")
        assert environ["PATH_INFO"] == "/a/b\xff/\x00"
        assert environ["QUERY_STRING"] == "q=%ff&x"
        assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "2")
        assert (environ["HTTP_X_ONE"], environ["HTTP_COOKIE"]) == ("1,2", "a=1; b=2")
        assert environ["REMOTE_ADDR"] == "127.0.0.1"

    def test_a_body_in_chunks_has_a_length_afterwards(self, port: int) -> None:
        environ = seen(
            port,
            b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
            b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        )

        assert (environ["body"], environ["CONTENT_LENGTH"]) == ("abc", "3")

    def test_a_head_request_has_no_body(self, port: int) -> None:
        request = b"HEAD / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        head, _, body = talk(port, request).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 200 OK")
        assert body == b""

    def test_an_application_that_fails_answers_500_and_goes_on(self, port: int) -> None:
        assert talk(port, b"GET /broken HTTP/1.1\r\n" + HOST + b"\r\n").startswith(b"HTTP/1.1 500")
        assert seen(port, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")["PATH_INFO"] == "/"


class TestContentType:
    @pytest.mark.parametrize(
        "content_type",
        [
            b"text/plain; charset*=nope'en'x",
            b"text/plain; x*=a; x*0=b",
            b"application/json; x*0*=a'b'c",
        ],
    )
    def test_one_that_django_fails_over_is_dropped(self, port: int, content_type: bytes) -> None:
        """It fails before a view is asked; among alerts that are answered together, for all."""
        with pytest.raises((ValueError, TypeError)):
            parse_header_parameters(content_type.decode())

        environ = seen(
            port, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Type: " + content_type + b"\r\n\r\n"
        )

        assert "CONTENT_TYPE" not in environ

    def test_two_are_no_way_around(self, port: int) -> None:
        environ = seen(
            port,
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Type: text/plain\r\n"
            b"Content-Type: ;charset*=nope'en'x\r\n\r\n",
        )

        assert environ["CONTENT_TYPE"] == "text/plain"


class TestSmuggling:
    def test_an_underscore_does_not_pass_for_a_hyphen(self, port: int) -> None:
        environ = seen(
            port,
            b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-For: 6.6.6.6\r\n"
            b"X_Forwarded_For: 52.89.214.238\r\nX-Forwarded_For: 52.89.214.238\r\n\r\n",
        )

        assert environ["HTTP_X_FORWARDED_FOR"] == "6.6.6.6"

    def test_a_header_that_is_no_ascii_is_not_lost(self, port: int) -> None:
        """A lost ``X-Forwarded-For`` would make the client look like the proxy."""
        environ = seen(
            port, b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-For: \xff, 6.6.6.6\r\n\r\n"
        )

        assert environ["HTTP_X_FORWARDED_FOR"] == "\xff, 6.6.6.6"

    @pytest.mark.parametrize(
        "headers",
        [
            b"Host: other\r\n",
            b"Content-Length: 2\r\nContent-Length: 3\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 2, 2\r\n",
            b"Content-Length: +2\r\n",
            b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n",
            b"X-Forwarded-For : 1.2.3.4\r\n",
            b"X-Bare\rX-Return: 1\r\n",
            b" folded: 1\r\n",
        ],
        ids=lambda text: text.decode(),
    )
    def test_what_two_servers_could_read_differently_is_refused(
        self, port: int, headers: bytes
    ) -> None:
        assert refusal(port, b"POST / HTTP/1.1\r\n" + HOST + headers + b"\r\nab")[0] == 400

    def test_chunks_win_over_a_length_and_the_connection_ends(self, port: int) -> None:
        answer = talk(
            port,
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n1\r\na\r\n0\r\n\r\nGET /second HTTP/1.1\r\n" + HOST + b"\r\n",
        )

        assert b'"body": "a"' in answer
        assert b"connection: close" in answer.lower()
        assert b"/second" not in answer


class TestTooMuch:
    @pytest.mark.parametrize("path", [b"/small", b"/small/er"])
    def test_a_declared_length_over_the_limit_is_not_waited_for(
        self, port: int, path: bytes
    ) -> None:
        head = b"POST " + path + b" HTTP/1.1\r\n" + HOST
        assert refusal(port, head + b"Content-Length: 11\r\n\r\n") == (413, "TOO_LARGE")
        assert seen(port, head + b"Content-Length: 10\r\n\r\n0123456789")["body"] == "0123456789"

    def test_chunks_are_counted(self, port: int) -> None:
        head = b"POST /small HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

        assert refusal(port, head + b"6\r\n012345\r\n" * 2) == (413, "TOO_LARGE")
        assert seen(port, head + b"a\r\n0123456789\r\n0\r\n\r\n")["body"] == "0123456789"

    def test_every_path_has_its_own_limit(self, port: int) -> None:
        body = b"x" * 200_000
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: "

        assert len(seen(port, head + b"200000\r\n\r\n" + body)["body"]) == 200_000
        assert refusal(port, head + b"200001\r\n\r\n") == (413, "TOO_LARGE")


class TestCutOff:
    @pytest.mark.parametrize(
        "rest",
        [
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nZZ\r\nc\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nab",
            b"Content-Length: 10\r\n\r\nab",
        ],
        ids=["broken chunk", "cut chunk", "cut body"],
    )
    def test_half_a_body_reaches_nobody(self, port: int, rest: bytes) -> None:
        request = b"POST /half HTTP/1.1\r\n" + HOST + rest
        with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65_536)

        assert b"/half" not in answer
        assert not answer.startswith(b"HTTP/1.1 200")


class TestSlow:
    @pytest.mark.alone
    def test_a_body_that_does_not_come_is_answered_408(self, port: int) -> None:
        started = time.monotonic()
        head = b"POST / HTTP/1.1\r\n" + HOST

        assert refusal(port, head + b"Content-Length: 9\r\n\r\na") == (408, "TOO_SLOW")
        assert BODY_SECONDS - 0.1 < time.monotonic() - started < 2 * BODY_SECONDS

    @pytest.mark.alone
    def test_dribbling_does_not_lengthen_the_time(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 999\r\n\r\n")
            started = time.monotonic()
            connection.settimeout(0.2)
            answer = b""
            while not answer and time.monotonic() - started < 10:
                try:
                    answer = connection.recv(65_536)
                except TimeoutError:
                    connection.sendall(b"a")

        assert answer.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 2 * BODY_SECONDS

    @pytest.mark.alone
    @pytest.mark.parametrize(
        "begun", [b"", b"POST / HTTP/1.1\r\nHost: f", b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"]
    )
    def test_a_slow_head_and_an_idle_connection_are_closed(self, port: int, begun: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(begun)
            started = time.monotonic()
            while connection.recv(65_536):
                pass

        assert 1.5 < time.monotonic() - started < 5

    @pytest.mark.alone
    def test_200_stalled_bodies_delay_nobody(self, port: int) -> None:
        with ExitStack() as stack:
            for number in range(200):
                stalled = socket.create_connection(("127.0.0.1", port), timeout=5)
                stack.enter_context(closing(stalled))
                kind = b"Content-Length: 9" if number % 2 else b"Transfer-Encoding: chunked"
                stalled.sendall(b"POST / HTTP/1.1\r\n" + HOST + kind + b"\r\n\r\n1\r\n")
            slowest = 0.0
            for _ in range(20):
                started = time.monotonic()
                assert seen(port, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx")
                slowest = max(slowest, time.monotonic() - started)

        assert slowest < BODY_SECONDS - 0.1, "answered before the stalled ones ran out of time"

    def test_more_than_can_wait_are_told_to_come_again(self, port: int, slow_ends: Path) -> None:
        statuses: list[int] = []

        def ask(_: int) -> None:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("GET", "/slow")
                response = connection.getresponse()
                body = json.loads(response.read())
                if response.status == 503:
                    assert body["code"] == "OVERLOADED"
                    assert response.headers["Retry-After"] == "1"
                statuses.append(response.status)

        with ThreadPoolExecutor(10) as pool:
            asked = [pool.submit(ask, number) for number in range(10)]
            try:
                eventually(lambda: len(statuses) == 6, seconds=30, what="six are sent away")
            finally:
                slow_ends.touch()
            for one in asked:
                one.result()

        assert Counter(statuses) == {200: 4, 503: 6}
