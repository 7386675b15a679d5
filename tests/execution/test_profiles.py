"""The profiles ``standard`` and ``jwt``, client certificates and rotation, as senders meet them."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import time_machine
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from execution import standard_webhooks
from execution.authentication import new_secret
from execution.models import Signal, Strategy, WebhookSecret
from execution.strategies import StrategyError, create_strategy
from tests.execution.posting import body_of, forget, post, stored
from tests.factories import PASSWORD, RouteFactory, StrategyFactory, UserFactory, webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]

UNAUTHENTICATED = b'{"code":"UNAUTHENTICATED","detail":"authentication failed"}'
PROXY = "10.0.0.1"


def standard(
    slug: str, secret: str, body: bytes, *, id: str = "msg_1", at: float | None = None
) -> HttpResponse:
    now = str(int(time.time() if at is None else at))
    signature = standard_webhooks.signature(standard_webhooks.key_of(secret), id, now, body)
    headers = {"WEBHOOK_ID": id, "WEBHOOK_TIMESTAMP": now, "WEBHOOK_SIGNATURE": signature}
    return post(slug, body, **{f"HTTP_{name}": value for name, value in headers.items()})


def bearing(slug: str, token: str, body: bytes = b"", scheme: str = "Bearer") -> HttpResponse:
    return post(slug, body or body_of(), HTTP_AUTHORIZATION=f"{scheme} {token}")


class TestStandard:
    def test_a_signed_delivery_is_stored_once(self) -> None:
        strategy, secret = webhook(auth=Strategy.Auth.STANDARD)
        body = body_of()

        first = standard(strategy.slug, secret, body)
        assert first.status_code == 202
        again = standard(strategy.slug, secret, body)
        assert (again.status_code, again.json()["signal_id"]) == (200, first.json()["signal_id"])
        other = standard(strategy.slug, secret, body, id="msg_2")
        assert other.status_code == 202
        assert set(Signal.objects.values_list("auth", flat=True)) == {"standard"}

    def test_the_header_names_the_delivery_whatever_the_body_says(self) -> None:
        strategy, secret = webhook(auth=Strategy.Auth.STANDARD)

        assert standard(strategy.slug, secret, body_of(id="a")).status_code == 202
        assert standard(strategy.slug, secret, body_of(id="b")).status_code == 200
        assert standard(strategy.slug, secret, body_of(id="a"), id="msg_2").status_code == 202

    def test_its_time_is_the_alerts_where_the_body_has_none(self) -> None:
        strategy, secret = webhook(auth=Strategy.Auth.STANDARD)
        at = int(time.time()) - 60

        standard(strategy.slug, secret, body_of(), at=at)
        standard(strategy.slug, secret, body_of(timestamp=at - 5), id="msg_2", at=at)

        moments = Signal.objects.order_by("id").values_list("sent_at", flat=True)
        assert list(moments) == [
            datetime.fromtimestamp(at, UTC),
            datetime.fromtimestamp(at - 5, UTC),
        ]

    def test_what_proves_nothing(self) -> None:
        strategy, secret = webhook(auth=Strategy.Auth.STANDARD)
        _, other = webhook(auth=Strategy.Auth.STANDARD)
        body, now = body_of(), time.time()
        answers = [
            standard(strategy.slug, secret, body, at=now - 310),
            standard(strategy.slug, secret, body, at=now + 310),
            standard(strategy.slug, other, body),
            standard("nobody", secret, body),
            post(strategy.slug, body_of(secret=secret)),
            post(f"{strategy.slug}/{secret}", body),
            post(f"{strategy.slug}/with/a/slash", body),
            post(strategy.slug, body, HTTP_WEBHOOK_ID="m", HTTP_WEBHOOK_TIMESTAMP=str(int(now))),
        ]

        assert {answer.status_code for answer in answers} == {401}
        assert {answer.content for answer in answers} == {UNAUTHENTICATED}
        assert stored() == (0, 0, 0)

    def test_a_replay_after_the_tolerance_is_refused_and_before_it_a_duplicate(self) -> None:
        strategy, secret = webhook(auth=Strategy.Auth.STANDARD)
        start = time.time()
        assert standard(strategy.slug, secret, body_of(), at=start).status_code == 202

        with time_machine.travel(start + 290):
            assert standard(strategy.slug, secret, body_of(), at=start).status_code == 200
        with time_machine.travel(start + 310):
            assert standard(strategy.slug, secret, body_of(), at=start).status_code == 401


class TestBearer:
    @pytest.fixture
    def strategy(self) -> Strategy:
        strategy = StrategyFactory.create(auth=Strategy.Auth.JWT)
        RouteFactory.create(strategy=strategy)
        return strategy

    def test_a_token_from_the_api(self, strategy: Strategy) -> None:
        user = UserFactory.create()
        strategy.senders.add(user)
        login = {"username": user.username, "password": PASSWORD}

        pair = Client().post("/api/token", login, content_type="application/json").json()

        assert bearing(strategy.slug, pair["access"]).status_code == 202
        assert bearing(strategy.slug, pair["access"]).status_code == 200
        assert bearing(strategy.slug, pair["refresh"]).status_code == 401
        assert Signal.objects.get().auth == "jwt"
        assert Signal.objects.get().alert["posted_by"] == str(user.pk)

    def test_who_may_post(self, strategy: Strategy) -> None:
        listed, elsewhere, permitted, nobody, gone = UserFactory.create_batch(5)
        strategy.senders.add(listed, gone)
        StrategyFactory.create(auth=Strategy.Auth.JWT).senders.add(elsewhere)
        permitted.user_permissions.add(Permission.objects.get(codename="post_alert"))
        User.objects.filter(pk=gone.pk).update(is_active=False)
        chief = UserFactory.create(is_superuser=True)

        statuses = [
            bearing(strategy.slug, str(AccessToken.for_user(user)), body_of(id=user.username))
            for user in (listed, permitted, chief, elsewhere, nobody, gone)
        ]

        assert [one.status_code for one in statuses] == [202, 202, 202, 401, 401, 401]

    @pytest.mark.alone
    def test_a_user_who_may_no_longer_post_is_out_within_a_second(self, strategy: Strategy) -> None:
        user = UserFactory.create()
        strategy.senders.add(user)
        token = str(AccessToken.for_user(user))
        assert bearing(strategy.slug, token).status_code == 202

        strategy.senders.remove(user)

        started = time.monotonic()
        while bearing(strategy.slug, token).status_code != 401:
            assert time.monotonic() - started < 1

    def test_tokens_that_prove_nothing(self, strategy: Strategy) -> None:
        user = UserFactory.create(is_superuser=True)
        key = django_settings.SECRET_KEY
        claims: dict[str, Any] = {
            "token_type": "access",
            "exp": int(time.time()) + 300,
            "iat": int(time.time()),
            "jti": "x",
            "user_id": str(user.pk),
            "aud": "fks",
            "iss": "fks",
        }
        good = jwt.encode(claims, key, "HS256")
        assert bearing(strategy.slug, good).status_code == 202
        forget()

        def encoded(algorithm: str = "HS256", with_key: Any = key, **changes: Any) -> str:
            return jwt.encode(claims | changes, with_key, algorithm)

        def unsigned(algorithm: str) -> str:
            head = json.dumps({"alg": algorithm, "typ": "JWT"}).encode()
            parts = [base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in (head,)]
            return f"{parts[0]}.{good.split('.')[1]}."

        head, payload, signature = good.split(".")
        expired = {"exp": int(time.time()) - 1}
        tokens = [
            encoded("none", None),
            *(unsigned(name) for name in ("none", "None", "NONE", "nOnE", "HS256", "")),
            encoded("HS512"),
            encoded("HS384"),
            encoded(with_key="x" * 40),
            f"{head}.{payload}.{signature[:-4]}",
            f"{head}.{payload}",
            f"{head}..{signature}",
            encoded(**expired),
            encoded(aud="another"),
            encoded(aud=["another"]),
            encoded(iss="another"),
            encoded(token_type="refresh"),
            encoded(token_type=""),
            encoded(user_id="0"),
            encoded(user_id=None),
            encoded(nbf=int(time.time()) + 600),
            jwt.encode({k: v for k, v in claims.items() if k != "exp"}, key, "HS256"),
            jwt.encode({k: v for k, v in claims.items() if k != "aud"}, key, "HS256"),
            str(RefreshToken.for_user(user)),
            *("", " ", "x", "a.b.c", "ü.ü.ü", "x" * 20_000),
        ]

        answers = [bearing(strategy.slug, token, body_of(id="n")) for token in tokens]
        answers += [
            bearing(strategy.slug, good, body_of(id="n"), scheme=scheme)
            for scheme in ("Basic", "Token", "Bearer:", "")
        ]
        answers.append(post(strategy.slug, body_of(secret=good, id="n")))

        assert [one.status_code for one in answers] == [401] * len(answers)
        assert {one.content for one in answers} == {UNAUTHENTICATED}
        assert stored()[0] == 1

    def test_a_public_key_is_no_secret(self, strategy: Strategy) -> None:
        """HS/RS confusion: a token signed with a public key as if that were the shared secret."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        private = rsa.generate_private_key(65537, 2048)
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        user = UserFactory.create(is_superuser=True)
        claims = AccessToken.for_user(user).payload

        assert bearing(strategy.slug, jwt.encode(claims, pem, "RS256")).status_code == 401

    def test_a_bearer_opens_no_strategy_of_another_profile(self) -> None:
        strategy, _ = webhook()
        token = str(AccessToken.for_user(UserFactory.create(is_superuser=True)))

        assert bearing(strategy.slug, token).status_code == 401


