"""Who may post: digests and signatures, old secrets and new ones, and what proves nothing."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
import time_machine
from django.db import OperationalError
from django.utils import timezone

from brokers import crypto
from execution import authentication
from execution.authentication import Delivery, LiveSecret, live, new_secret, verify
from execution.models import Strategy, WebhookSecret
from execution.webhook_config import config_of, forget
from tests.execution.posting import signature_of
from tests.factories import StrategyFactory

TOKEN, HMAC = Strategy.Auth.TOKEN, Strategy.Auth.HMAC
BODY = b'{"symbol": "BTC/USDT"}'


def token_secret(token: str, number: int = 1) -> LiveSecret:
    return LiveSecret(number, TOKEN, hashlib.sha256(token.encode()).digest(), b"", None)


def signing_secret(key: str, number: int = 1) -> LiveSecret:
    return LiveSecret(number, HMAC, b"", key.encode(), None)


def by_path(token: str) -> Delivery:
    return Delivery(BODY, token, "")


def signed(signature: str) -> Delivery:
    return Delivery(BODY, "", signature)


def test_the_token_in_the_path() -> None:
    secrets = (token_secret("t0ken"),)

    assert verify(by_path("t0ken"), {}, secrets) == secrets[0]
    for wrong in ("", "t0ke", "t0ken ", "T0KEN", "t0kenn", "тоken", "\ud800", "t0ken\x00"):
        assert verify(by_path(wrong), {}, secrets) is None


@pytest.mark.parametrize("field", ["secret", "token", "passphrase", "key"])
def test_the_token_in_the_body(field: str) -> None:
    secrets = (token_secret("t0ken"),)

    assert verify(by_path(""), {field: "t0ken"}, secrets) == secrets[0]
    for wrong in ("t0ke", "", " t0ken", None, True, ["t0ken"], {"t0ken": "t0ken"}, 5):
        assert verify(by_path(""), {field: wrong}, secrets) is None
    assert verify(by_path("wrong"), {field: "t0ken"}, secrets) is None


def test_the_first_field_that_holds_something_counts() -> None:
    secrets = (token_secret("t0ken"),)

    assert verify(by_path(""), {"key": "x", "secret": "t0ken"}, secrets) == secrets[0]
    assert verify(by_path(""), {"secret": "", "token": "t0ken"}, secrets) == secrets[0]
    assert verify(by_path(""), {"secret": "x", "token": "t0ken"}, secrets) is None


@pytest.mark.parametrize(
    ("body", "proves"),
    [
        (b'{"secret": "t0ken", "quantity": }', True),
        (b'{"key": "x", "secret" : "t0ken"', True),
        (b'[{"passphrase":"t0ken"}]', True),
        (b'{"secret": "\\u00740ken", }', True),
        ('{"secret": "t0ken"'.encode("utf-16-le"), True),
        (b'{"secret": "t0ken', False),
        (b"secret: t0ken", False),
        (b"t0ken", False),
        (b"", False),
    ],
)
def test_the_token_in_a_body_nobody_can_parse(body: bytes, proves: bool) -> None:
    proven = verify(Delivery(body, "", ""), None, (token_secret("t0ken"),))

    assert (proven is not None) is proves


def test_a_signature_over_the_raw_bytes() -> None:
    secrets = (signing_secret("k3y"),)
    right = signature_of(BODY, "k3y")

    for signature in (right, right.upper(), f"sha256={right}", f" {right} "):
        assert verify(signed(signature), {}, secrets) == secrets[0]


@pytest.mark.parametrize(
    "signature",
    [
        "",
        " ",
        "sha256=",
        "0" * 64,
        signature_of(BODY, "k3y")[:-1],
        signature_of(BODY, "k3y")[:8],
        signature_of(BODY, "k3y") + "0",
        signature_of(BODY + b" ", "k3y"),
        signature_of(BODY, "K3Y"),
        signature_of(BODY, ""),
        "k3y",
        "ü" * 64,
        "\ud800",
        "٠" * 64,
        "x" * 10_000,
    ],
)
def test_signatures_that_prove_nothing(signature: str) -> None:
    assert verify(signed(signature), {}, (signing_secret("k3y"),)) is None


def test_a_secret_works_only_in_its_own_profile() -> None:
    assert verify(by_path("k3y"), {"secret": "k3y"}, (signing_secret("k3y"),)) is None
    assert verify(signed(signature_of(BODY, "t0ken")), {}, (token_secret("t0ken"),)) is None
    assert verify(signed(signature_of(BODY, "")), {}, (signing_secret(""),)) is None
    assert verify(by_path(""), {"secret": ""}, (token_secret(""),)) is None


def test_the_old_and_the_new_secret_both_work() -> None:
    secrets = (token_secret("new", 2), token_secret("old", 1), signing_secret("k3y", 3))

    for delivery, number in (
        (by_path("new"), 2),
        (by_path("old"), 1),
        (signed(signature_of(BODY, "k3y")), 3),
    ):
        proven = verify(delivery, {}, secrets)
        assert proven is not None
        assert proven.id == number
    assert verify(by_path("new"), {}, ()) is None


def test_nothing_secret_is_in_a_repr() -> None:
    shown = repr((token_secret("t0ken"), signing_secret("k3y"), Delivery(b"b0dy", "t0ken", "s1g")))

    for secret in ("t0ken", "k3y", "b0dy", "s1g", hashlib.sha256(b"t0ken").hexdigest()):
        assert secret not in shown
    assert "digest" not in shown


@pytest.mark.django_db
class TestStoredSecrets:
    @pytest.fixture(autouse=True)
    def _new_process(self) -> None:
        forget()
        authentication._noted.clear()

    def test_a_new_secret_is_no_option_of_a_command_line(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn = iter(["-abc", "--token", "good"])
        monkeypatch.setattr(authentication.secrets, "token_urlsafe", lambda _: next(drawn))

        assert authentication._fresh("token") == "good"

    def test_of_a_token_only_the_digest_is_stored(self) -> None:
        row, token = new_secret(StrategyFactory.create(), TOKEN)

        assert len(token) == 32
        assert (row.digest, row.sealed) == (hashlib.sha256(token.encode()).hexdigest(), "")
        assert verify(by_path(token), {}, (live(row),)) is not None

    def test_a_signing_key_is_stored_encrypted_and_bound_to_its_strategy(self) -> None:
        row, key = new_secret(StrategyFactory.create(), HMAC, "k3y-of-the-sender")

        assert key == "k3y-of-the-sender"
        assert row.digest == ""
        assert key not in row.sealed
        assert live(row).key == b"k3y-of-the-sender"
        row.strategy = StrategyFactory.create()
        with pytest.raises(crypto.DecryptionError):
            live(row)

    def test_two_secrets_never_come_out_the_same(self) -> None:
        strategy = StrategyFactory.create()

        assert len({new_secret(strategy, profile)[1] for profile in (TOKEN, HMAC) * 5}) == 10

    def test_an_expired_secret_is_not_live(self) -> None:
        strategy = StrategyFactory.create()
        now = timezone.now()
        for name, expires_at in (
            ("old", now - timedelta(seconds=1)),
            ("fading", now + timedelta(days=1)),
            ("new", None),
        ):
            row, _ = new_secret(strategy, TOKEN, name)
            WebhookSecret.objects.filter(pk=row.pk).update(expires_at=expires_at)

        config = config_of(strategy.slug)

        assert config is not None
        assert verify(by_path("old"), {}, config.secrets) is None
        assert verify(by_path("fading"), {}, config.secrets) is not None
        assert verify(by_path("new"), {}, config.secrets) is not None

    def test_a_secret_that_cannot_be_opened_does_not_shut_out_the_others(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        strategy = StrategyFactory.create()
        broken, _ = new_secret(strategy, HMAC)
        WebhookSecret.objects.filter(pk=broken.pk).update(sealed="0badc0de.AAAA")
        _, token = new_secret(strategy, TOKEN)

        config = config_of(strategy.slug)

        assert config is not None
        assert [secret.profile for secret in config.secrets] == [TOKEN]
        assert verify(by_path(token), {}, config.secrets) is not None
        assert f"webhook secret {broken.pk} cannot be opened" in caplog.text

    def test_use_is_noted_once_a_minute(
        self, django_assert_num_queries, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row, _ = new_secret(StrategyFactory.create(), TOKEN)
        clock = iter((1000.0, 1059.9, 1060.0, 1061.0))
        monkeypatch.setattr(authentication, "monotonic", lambda: next(clock))
        started = timezone.now()
        noted = []

        for minutes, statements in ((0, 1), (1, 0), (2, 1), (3, 0)):
            with (
                time_machine.travel(started + timedelta(minutes=minutes), tick=False),
                django_assert_num_queries(statements),
            ):
                authentication.note_use(live(row))
            row.refresh_from_db()
            noted.append(row.last_used_at - started)

        assert [delta // timedelta(minutes=1) for delta in noted] == [0, 0, 2, 2]

    def test_each_secret_is_noted_for_itself(self) -> None:
        strategy = StrategyFactory.create()
        used, unused = (new_secret(strategy, TOKEN)[0] for _ in range(2))

        authentication.note_use(live(used))

        used.refresh_from_db()
        unused.refresh_from_db()
        assert used.last_used_at is not None
        assert unused.last_used_at is None

    def test_a_use_that_cannot_be_noted_is_no_error(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        row, _ = new_secret(StrategyFactory.create(), TOKEN)

        def refuse(**_: object) -> None:
            raise OperationalError("the connection is closed")

        monkeypatch.setattr(WebhookSecret.objects, "filter", refuse)
        authentication.note_use(live(row))

        assert f"the use of webhook secret {row.pk} could not be noted" in caplog.text
