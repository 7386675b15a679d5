"""Posting to webhooks as senders do, and what that leaves in the database."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client

from execution import authentication, webhook_config
from execution.models import IdempotencyKey, QuarantinedBody, Signal
from execution.webhooks import Answer, Post, receive
from risk import ratelimit

ALERT = {"symbol": "BTC/USDT", "action": "buy", "quantity": "0.01"}


def body_of(**fields: Any) -> bytes:
    return json.dumps(ALERT | fields).encode()


def post(path: str, body: bytes = b"", /, **extra: Any) -> HttpResponse:
    """One delivery; ``extra`` are headers in WSGI form."""
    extra.setdefault("content_type", "text/plain; charset=utf-8")
    client = Client(raise_request_exception=False)
    response: HttpResponse = client.generic("POST", f"/webhook/{path}", body, **extra)
    return response


def received(request: HttpRequest, strategy: str) -> Answer:
    """What becomes of a delivery that came alone."""
    [answer] = receive([Post(request, strategy)])
    return answer


def signature_of(body: bytes, key: str) -> str:
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def stored() -> tuple[int, int, int]:
    """How many signals, idempotency keys and quarantined bodies there are."""
    return tuple(model.objects.count() for model in (Signal, IdempotencyKey, QuarantinedBody))  # type: ignore[return-value]


def forget() -> None:
    """What a new web process knows: nothing."""
    webhook_config.forget()
    authentication._noted.clear()
    ratelimit.forget()


def tables_with(text: str) -> list[str]:
    """The tables in which ``text`` stands, in any column of any row."""
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor)
        rows = " UNION ALL ".join(
            f"SELECT '{name}' WHERE EXISTS "  # noqa: S608
            f'(SELECT 1 FROM "{name}" AS one WHERE strpos(one::text, %(text)s) > 0)'
            for name in names
        )
        cursor.execute(rows, {"text": text})
        return [name for (name,) in cursor.fetchall()]
