"""The gate of the web server: a request is read in the event loop, whole and in time, and only then
costs a thread. Whoever sends slowly, or never finishes, holds a connection and nothing else.

Django runs as before, over WSGI in threads of its own; see docs/adr/0006. Alerts have threads beside
those, which answer all that wait at once; see docs/adr/0042.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

THREADS = 8
BODY_SECONDS = 10.0
"""How long a body may take, from the end of the head to its last byte."""
MAX_WAITING = 256
"""Requests that were read and wait for a thread. More would be answered too late to be of use."""

Environ = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Answer]", dict[str, Any]]
Wsgi = Callable[[Environ, Any], Iterable[Any]]
_Settled = tuple["asyncio.Future[Answer]", Answer]


class Refused(Exception):
    """The request goes no further. ``headers`` go with the answer."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.body = json.dumps({"code": code, "detail": detail}, separators=(",", ":")).encode()
        self.headers = {"content-type": "application/json", **headers}


class Gone(Exception):
    """The client left, or broke its own framing: nobody is there to be answered."""


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The most bytes of a body below ``prefix``."""

    prefix: str
    most: int


@dataclass(frozen=True, slots=True)
class Together:
    """Requests that are answered together, as many as wait: ``takes`` says which, ``answer`` has an
    answer for each.
    """

    takes: Callable[[Environ], bool]
    answer: Callable[[list[Environ]], list[Answer]]
    threads: int = 2
    """While one waits for the database, the other reads what has come."""
    most: int = 32


class Gate:
    """An ASGI application that hands whole requests to the WSGI application ``wsgi``.

    ``limits`` are tried in order; the last one should have an empty prefix. What ``together`` takes
    never gets as far as ``wsgi``. ``refused`` hears of what goes no further than here: its path, and
    the code of the answer.
    """

    def __init__(
        self,
        wsgi: Wsgi,
        limits: tuple[BodyLimit, ...],
        *,
        threads: int = THREADS,
        body_seconds: float = BODY_SECONDS,
        max_waiting: int = MAX_WAITING,
        together: Together | None = None,
        refused: Callable[[str, str], None] = lambda path, code: None,
    ) -> None:
        self._wsgi = wsgi
        self._refused = refused
        self._limits = limits
        self._body_seconds = body_seconds
        self._most = threads + max_waiting
        self._under_way = 0
        self._work: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        _start(threads, "request", self._serve)
        self._together = together
        self._gathering: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        if together:
            _start(together.threads, "together", self._serve_together, together)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            environ = environ_of(scope)
            body = await self._read(environ, receive)
            status, headers, content = await self._answered(environ, body)
        except Gone:
            return
        except Refused as refusal:
            self._refused(_path_of(scope), refusal.code)
            status, content = refusal.status, refusal.body
            headers = [(k.encode(), v.encode()) for k, v in refusal.headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _read(self, environ: Environ, receive: Receive) -> bytes:
        declared = environ.get("CONTENT_LENGTH", "")
        if not declared and "HTTP_TRANSFER_ENCODING" not in environ:
            return b""
        most = next(one.most for one in self._limits if environ["PATH_INFO"].startswith(one.prefix))
        if declared and int(declared) > most:
            raise _too_large(most)
        try:
            async with asyncio.timeout(self._body_seconds):
                return await _whole(receive, most)
        except TimeoutError:
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT,
                "TOO_SLOW",
                f"the body did not arrive within {self._body_seconds:g} seconds",
                connection="close",
            ) from None

    async def _answered(self, environ: Environ, body: bytes) -> Answer:
        if self._under_way >= self._most:
            detail = "too many requests at once; send it again"
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "OVERLOADED", detail, **{"retry-after": "1"}
            )
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = BytesIO(body)
        self._under_way += 1
        try:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Answer] = loop.create_future()
            is_gathered = self._together is not None and self._together.takes(environ)
            (self._gathering if is_gathered else self._work).put((loop, answer, environ))
            return await answer
        finally:
            self._under_way -= 1

    def _serve(self) -> None:
        """One thread: a queue and one call back cost a third of what an executor's futures do."""
        while True:
            loop, waiting, environ = self._work.get()
            try:
                answer = self._run(environ)
            except Exception as error:
                # The thread's boundary: whatever it was, the waiting request must hear of it.
                loop.call_soon_threadsafe(_fail, waiting, error)
            else:
                loop.call_soon_threadsafe(_resolve, waiting, answer)

    def _serve_together(self, together: Together) -> None:
        """One thread: the loop and this one take turns once for all that waited, not for each."""
        while True:
            jobs = _waiting(self._gathering, together.most)
            loop = jobs[0][0]
            try:
                answers = together.answer([environ for _, _, environ in jobs])
            except Exception as error:
                # The thread's boundary, as above.
                for _, waiting, _ in jobs:
                    loop.call_soon_threadsafe(_fail, waiting, error)
            else:
                settled = [(job[1], answer) for job, answer in zip(jobs, answers, strict=True)]
                loop.call_soon_threadsafe(_resolve_all, settled)

    def _run(self, environ: Environ) -> Answer:
        """The application's whole answer: a slow reader then holds memory and not a thread."""
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            started[:] = int(status[:3]), headers

        answer = self._wsgi(environ, start_response)
        try:
            content = b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        status, headers = started
        return status, [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers], content