class TestCertificate:
    FINGERPRINT = "a1" * 20

    @pytest.fixture(autouse=True)
    def _behind_a_proxy(self, settings: Any) -> None:
        settings.TRUSTED_PROXIES = ("10.0.0.0/8",)

    def status(self, strategy: Strategy, token: str, peer: str = PROXY, **headers: str) -> int:
        forget()
        named = {f"HTTP_X_CLIENT_CERT_{name.upper()}": text for name, text in headers.items()}
        body = body_of(secret=token, id=str(time.time_ns()))
        return post(strategy.slug, body, REMOTE_ADDR=peer, **named).status_code

    @pytest.mark.parametrize("written", ["a1" * 20, "A1:" * 19 + "A1", f"{'b2' * 32}\n{'a1' * 20}"])
    def test_a_pinned_fingerprint_from_a_trusted_proxy(self, written: str) -> None:
        strategy, token = webhook(client_fingerprints=written)

        assert self.status(strategy, token, fingerprint=self.FINGERPRINT) == 202
        assert self.status(strategy, token, fingerprint=self.FINGERPRINT.upper()) == 202
        assert self.status(strategy, token, fingerprint="c3" * 20) == 401
        assert self.status(strategy, token, fingerprint="") == 401
        assert self.status(strategy, token) == 401
        assert self.status(strategy, "wrong", fingerprint=self.FINGERPRINT) == 401

    def test_the_header_counts_for_nothing_from_elsewhere(self) -> None:
        strategy, token = webhook(client_fingerprints=self.FINGERPRINT)

        assert self.status(strategy, token, "203.0.113.9", fingerprint=self.FINGERPRINT) == 401

    def test_an_issuer_counts_only_of_a_verified_chain(self) -> None:
        strategy, token = webhook(client_issuer="CN=Pinned CA,O=Example")
        issuer = "CN=Pinned CA,O=Example"

        assert self.status(strategy, token, issuer=issuer, verify="SUCCESS") == 202
        for verify in ("", "NONE", "FAILED:self-signed certificate", "success"):
            assert self.status(strategy, token, issuer=issuer, verify=verify) == 401
        assert self.status(strategy, token, issuer="CN=Other", verify="SUCCESS") == 401

    def test_a_subject_proves_nothing(self) -> None:
        strategy, token = webhook(client_issuer="CN=Pinned CA")

        assert self.status(strategy, token, subject="CN=Pinned CA", verify="SUCCESS") == 401

    @pytest.mark.parametrize("text", ["xyz", "a1" * 19, "a1" * 33, "CN=TradingView"])
    def test_what_is_no_fingerprint(self, text: str) -> None:
        strategy, _ = webhook(client_fingerprints=text)

        with pytest.raises(ValidationError, match="is no fingerprint"):
            strategy.full_clean()


