"""What an authenticated sender is told about a body that is no alert, and what is kept of it."""

from __future__ import annotations

import json
import time
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from execution import webhooks
from execution.models import QuarantinedBody
from tests.execution.posting import body_of, post, received, stored
from tests.factories import webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]

TRADINGVIEW = "52.89.214.238"
HOSTILE = {
    "empty": (b"", "NOT_JSON"),
    "not an object": (b'["buy"]', "NOT_AN_OBJECT"),
    "60,000 brackets": (b"[" * 60_000, "TOO_DEEP"),
    "duplicate key": (b'{"symbol": "A", "symbol": "B"}', "DUPLICATE_KEY"),
    "duplicate key of 60,000 letters": (
        b'{"%s": 1, "%s": 1}' % (b"x" * 30_000, b"x" * 30_000),
        "DUPLICATE_KEY",
    ),
    "lone surrogate": (b'{"comment": "\\ud800"}', "FORBIDDEN_CHARACTER"),
    "NUL escape": (b'{"comment": "\\u0000"}', "FORBIDDEN_CHARACTER"),
    "NUL byte": (b'{"comment": "\x00"}', "NOT_JSON"),
    "UTF-16": ('{"symbol": "BTC/USDT"}'.encode("utf-16"), "NOT_UTF8"),
    "UTF-16 without a mark": ('{"symbol": "BTC/USDT"}'.encode("utf-16-be"), "NOT_JSON"),
    "bad byte": (b'{"comment": "\xff"}', "NOT_UTF8"),
    "1e400": (b'{"symbol": "BTC/USDT", "action": "buy", "quantity": 1e400}', "INVALID"),
    "1E+999999": (b'{"symbol": "BTC/USDT", "action": "buy", "quantity": 1E+999999}', "INVALID"),
    "5,000 digits": (b'{"quantity": %s}' % (b"9" * 5000), "NUMBER_INVALID"),
    "NaN as quantity": (
        b'{"symbol": "BTC/USDT", "action": "buy", "quantity": NaN}',
        "INVALID",
    ),
    "NaN as stop loss": (
        b'{"symbol": "BTC/USDT", "action": "buy", "stop_loss": NaN}',
        "INVALID",
    ),
    "true as quantity": (
        b'{"symbol": "BTC/USDT", "action": "buy", "quantity": true}',
        "INVALID",
    ),
    "1e400 as text": (
        b'{"symbol": "BTC/USDT", "action": "buy", "quantity": "1e400"}',
        "INVALID",
    ),
}


def test_every_wrong_field_is_named_and_the_body_kept() -> None:
    strategy, token = webhook()
    body = body_of(secret=token, action="hodl", quantity="0")

    response = post(strategy.slug, body, REMOTE_ADDR=TRADINGVIEW)

    assert response.status_code == 400
    answer = response.json()
    assert (answer["code"], answer["detail"]) == ("INVALID", "the alert is not valid")
    assert answer["errors"] == [
        {
            "field": "action",
            "code": "INVALID",
            "detail": "must be one of buy, sell, close, cancel",
        },
        {"field": "quantity", "code": "NOT_POSITIVE", "detail": "must be greater than zero"},
    ]
    row = QuarantinedBody.objects.get()
    assert (row.strategy, row.address, row.code) == (strategy, TRADINGVIEW, "INVALID")
    assert row.detail == (
        "action: must be one of buy, sell, close, cancel; quantity: must be greater than zero"
    )
    assert row.body == body.decode().replace(token, "***")
    assert stored() == (0, 0, 1)


def test_an_unreadable_body_is_kept_with_the_place() -> None:
    strategy, token = webhook()

    response = post(f"{strategy.slug}/{token}", b'{"symbol": "BTC/USDT",\n "action": buy}')

    assert response.status_code == 400
    detail = "not JSON at line 2, column 12: Expecting value"
    assert response.json() == {
        "code": "NOT_JSON",
        "detail": detail,
        "errors": [{"position": "34"}],
    }
    row = QuarantinedBody.objects.get()
    assert (row.code, row.detail) == ("NOT_JSON", detail)
    assert stored() == (0, 0, 1)


