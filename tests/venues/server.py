"""A small threaded HTTP/1.1 server: keep-alive, no framework, and able to break off on purpose."""

from __future__ import annotations

import socketserver
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

from tests.venues.venue import BODY_LIMIT, Answer, Request

LINE_LIMIT = 65_536
Handler = Callable[[Request], Answer]


class BadRequest(Exception):
    """The bytes received are not an HTTP request this server reads."""


class Connection(socketserver.StreamRequestHandler):
    """Serves the requests of one connection, one after the other."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            while self._serve():
                pass
        except (ConnectionError, BadRequest):
            return

    def _serve(self) -> bool:
        line = self.rfile.readline(LINE_LIMIT)
        if not line:
            return False
        words = line.decode("latin-1").split()
        if len(words) != 3:
            raise BadRequest
        method, target, version = words
        headers = self._headers()
        request = self._request(method, target, headers)
        answer = cast(VenueServer, self.server).answer(request)
        if answer.dropped:
            return False
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return self._send(answer, keep) and keep

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(LINE_LIMIT).decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return headers

    def _request(self, method: str, target: str, headers: dict[str, str]) -> Request:
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdigit() or int(length) > BODY_LIMIT:
            raise BadRequest
        body = self.rfile.read(int(length)).decode()
        path, _, query = target.partition("?")
        return Request(method, path, query, headers, body)

    def _send(self, answer: Answer, keep: bool) -> bool:
        """Send an answer; False when it was broken off."""
        phrase = HTTPStatus(answer.status).phrase
        head = [
            f"HTTP/1.1 {answer.status} {phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            f"Connection: {'keep-alive' if keep else 'close'}",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        body = answer.body if answer.sent is None else answer.body[: answer.sent]
        self.wfile.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        return answer.sent is None


class VenueServer(socketserver.ThreadingTCPServer):
    """Listens on loopback unless told otherwise; one daemon thread per connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, port: int, answer: Handler, address: str = "127.0.0.1") -> None:
        super().__init__((address, port), Connection)
        self.answer = answer

    @property
    def port(self) -> int:
        return int(self.server_address[1])
