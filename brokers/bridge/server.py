"""The agent's HTTP side: signed POSTs in, signed JSON out, nothing else.

200 carries a result. 400 says in signed words why nothing was done. 401 is for strangers. 500 means
that the agent itself does not know how far it came.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from brokers.bridge.codec import CodecError
from brokers.bridge.listening import check_address
from brokers.bridge.service import Service
from brokers.bridge.settings import Settings
from brokers.bridge.signing import Doorkeeper, NotNowError, SignatureError, sign_answer
from brokers.errors import BrokerError, NotShownError

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024
PATIENCE = 10
"""Seconds a connection may stay silent."""
MOST_CONNECTIONS = 64


class BridgeServer(ThreadingHTTPServer):
    """Listens where `listening` allows it. Raises OpenDoorError or OSError."""

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, settings: Settings, service: Service) -> None:
        context = settings.tls()
        check_address(settings.host, tls=context is not None, vpn=True)
        if ":" in settings.host:
            self.address_family = socket.AF_INET6
        self.service = service
        self.key = settings.key
        self.doorkeeper = Doorkeeper(settings.key, time.time)
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((settings.host, settings.port), _Handler)
        if context is not None:
            # the handshake happens in the connection's own thread: a silent stranger blocks nobody
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.warning("a connection from %s broke: %s", client_address[0], sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    server: BridgeServer
    protocol_version = "HTTP/1.1"
    server_version = "fks-bridge"
    sys_version = ""
    timeout = PATIENCE
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self._send(413, b"", "")
            return
        body = self.rfile.read(int(length))
        nonce = self.headers.get("X-Bridge-Nonce", "")
        try:
            self.server.doorkeeper.admit(
                self.path,
                self.headers.get("X-Bridge-Time", ""),
                nonce,
                self.headers.get("X-Bridge-Signature", ""),
                body,
            )
        except SignatureError as error:
            logger.warning("refused a request from %s: %s", self.client_address[0], error)
            passes = isinstance(error, NotNowError)
            code = "VENUE_UNREACHABLE" if passes else "CREDENTIALS_REFUSED"
            self._answer(401, nonce, {"code": code, "detail": str(error)})
            return
        status, answer = self._answered(body)
        self._answer(status, nonce, answer)

    def _answered(self, body: bytes) -> tuple[int, Any]:
        try:
            told = json.loads(body, parse_float=_no_float, parse_constant=_no_float)
            if not isinstance(told, dict):
                raise CodecError("the request is not an object")
            return 200, self.server.service.answer(self.path.removeprefix("/v1/"), told)
        except BrokerError as error:
            is_answer = isinstance(error, NotShownError)
            return 400, {"code": error.code, "detail": str(error), "is_answer": is_answer}
        except (CodecError, ValueError) as error:
            return 400, {"code": "NOT_SUPPORTED", "detail": f"unreadable request: {error}"}
        except Exception:
            # The last line: an agent that cannot say what happened says exactly that.
            logger.exception("answering %s raised", self.path)
            return 500, {"code": "INTERNAL_ERROR", "detail": "see the agent's log"}

    def _answer(self, status: int, nonce: str, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self._send(status, body, sign_answer(self.server.key, nonce, status, body))

    def _send(self, status: int, body: bytes, signature: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Bridge-Signature", signature)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def _no_float(text: str) -> Any:
    raise CodecError(f"{text} is a number outside a text")
