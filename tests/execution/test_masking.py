"""Canaries: a credential, however it is sent, stands afterwards in no row, no log and no answer."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.http import HttpResponse

from execution import intake
from execution.authentication import Delivery, new_secret
from execution.formats import SECRETS
from execution.masking import credentials_in, mask_body, mask_document
from execution.models import QuarantinedBody, Signal, Strategy
from fks_site.logs import JsonFormatter, ScrubbingFormatter
from tests.execution.posting import ALERT, body_of, post, signature_of, tables_with
from tests.factories import webhook

CANARY = "canary-7f3e9a1c5b2d4860-Zq_x"
SHORT = "c4n4ry"


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04X}" for character in text)


def strategy_with(secret: str, auth: str = Strategy.Auth.TOKEN) -> Strategy:
    strategy, _ = webhook(auth=auth)
    new_secret(strategy, auth, secret)
    return strategy


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything anybody logs, at every level, as the handlers write it."""
    written = io.StringIO()
    handlers = []
    for formatter in (ScrubbingFormatter("%(name)s %(message)s"), JsonFormatter()):
        handler = logging.StreamHandler(written)
        handler.setFormatter(formatter)
        handlers.append(handler)
    names = ("", "django", "django.request", "execution", "fks_site")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    yield written
    for handler in handlers:
        logging.getLogger().removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def assert_gone(secret: str, response: HttpResponse, log: io.StringIO) -> None:
    assert tables_with(secret) == []
    for body in [
        *Signal.objects.values_list("body", flat=True),
        *QuarantinedBody.objects.values_list("body", flat=True),
    ]:
        plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), body)
        assert secret not in plain.replace("\\x00", "").replace("\x00", "")
    assert secret not in log.getvalue()
    assert secret not in str(response.headers)
    assert secret.encode() not in response.content


def in_every_corner(secret: str) -> dict[str, Any]:
    """The secret in extra fields, whole and in parts, in keys and lists."""
    return {
        "note": secret,
        "url": f"https://fks.example/webhook/x/{secret}?a=b",
        "deep": {"list": [[f"<{secret}>"], {secret: secret}]},
        "comment": f"{secret}{secret}",
        "id": f"order {secret}",
        secret: "as a key",
    }


