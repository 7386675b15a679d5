"""What attackers try at the webhook: none of it is accepted, none answered with a server error, and no
secret is left anywhere.
"""

from __future__ import annotations

import gzip
import logging
import time
import zlib
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from execution import standard_webhooks
from execution.models import QuarantinedBody, Signal, Strategy
from tests.execution.posting import body_of, post, signature_of, stored, tables_with
from tests.factories import webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]

ELSEWHERE = "203.0.113.9"
ALLOWED = "52.89.214.238"
SCRIPT = "<script>alert(1)</script>"


def standard_headers(secret: str, body: bytes, id: str = "msg_1") -> dict[str, str]:
    now = str(int(time.time()))
    signed = standard_webhooks.signature(standard_webhooks.key_of(secret), id, now, body)
    return {"HTTP_WEBHOOK_ID": id, "HTTP_WEBHOOK_TIMESTAMP": now, "HTTP_WEBHOOK_SIGNATURE": signed}


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_X_FORWARDED_FOR": ALLOWED},
        {"HTTP_X_FORWARDED_FOR": f"{ALLOWED}, {ALLOWED}"},
        {"HTTP_X_REAL_IP": ALLOWED},
        {"HTTP_FORWARDED": f"for={ALLOWED}"},
        {"HTTP_CF_CONNECTING_IP": ALLOWED},
        {"HTTP_TRUE_CLIENT_IP": ALLOWED},
        {"HTTP_X_FORWARDED_FOR": "\xff"},
    ],
    ids=str,
)
def test_a_forged_address_opens_no_allowlist(headers: dict[str, str]) -> None:
    from risk.models import AllowedNetwork, IPAllowlist

    allowlist = IPAllowlist.objects.create(name="list")
    AllowedNetwork.objects.create(allowlist=allowlist, cidr=f"{ALLOWED}/32")
    strategy, token = webhook(allowlist=allowlist)

    response = post(strategy.slug, body_of(secret=token), REMOTE_ADDR=ELSEWHERE, **headers)

    assert response.status_code == 403
    assert stored() == (0, 0, 0)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_compressed_body_is_never_unpacked(pack: Any) -> None:
    """A bomb of 64 MiB: whatever Content-Encoding says, the bytes are read as they are."""
    strategy, token = webhook()
    bomb = pack(b" " * (1 << 26))[:60_000]
    started = time.process_time()

    for encoding in ("gzip", "deflate", "br", "gzip, gzip"):
        response = post(f"{strategy.slug}/{token}", bomb, HTTP_CONTENT_ENCODING=encoding)
        assert response.status_code == 400

    assert time.process_time() - started < 2
    assert not Signal.objects.exists()


def test_an_alert_in_comments_reaches_pages_and_logs_as_text(
    admin_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    strategy, token = webhook()
    post(strategy.slug, body_of(secret=token, comment=SCRIPT, extra=SCRIPT))
    post(f"{strategy.slug}/{token}", f'{{"symbol": "{SCRIPT}\\n2026 ERROR forged", '.encode())
    signal, kept = Signal.objects.get(), QuarantinedBody.objects.get()

    pages = [
        reverse("admin:execution_signal_changelist"),
        reverse("admin:execution_signal_change", args=[signal.pk]),
        reverse("admin:execution_quarantinedbody_changelist"),
        reverse("admin:execution_quarantinedbody_change", args=[kept.pk]),
    ]
    for page in pages:
        response: HttpResponse = admin_client.get(page)
        assert response.status_code == 200
        assert SCRIPT.encode() not in response.content


def test_what_was_signed_once_is_not_taken_twice_nor_changed() -> None:
    strategy, secret = webhook(auth=Strategy.Auth.STANDARD)
    body = body_of()
    headers = standard_headers(secret, body)
    assert post(strategy.slug, body, **headers).status_code == 202

    assert post(strategy.slug, body, **headers).status_code == 200
    changed = [
        headers | {"HTTP_WEBHOOK_ID": "msg_2"},
        headers | {"HTTP_WEBHOOK_TIMESTAMP": str(int(time.time()) + 1)},
        headers | {"HTTP_WEBHOOK_SIGNATURE": headers["HTTP_WEBHOOK_SIGNATURE"][:-2]},
    ]
    assert [post(strategy.slug, body, **one).status_code for one in changed] == [401] * 3
    assert post(strategy.slug, body_of(quantity="1"), **headers).status_code == 401
    assert Signal.objects.count() == 1


@pytest.mark.parametrize("auth", [Strategy.Auth.TOKEN, Strategy.Auth.HMAC, Strategy.Auth.STANDARD])
def test_a_secret_is_left_nowhere(
    auth: str, admin_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Planted where senders put secrets by mistake: the tables, the logs and the pages hold none."""
    caplog.set_level(logging.DEBUG)
    strategy, canary = webhook(auth=auth)
    body = body_of(secret=canary, comment=f"oops {canary}", timestamp=int(time.time()))
    proof = {"HTTP_X_WEBHOOK_SIGNATURE": signature_of(body, canary)}
    if auth == Strategy.Auth.STANDARD:
        proof = standard_headers(canary, body)

    assert post(strategy.slug, body, **proof).status_code == 202
    broken = body[:-1]
    proof = {"HTTP_X_WEBHOOK_SIGNATURE": signature_of(broken, canary)}
    if auth == Strategy.Auth.STANDARD:
        proof = standard_headers(canary, broken, "msg_2")
    assert post(strategy.slug, broken, **proof).status_code == 400
    page = admin_client.get(reverse("admin:execution_strategy_change", args=[strategy.pk]))

    for part in {canary, canary.removeprefix("whsec_")}:
        assert tables_with(part) == []
        assert part not in caplog.text
        assert part.encode() not in page.content


@pytest.mark.parametrize("auth", [Strategy.Auth.HMAC, Strategy.Auth.STANDARD])
@pytest.mark.parametrize("end", ["}", ""], ids=["read", "unreadable"])
def test_a_signing_key_in_a_comment_is_left_nowhere(auth: str, end: str) -> None:
    """No field of a credential holds it: only who knows the key can find it."""
    strategy, key = webhook(auth=auth)
    bare = key.removeprefix("whsec_")
    fields = body_of(comment=f"mine is {bare}", note=key, timestamp=int(time.time())).decode()
    body = f"{fields[:-1]}{end}".encode()
    proof = {"HTTP_X_WEBHOOK_SIGNATURE": signature_of(body, key)}
    if auth == Strategy.Auth.STANDARD:
        proof = standard_headers(key, body)

    response = post(strategy.slug, body, **proof)

    assert response.status_code == (202 if end else 400)
    assert tables_with(bare) == []
    assert bare.encode() not in response.content