class TestStrategies:
    def test_a_standard_secret_is_shown_once_and_stored_sealed(self) -> None:
        created = create_strategy("s", accounts=[], auth="standard")

        assert created.secret_name == "standard_secret"
        assert len(standard_webhooks.key_of(created.secret)) == 32
        row = WebhookSecret.objects.get()
        assert row.digest == ""
        assert created.secret.removeprefix("whsec_") not in row.sealed
        assert created.strategy.is_enabled

    def test_a_secret_that_cannot_be_one_makes_no_strategy(self) -> None:
        with pytest.raises(StrategyError, match="24 to 64 bytes"):
            create_strategy("s", accounts=[], auth="standard", secret="whsec_c2hvcnQ=")
        assert not Strategy.objects.exists()

    def test_senders_of_a_jwt_strategy(self) -> None:
        user = UserFactory.create(username="robot")

        created = create_strategy("s", accounts=[], auth="jwt", options={"senders": "robot"})

        assert (created.secret_name, created.secret) == ("", "")
        assert list(created.strategy.senders.all()) == [user]
        with pytest.raises(StrategyError, match="no user 'nobody'"):
            create_strategy("t", accounts=[], auth="jwt", options={"senders": "robot, nobody"})
        with pytest.raises(StrategyError, match="profile jwt"):
            create_strategy("u", accounts=[], auth="hmac", options={"senders": "robot"})

    def test_without_a_live_secret_a_strategy_cannot_be_enabled(self) -> None:
        strategy = StrategyFactory.create(is_enabled=False)
        strategy.full_clean()
        strategy.is_enabled = True
        with pytest.raises(ValidationError, match="without a live secret cannot be enabled"):
            strategy.full_clean()
        row, _ = new_secret(strategy, Strategy.Auth.TOKEN)
        strategy.full_clean()
        WebhookSecret.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(1))
        with pytest.raises(ValidationError, match="without a live secret cannot be enabled"):
            strategy.full_clean()

    def test_a_jwt_strategy_needs_none(self) -> None:
        StrategyFactory.create(auth=Strategy.Auth.JWT).full_clean()
        with pytest.raises(ValueError, match="no secret"):
            new_secret(StrategyFactory.create(), Strategy.Auth.JWT)
