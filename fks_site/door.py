"""The door of alerts: those that wait at the gate are checked, stored and answered together.

One statement's round trip and one commit are then paid by many, and Python's lock changes hands once.
Whoever prefers to wait for the outcome takes the way of all other requests, with a thread of its own.
"""

from __future__ import annotations

from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections

from execution import metrics, webhooks
from fks_site import gate

PREFIX = "/webhook/"


def takes(environ: gate.Environ) -> bool:
    return (
        environ["REQUEST_METHOD"] == "POST"
        and webhooks.PATH.match(environ["PATH_INFO"], 1) is not None
        and "HTTP_PREFER" not in environ
    )


def answer(environs: list[gate.Environ]) -> list[gate.Answer]:
    # As Django does between two requests.
    close_old_connections()
    return [_plain(one) for one in webhooks.receive([_post(environ) for environ in environs])]


def note_refused(path: str, code: str) -> None:
    """Count a delivery the gate answered itself, as those that come through are counted."""
    if path.startswith(PREFIX):
        metrics.webhook_requests.labels(code.lower()).inc()


def _post(environ: gate.Environ) -> webhooks.Post:
    request = WSGIRequest(environ)
    strategy, token = webhooks.PATH.match(request.path_info, 1).groups("")  # type: ignore[union-attr]
    return webhooks.Post(request, strategy, token)


def _plain(one: webhooks.Answer) -> gate.Answer:
    content = one.content
    headers = {"Content-Type": "application/json", **one.headers, "Content-Length": len(content)}
    return one.http, [(k.encode(), str(v).encode()) for k, v in headers.items()], content
