"""Who is let in: credentials, signatures, addresses."""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from execution.models import Signal, Strategy, WebhookSecret
from risk.models import AllowedNetwork, IPAllowlist
from tests.execution import posting
from tests.execution.posting import body_of, post, received, signature_of, stored
from tests.factories import webhook

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process", "nudged")]

TRADINGVIEW = "52.89.214.238"
ELSEWHERE = "203.0.113.9"


def signed(slug: str, key: str, header: str = "X_WEBHOOK_SIGNATURE", **fields: Any) -> HttpResponse:
    body = body_of(**fields)
    return post(slug, body, **{f"HTTP_{header}": signature_of(body, key)})


def allow(strategy: Strategy, *cidrs: str) -> None:
    strategy.allowlist = IPAllowlist.objects.create(name=f"list-{strategy.slug}")
    strategy.save()
    for cidr in cidrs:
        AllowedNetwork.objects.create(allowlist=strategy.allowlist, cidr=cidr)


class TestUnauthenticated:
    def refused(self, response: HttpResponse) -> bytes:
        assert response.status_code == 401
        assert stored() == (0, 0, 0)
        return response.content

    def test_one_constant_answer_for_everything_that_proves_nothing(self) -> None:
        token_strategy, token = webhook()
        hmac_strategy, key = webhook(auth=Strategy.Auth.HMAC)
        body, now = body_of(), int(time.time())
        right = signature_of(body, key)
        answers = [
            post("nobody", body),
            post(f"nobody/{token}", body),
            post("not%00a%00slug", body),
            post("%ff%fe", body),
            post("x" * 63, body),
            post(token_strategy.slug, body),
            post(token_strategy.slug, body_of(secret="")),
            post(token_strategy.slug, body_of(secret=token[:-1])),
            post(token_strategy.slug, body_of(secret=[token])),
            post(token_strategy.slug, body_of(Secret=token)),
            post(token_strategy.slug, b""),
            post(token_strategy.slug, b"[" * 60_000),
            post(token_strategy.slug, body, HTTP_AUTHORIZATION=f"Bearer {token}"),
            post(token_strategy.slug, body, HTTP_X_WEBHOOK_SIGNATURE=right),
            post(f"{token_strategy.slug}/wrong", body_of(secret=token)),
            post(f"{token_strategy.slug}/%ed%a0%80", body),
            post(f"{token_strategy.slug}/%00", body),
            post(hmac_strategy.slug, body_of(timestamp=now)),
            post(hmac_strategy.slug, body_of(secret=key)),
            post(f"{hmac_strategy.slug}/{key}", body),
            post(hmac_strategy.slug, body, HTTP_X_WEBHOOK_SIGNATURE=""),
            post(hmac_strategy.slug, body, HTTP_X_WEBHOOK_SIGNATURE=right[:-2]),
            post(hmac_strategy.slug, body, HTTP_X_WEBHOOK_SIGNATURE="ü" * 64),
            post(hmac_strategy.slug, body + b" ", HTTP_X_WEBHOOK_SIGNATURE=right),
            post(token_strategy.slug, body_of(secret=key)),
        ]

        assert {self.refused(response) for response in answers} == {
            b'{"code":"UNAUTHENTICATED","detail":"authentication failed"}'
        }
        assert len({frozenset(response.headers.items()) for response in answers}) == 1

    def test_a_deleted_strategy_is_unknown(self) -> None:
        strategy, token = webhook()
        WebhookSecret.objects.all().delete()

        self.refused(post(strategy.slug, body_of(secret=token)))


class TestSigned:
    def test_both_header_names(self) -> None:
        strategy, key = webhook(auth=Strategy.Auth.HMAC)
        now = int(time.time())

        for header in ("X_WEBHOOK_SIGNATURE", "X_TRADINGVIEW_SIGNATURE"):
            response = signed(strategy.slug, key, header, timestamp=now, id=header)
            assert response.status_code == 202
        assert set(Signal.objects.values_list("auth", flat=True)) == {"hmac"}

    def test_the_timestamp_is_required(self) -> None:
        strategy, key = webhook(auth=Strategy.Auth.HMAC)

        for fields in ({}, {"timestamp": None}, {"timestamp": ""}):
            response = signed(strategy.slug, key, **fields)
            assert response.status_code == 400
            assert response.json()["errors"] == [
                {"field": "timestamp", "code": "REQUIRED", "detail": "signed alerts need it"}
            ]
        assert stored() == (0, 0, 3)

    @pytest.mark.parametrize("time", ["{{timenow}}", "NaN"])
    def test_a_close_needs_it_too(self, time: str) -> None:
        strategy, key = webhook(auth=Strategy.Auth.HMAC)

        response = signed(strategy.slug, key, action="close", timestamp=time)

        assert response.status_code == 400
        assert [one["field"] for one in response.json()["errors"]] == ["timestamp"]
        assert stored() == (0, 0, 1)

    @pytest.mark.parametrize(
        ("age", "reason"), [(301, "STALE"), (285, ""), (-285, ""), (-315, "FROM_THE_FUTURE")]
    )
    def test_only_a_fresh_signature_trades(self, worked_off: None, age: int, reason: str) -> None:
        strategy, key = webhook(auth=Strategy.Auth.HMAC)

        assert signed(strategy.slug, key, timestamp=int(time.time()) - age).status_code == 202
        assert Signal.objects.get().reason == reason


