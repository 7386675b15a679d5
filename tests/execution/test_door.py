"""What the gate hands to the webhook directly is answered as Django answers it."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from django.test import Client, RequestFactory

from execution import metrics
from fks_site import door
from tests.execution.posting import body_of, post, stored
from tests.factories import webhook

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("new_process", "nudged"),
]


def environ(path: str, body: bytes = b"", **extra: Any) -> dict[str, Any]:
    """A whole request as the gate has it."""
    made: dict[str, Any] = RequestFactory()._base_environ(
        PATH_INFO=path.encode().decode("latin-1"),
        **{"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body))} | extra,
    )
    return made | {"wsgi.input": BytesIO(body)}


@pytest.mark.parametrize(
    ("path", "is_taken"),
    [
        ("/webhook/demo", True),
        ("/webhook/demo/", True),
        ("/webhook/demo/token", True),
        ("/webhook/demo/a/b/c/", True),
        ("/webhook/demo//", True),
        ("/webhook/dé/mo\n", True),
        ("/webhook", False),
        ("/webhook/", False),
        ("/webhook//", False),
        ("//webhook/demo", False),
        ("/webhooks/demo", False),
        ("/admin/webhook/demo", False),
        ("", False),
    ],
)
def test_it_takes_what_leads_to_the_webhook(client: Client, path: str, is_taken: bool) -> None:
    assert door.takes(environ(path)) is is_taken
    if is_taken:
        [(status, _, content)] = door.answer([environ(path)])
        answered = client.post(path, content_type="text/plain")
        assert (status, content) == (answered.status_code, answered.content)


@pytest.mark.parametrize(
    "extra", [{"REQUEST_METHOD": "GET"}, {"REQUEST_METHOD": "HEAD"}, {"HTTP_PREFER": "wait=5"}]
)
def test_other_methods_and_who_prefers_to_wait_go_another_way(extra: dict[str, str]) -> None:
    assert not door.takes(environ("/webhook/demo", **extra))


def test_an_answer_is_the_one_django_gives() -> None:
    strategy, token = webhook()
    body = body_of(secret=token)

    [(status, headers, content)] = door.answer([environ(f"/webhook/{strategy.slug}", body)])
    again = post(strategy.slug, body)

    assert status == 202
    assert json.loads(content)["signal_id"] == again.json()["signal_id"]
    assert dict(headers) == {
        b"Content-Type": b"application/json",
        b"Content-Length": str(len(content)).encode(),
    }
    assert {name.encode() for name in again.headers} == set(dict(headers))
    assert stored() == (1, 1, 0)


def test_a_token_in_the_path() -> None:
    strategy, token = webhook()

    paths = [f"/webhook/{strategy.slug}/{token}", f"/webhook/{strategy.slug}/{token}/"]
    answers = door.answer(
        [environ(path, body_of(id=str(number))) for number, path in enumerate(paths)]
    )

    assert [status for status, _, _ in answers] == [202, 202]


def test_how_long_to_wait_stands_in_the_headers(settings: Any) -> None:
    answers = door.answer([environ("/webhook/nobody") for _ in range(32)] * 5)

    refused = [headers for status, headers, _ in answers if status == 429]
    assert refused
    assert all(int(dict(headers)[b"Retry-After"]) >= 1 for headers in refused)


@pytest.mark.parametrize(
    ("path", "counted"), [("/webhook/demo", 1), ("/webhook/demo/token", 1), ("/api/v1/orders", 0)]
)
def test_what_the_gate_refuses_of_deliveries_is_counted(path: str, counted: int) -> None:
    too_slow = metrics.webhook_requests.labels("too_slow")
    before = too_slow._value.get()

    door.note_refused(path, "TOO_SLOW")

    assert too_slow._value.get() - before == counted
