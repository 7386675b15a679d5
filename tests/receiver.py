"""A service on loopback that takes notifications, as any web hook does."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

TOKEN = "canary-token-73fe"


class Receiver:
    """A web hook on loopback: what was posted to it and when (Unix time), and what it answers."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.times.append(time.time())
                outer.bodies.append(json.loads(body))
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(b"no")

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://127.0.0.1:{self.server.server_port}/{TOKEN}"

    def told_at(self, words: str) -> float | None:
        """When the first message with ``words`` in it came."""
        for at, body in zip(self.times, list(self.bodies), strict=False):
            if words in f"{body['title']}\n{body['message']}":
                return at
        return None


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


class Mailbox:
    """A mail server on loopback that keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                for line in self.rfile:
                    word = line[:4].upper().strip()
                    if word == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        mail = iter(self.rfile.readline, b".\r\n")
                        outer.mails.append(b"".join(mail).decode())
                    self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                    if word == b"QUIT":
                        break

        self.server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
        port = self.server.server_address[1]
        self.address = f"mailto://127.0.0.1:{port}?from=fks@mail.example&to=desk@mail.example"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    thread = threading.Thread(target=mailbox.server.serve_forever, daemon=True)
    thread.start()
    yield mailbox
    mailbox.server.shutdown()
    mailbox.server.server_close()
    thread.join()