class TestAddresses:
    BODY_401 = b'{"code":"UNAUTHENTICATED","detail":"authentication failed"}'

    def status(self, strategy: Strategy, token: str, **extra: Any) -> int:
        posting.forget()
        return post(
            strategy.slug, body_of(secret=token, id=str(time.time_ns())), **extra
        ).status_code

    def test_only_the_allowlist_may_post(self) -> None:
        strategy, token = webhook()
        allow(strategy, f"{TRADINGVIEW}/32", "2001:db8::/32")

        response = post(strategy.slug, body_of(secret=token), REMOTE_ADDR=ELSEWHERE)

        assert response.status_code == 403
        assert response.json() == {
            "code": "ADDRESS_NOT_ALLOWED",
            "detail": "this address may not post here",
        }
        assert stored() == (0, 0, 0)
        assert self.status(strategy, token, REMOTE_ADDR=TRADINGVIEW) == 202
        assert self.status(strategy, token, REMOTE_ADDR=f"::ffff:{TRADINGVIEW}") == 202
        assert self.status(strategy, token, REMOTE_ADDR="2001:db8::5") == 202
        assert self.status(strategy, token, REMOTE_ADDR="2001:db9::5") == 403
        assert self.status(strategy, token, REMOTE_ADDR="") == 403
        assert self.status(strategy, "wrong", REMOTE_ADDR=TRADINGVIEW) == 401
        assert self.status(strategy, "wrong", REMOTE_ADDR=ELSEWHERE) == 403

    def test_a_strangers_body_is_not_waited_for(self) -> None:
        class Endless(BytesIO):
            def read(self, *_: Any) -> bytes:
                raise AssertionError("the body was read")

        strategy, _ = webhook()
        allow(strategy, f"{TRADINGVIEW}/32")
        request = RequestFactory().post("/webhook/x", CONTENT_LENGTH="10", REMOTE_ADDR=ELSEWHERE)
        request._stream = Endless()

        assert received(request, strategy.slug).status == "not_allowed"

    def test_an_empty_allowlist_admits_nobody(self) -> None:
        strategy, token = webhook()
        allow(strategy)

        assert self.status(strategy, token, REMOTE_ADDR="127.0.0.1") == 403

    def test_without_an_allowlist_any_address_may_post(self) -> None:
        strategy, token = webhook()

        assert self.status(strategy, token, REMOTE_ADDR=ELSEWHERE) == 202
        assert self.status(strategy, token, REMOTE_ADDR="fe80::1%eth0") == 202
        assert self.status(strategy, token, REMOTE_ADDR="") == 202
        addresses = Signal.objects.order_by("id").values_list("address", flat=True)
        assert list(addresses) == [ELSEWHERE, "fe80::1", None]

    def test_a_forged_header_counts_for_nothing(self, settings: Any) -> None:
        strategy, token = webhook()
        allow(strategy, f"{TRADINGVIEW}/32")
        forged = {"REMOTE_ADDR": ELSEWHERE, "HTTP_X_FORWARDED_FOR": TRADINGVIEW}

        settings.TRUSTED_PROXIES = ()
        assert self.status(strategy, token, **forged) == 403
        assert self.status(strategy, token, **forged, HTTP_X_REAL_IP=TRADINGVIEW) == 403
        settings.TRUSTED_PROXIES = ("10.0.0.0/8",)
        assert self.status(strategy, token, **forged) == 403

    @pytest.mark.parametrize(
        ("forwarded", "status"),
        [
            (TRADINGVIEW, 202),
            (f"::ffff:{TRADINGVIEW}", 202),
            (f"{ELSEWHERE}, {TRADINGVIEW}", 202),
            (f"{TRADINGVIEW}, 10.0.0.7", 202),
            (f"{TRADINGVIEW}, {ELSEWHERE}", 403),
            (f"{TRADINGVIEW}, {ELSEWHERE}, 10.0.0.7", 403),
            (f"{TRADINGVIEW}, unknown", 403),
            (f"{TRADINGVIEW},", 403),
            ("", 403),
        ],
    )
    def test_behind_a_trusted_proxy(self, settings: Any, forwarded: str, status: int) -> None:
        settings.TRUSTED_PROXIES = ("10.0.0.0/8",)
        strategy, token = webhook()
        allow(strategy, f"{TRADINGVIEW}/32")

        came = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": forwarded}
        assert self.status(strategy, token, **came) == status

    @pytest.mark.alone
    def test_a_changed_allowlist_acts_within_a_second(self) -> None:
        strategy, token = webhook()
        allow(strategy, f"{TRADINGVIEW}/32")
        body = body_of(secret=token)
        assert post(strategy.slug, body, REMOTE_ADDR=ELSEWHERE).status_code == 403
        AllowedNetwork.objects.create(allowlist=strategy.allowlist, cidr=f"{ELSEWHERE}/32")

        started = time.monotonic()
        while post(strategy.slug, body, REMOTE_ADDR=ELSEWHERE).status_code != 202:
            assert time.monotonic() - started < 1