class Sendings:
    """Ways to send ``secret``; each gives the answer."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.slug = strategy_with(secret).slug

    def path(self) -> HttpResponse:
        return post(f"{self.slug}/{self.secret}", body_of())

    def path_and_everywhere(self) -> HttpResponse:
        return post(f"{self.slug}/{self.secret}", body_of(**in_every_corner(self.secret)))

    def body_everywhere(self) -> HttpResponse:
        return post(self.slug, body_of(secret=self.secret, **in_every_corner(self.secret)))

    def field_escaped(self) -> HttpResponse:
        fields = json.dumps(ALERT)[1:-1]
        return post(self.slug, f'{{"secret": "{escaped(self.secret)}", {fields}}}'.encode())

    def field_name_escaped(self) -> HttpResponse:
        fields = json.dumps(ALERT)[1:-1]
        name = escaped("secret")
        return post(self.slug, f'{{"{name}": "{self.secret}", {fields}}}'.encode())

    def extra_escaped(self) -> HttpResponse:
        body = body_of(secret=self.secret, note="NOTE", comment="NOTE").decode()
        return post(self.slug, body.replace("NOTE", escaped(self.secret)).encode())

    def symbol(self) -> HttpResponse:
        return post(self.slug, body_of(secret=self.secret, symbol=self.secret))

    def headers(self) -> HttpResponse:
        return post(
            f"{self.slug}/{self.secret}",
            body_of(),
            HTTP_IDEMPOTENCY_KEY=self.secret,
            HTTP_USER_AGENT=self.secret,
            HTTP_X_FORWARDED_FOR=self.secret,
            HTTP_X_WEBHOOK_SIGNATURE=self.secret,
        )

    def as_number(self) -> HttpResponse:
        return post(self.slug, body_of(secret=self.secret, quantity=self.secret))

    def as_wrong_action(self) -> HttpResponse:
        return post(
            self.slug, body_of(secret=self.secret, action=self.secret, timestamp=self.secret)
        )

    def unreadable(self) -> HttpResponse:
        return post(self.slug, f'{{"secret": "{self.secret}", "note": "{self.secret}", '.encode())

    def unreadable_escaped(self) -> HttpResponse:
        return post(self.slug, f'{{"secret": "{escaped(self.secret)}", oops'.encode())

    def unreadable_cut_off(self) -> HttpResponse:
        return post(f"{self.slug}/{self.secret}", f'{{"secret": "{self.secret}'.encode())

    def unreadable_utf16(self) -> HttpResponse:
        body = f'{{"secret": "{self.secret}"}}'
        return post(f"{self.slug}/{self.secret}", body.encode("utf-16-le"))

    def twice(self) -> HttpResponse:
        return post(self.slug, f'{{"secret": "{self.secret}", "secret": "x"}}'.encode())

    def twice_as_key(self) -> HttpResponse:
        body = f'{{"{self.secret}": 1, "{self.secret}": 2}}'
        return post(f"{self.slug}/{self.secret}", body.encode())

    def for_another(self) -> HttpResponse:
        return post(f"nobody/{self.secret}", body_of(secret=self.secret))

    def too_large(self) -> HttpResponse:
        return post(f"{self.slug}/{self.secret}", b" " * 70_000)

    def nowhere(self) -> HttpResponse:
        return post(f"{self.slug}/{self.secret}/{self.secret}", body_of())


WAYS = [name for name in vars(Sendings) if not name.startswith("_")]


@pytest.mark.django_db
@pytest.mark.usefixtures("new_process", "nudged")
class TestCanaries:
    @pytest.mark.parametrize("secret", [CANARY, SHORT])
    @pytest.mark.parametrize("way", WAYS)
    def test_however_it_is_sent(self, way: str, secret: str, log: io.StringIO) -> None:
        send: Callable[[], HttpResponse] = getattr(Sendings(secret), way)

        response = send()

        assert response.status_code in (202, 400, 401, 404, 413)
        assert_gone(secret, response, log)

    @pytest.mark.parametrize("field", SECRETS)
    def test_in_each_credential_field(self, field: str, log: io.StringIO) -> None:
        slug = strategy_with(CANARY).slug

        response = post(slug, body_of(**{field: CANARY}))

        assert response.status_code == 202
        assert json.loads(Signal.objects.get().body) == ALERT | {field: "***"}
        assert_gone(CANARY, response, log)

    @pytest.mark.parametrize("value", [CANARY, SHORT, [CANARY], {"a": CANARY}, 4242424242424242])
    @pytest.mark.parametrize("field", SECRETS)
    def test_what_opens_nothing_is_kept_neither(
        self, field: str, value: Any, log: io.StringIO
    ) -> None:
        strategy, token = webhook()

        response = post(f"{strategy.slug}/{token}", body_of(**{field: value}))

        assert response.status_code == 202
        for secret in (CANARY, SHORT, "4242424242424242"):
            assert_gone(secret, response, log)

    @pytest.mark.parametrize(
        "body",
        [
            f"secret: {CANARY}",
            f"secret={CANARY}&symbol=x",
            f"{{'token': '{CANARY}'}}",
            f"{{“passphrase”: “{CANARY}”}}",
            f'{{"key": "{CANARY}',
            f'{{"key": "a\\"{CANARY}", oops',
            f'{{"Secret" : "{CANARY}" oops',
            f'{{"\\u0073ecret": "{escaped(CANARY)}" oops',
        ],
    )
    def test_what_looks_like_a_credential_in_an_unreadable_body(
        self, body: str, log: io.StringIO
    ) -> None:
        strategy, token = webhook()

        response = post(f"{strategy.slug}/{token}", body.encode())

        assert response.status_code == 400
        assert_gone(CANARY, response, log)

    def test_its_first_letters_swallowed_by_an_escape(self, log: io.StringIO) -> None:
        """``\\u20ca`` is one character, and written out again as the same escape."""
        strategy = strategy_with(CANARY)

        response = post(
            f"{strategy.slug}/{CANARY}", body_of(note="?").replace(b"?", rb"\u20" + CANARY.encode())
        )

        assert response.status_code == 202
        assert_gone(CANARY, response, log)

    def test_the_signing_key(self, log: io.StringIO) -> None:
        slug = strategy_with(CANARY, Strategy.Auth.HMAC).slug
        body = body_of(timestamp=1, secret=CANARY, note=CANARY)

        response = post(slug, body, HTTP_X_WEBHOOK_SIGNATURE=signature_of(body, CANARY))

        assert response.status_code == 400
        assert_gone(CANARY, response, log)

    def test_when_the_database_fails(
        self, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(deliveries: object) -> None:
            raise OperationalError(f"Failing row contains ({deliveries})")

        slug = strategy_with(CANARY).slug
        monkeypatch.setattr(intake, "accept_all", fail)

        response = post(f"{slug}/{CANARY}", body_of(secret=CANARY))

        assert response.status_code == 503
        assert "could not be stored" in log.getvalue()
        assert_gone(CANARY, response, log)


class TestWhatIsKept:
    TOKEN = Delivery(b"", "t0ken-of-the-path-long-enough", "")

    def body(self, body: bytes, **document: Any) -> str:
        delivery = Delivery(body, self.TOKEN.path_token, "")
        return mask_body(delivery, document, credentials_in(delivery, document, ()))

    def test_a_body_without_credentials_is_kept_to_the_byte(self) -> None:
        body = b'\t{"a":  0.10,\r\n "price": 1E2, "b": NaN}\n'

        assert self.body(body, a=0) == body.decode()

    def test_only_the_credential_changes(self) -> None:
        body = b'{ "price": 1.50, "secret" : "hunter2", "note": "the secret: hunter2" }'

        shown = self.body(body, secret="hunter2")

        assert shown == '{ "price": 1.50, "secret" : "***", "note": "the secret: hunter2" }'

    @pytest.mark.parametrize("number", ["1e400", "-1E-99", "9" * 41])
    def test_a_number_that_is_read_as_text_is_a_credential_too(self, number: str) -> None:
        body = f'{{"key": {number}, "price": 1}}'.encode()

        assert self.body(body, key=number) == '{"key": "***", "price": 1}'

    def test_a_short_word_that_opens_nothing_does_not_eat_the_alert(self) -> None:
        document = {"key": "buy", "action": "buy", "symbol": "buyer"}
        credentials = credentials_in(self.TOKEN, document, ())

        assert credentials == (self.TOKEN.path_token,)
        assert mask_document(document, credentials) == {"action": "buy", "symbol": "buyer"}

    def test_longer_credentials_go_first(self) -> None:
        document = {"secret": self.TOKEN.path_token + "-and-more"}
        credentials = credentials_in(self.TOKEN, document, ())

        note = {"note": f"{self.TOKEN.path_token}-and-more"}
        assert mask_document(document | note, credentials) == {"note": "***"}