def _start(count: int, name: str, serve: Callable[..., None], *arguments: object) -> None:
    for number in range(count):
        name_here = f"{name}-{number}"
        threading.Thread(target=serve, args=arguments, name=name_here, daemon=True).start()


def _waiting(jobs: queue.SimpleQueue[_Job], most: int) -> list[_Job]:
    """What waits, the longest first; at least one, if it has to be waited for."""
    taken = [jobs.get()]
    with suppress(queue.Empty):
        while len(taken) < most:
            taken.append(jobs.get_nowait())
    return taken


def _resolve_all(settled: list[_Settled]) -> None:
    for waiting, answer in settled:
        _resolve(waiting, answer)


def _resolve(waiting: asyncio.Future[Answer], answer: Answer) -> None:
    if not waiting.done():
        waiting.set_result(answer)


def _fail(waiting: asyncio.Future[Answer], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)


def _too_large(most: int) -> Refused:
    detail = f"the body is larger than {most} bytes"
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "TOO_LARGE", detail, connection="close")


async def _whole(receive: Receive, most: int) -> bytes:
    """The body up to ``most`` bytes. Raises Refused when it is longer, Gone when it is cut off."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message["type"] == "http.request" and message.get("more_body") and len(body) <= most:
        message = await receive()
        body += message.get("body", b"")
    if len(body) > most:
        raise _too_large(most)
    if message["type"] != "http.request":
        raise Gone
    return body


def environ_of(scope: Mapping[str, Any]) -> Environ:
    """The request's head as WSGI has it (PEP 3333), without a body.

    A header with an underscore is dropped: WSGI could not tell it from the one with a hyphen, which
    a proxy in front may have written. So is a Content-Type with a parameter that tells its own
    charset (RFC 2231): nobody writes one, and Django raises for many, outside of what it answers.
    Raises Refused for two Host headers.
    """
    host, port = scope["server"] or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": _path_of(scope),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0] if scope["client"] else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in scope["headers"]:
        key = _key_of(name)
        if not key:
            continue
        text = value.decode("latin-1")
        if key == "CONTENT_TYPE" and "*" in text:
            continue
        if key in environ:
            if key == "HTTP_HOST":
                raise Refused(HTTPStatus.BAD_REQUEST, "TWO_HOSTS", "one Host header is allowed")
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text
    return environ


def _path_of(scope: Mapping[str, Any]) -> str:
    return unquote_to_bytes(scope["raw_path"]).decode("latin-1")


@lru_cache(maxsize=512)
def _key_of(name: bytes) -> str:
    """The WSGI name of a header; empty for one that is dropped."""
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