@pytest.mark.parametrize(("body", "code"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_bodies(body: bytes, code: str) -> None:
    strategy, token = webhook()
    started = time.process_time()

    response = post(f"{strategy.slug}/{token}", body)

    assert time.process_time() - started < 1
    assert response.status_code == 400
    assert sorted(response.json()) == ["code", "detail", "errors"]
    assert response.json()["code"] == code
    assert len(response.content) < 500
    assert QuarantinedBody.objects.get().code == code
    assert stored() == (0, 0, 1)


@pytest.mark.parametrize(
    "body",
    [
        b'{"symbol": "BTC/USDT", "action": "buy", "comment": NaN, "plot": [NaN]}',
        b'\xef\xbb\xbf{"symbol": "BTC/USDT", "action": "buy"}\r\n',
        b'{"symbol": "BTC/USDT", "action": "buy", "quantity": " 5 "}',
        b'{"symbol": "B\\tC", "action": "buy", "comment": "\\u2028 \\ud83d\\ude80"}',
    ],
    ids=["NaN where no number is expected", "mark and CRLF", "blanks", "odd characters"],
)
def test_strange_bodies_that_are_fine(body: bytes) -> None:
    strategy, token = webhook()

    assert post(f"{strategy.slug}/{token}", body).status_code == 202


class TestTooLarge:
    def test_65_kib(self) -> None:
        strategy, token = webhook()
        largest = body_of(secret=token).ljust(64 * 1024)

        assert post(strategy.slug, largest).status_code == 202
        response = post(strategy.slug, largest + b" ")
        assert response.status_code == 413
        assert response.json() == {
            "code": "TOO_LARGE",
            "detail": "the body is larger than 65536 bytes",
        }
        assert post("nobody", b"x" * 66_560).status_code == 413
        assert stored() == (1, 1, 0)

    def test_a_large_body_is_not_read(self) -> None:
        class Untouchable(BytesIO):
            def read(self, *_: Any) -> bytes:
                raise AssertionError("the body was read")

        request = RequestFactory().post("/webhook/x", CONTENT_LENGTH="65537")
        request._stream = Untouchable()

        assert received(request, "x").status == "too_large"

    @pytest.mark.parametrize("length", ["9" * 5000, "²", "-1", "1e3", "0x10", " "])
    def test_a_length_that_is_none(self, length: str) -> None:
        request = RequestFactory().post("/webhook/x")
        request.META["CONTENT_LENGTH"] = length

        assert received(request, "x").http in (401, 413)

    def test_a_length_that_lies(self) -> None:
        strategy, token = webhook()
        body = body_of(secret=token)

        def send(length: int) -> HttpResponse:
            environ = RequestFactory()._base_environ(
                REQUEST_METHOD="POST",
                PATH_INFO=f"/webhook/{strategy.slug}/{token}",
                CONTENT_LENGTH=str(length),
            )
            environ["wsgi.input"] = BytesIO(body)
            request = RequestFactory().request(**environ)
            return webhooks.webhook(request, strategy=strategy.slug, token=token)

        assert json.loads(send(len(body) - 5).content)["code"] == "NOT_JSON"
        assert send(len(body)).status_code == 202
        assert json.loads(send(len(body) + 500).content)["status"] == "duplicate"

    def test_a_body_in_chunks(self) -> None:
        strategy, token = webhook()
        whole = body_of(secret=token)

        def send(body: bytes, **environ: Any) -> int:
            path = f"/webhook/{strategy.slug}"
            request = RequestFactory().post(path, HTTP_TRANSFER_ENCODING="Chunked", **environ)
            # The server has put the chunks together; nobody counted them.
            request.META.pop("CONTENT_LENGTH")
            request.META["wsgi.input"] = BytesIO(body)
            return received(request, strategy.slug).http

        terminated = {"wsgi.input_terminated": True}
        assert send(whole, **terminated) == 202
        assert send(whole.ljust(65_537), **terminated) == 413
        assert send(b"", **terminated) == 401
        assert send(whole) == 401

    def test_a_body_that_breaks_off(self) -> None:
        class Broken(BytesIO):
            def read(self, *_: Any) -> bytes:
                raise ConnectionResetError

        request = RequestFactory().post("/webhook/x", CONTENT_LENGTH="10")
        request._stream = Broken()

        answer = received(request, "x")
        assert (answer.status, answer.http) == ("broken_off", 400)
