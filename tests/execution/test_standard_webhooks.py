"""Standard Webhooks: the published vector, what its tolerance lets through, and what proves nothing."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from execution.standard_webhooks import (
    MalformedSecret,
    SignedHead,
    is_signed,
    key_of,
    new_secret,
    signature,
)

# spec/standard-webhooks.md and libraries/go/webhook_test.go of standard-webhooks
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
SENT = 1_614_265_330
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEAD = SignedHead("msg_p5jXN8AQM9LWM0D4loKWxJek", str(SENT), SIGNATURE)


def accepts(head: SignedHead = HEAD, *, body: bytes = BODY, now: float = SENT) -> bool:
    return is_signed(head, key_of(SECRET), body, now)


def test_the_published_vector() -> None:
    assert signature(key_of(SECRET), HEAD.id, HEAD.timestamp, BODY) == SIGNATURE
    assert accepts()


@pytest.mark.parametrize(
    ("seconds", "is_accepted"),
    [(0, True), (300, True), (-300, True), (301, False), (-301, False), (1e9, False)],
)
def test_300_seconds_either_way(seconds: float, is_accepted: bool) -> None:
    assert accepts(now=SENT + seconds) is is_accepted


def test_one_good_signature_of_the_list_is_enough() -> None:
    wrong = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

    for signatures in (f"{wrong} {SIGNATURE}", f"v1a,x v2,y {SIGNATURE}", f"{SIGNATURE} nonsense"):
        assert accepts(replace(HEAD, signatures=signatures))
    assert not accepts(replace(HEAD, signatures=" ".join([wrong] * 8 + [SIGNATURE])))


@pytest.mark.parametrize(
    "signatures",
    [
        *("", " ", "v1", "v1,", SIGNATURE[:-1], SIGNATURE[:10], SIGNATURE[3:], SIGNATURE.lower()),
        *(f"v1a,{SIGNATURE[3:]}", f"V1,{SIGNATURE[3:]}", f"v1;{SIGNATURE[3:]}", f"{SIGNATURE}="),
        *("v1,ü", "v1,\ud800", "v1," + "x" * 100_000),
    ],
)
def test_signatures_that_prove_nothing(signatures: str) -> None:
    assert not accepts(replace(HEAD, signatures=signatures))


@pytest.mark.parametrize(
    "timestamp",
    [*("", " ", "x", f"+{SENT}", f"-{SENT}", f"{SENT}.0", f" {SENT}", "1e9", "9" * 5000, "٣" * 10)],
)
def test_timestamps_that_are_none(timestamp: str) -> None:
    key = key_of(SECRET)
    forged = signature(key, HEAD.id, timestamp, BODY)

    assert not accepts(SignedHead(HEAD.id, timestamp, forged))


@pytest.mark.parametrize("id", ["", "a b", "ü", "x" * 151, "a\nb"])
def test_ids_that_are_none(id: str) -> None:
    forged = signature(key_of(SECRET), id, HEAD.timestamp, BODY)

    assert not accepts(SignedHead(id, HEAD.timestamp, forged))


def test_everything_is_signed() -> None:
    assert not accepts(body=BODY + b" ")
    assert not accepts(replace(HEAD, id="msg_another"))
    assert not accepts(replace(HEAD, timestamp=str(SENT + 1)))
    assert not is_signed(HEAD, key_of(new_secret()), BODY, SENT)


def test_a_new_secret() -> None:
    secrets = {new_secret() for _ in range(10)}

    assert len(secrets) == 10
    assert {len(key_of(secret)) for secret in secrets} == {32}
    assert all(secret.startswith("whsec_") for secret in secrets)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_secrets_of_another_size(size: int) -> None:
    secret = "whsec_" + base64.b64encode(b"x" * size).decode()

    with pytest.raises(MalformedSecret, match="24 to 64 bytes"):
        key_of(secret)


@pytest.mark.parametrize("secret", ["whsec_!!!!", "whsec_ü", "plain words", "whsec_abc"])
def test_secrets_that_are_none(secret: str) -> None:
    with pytest.raises(MalformedSecret) as caught:
        key_of(secret)
    assert secret not in str(caught.value)


def test_the_signature_is_not_in_the_repr() -> None:
    assert SIGNATURE[3:20] not in repr(HEAD)
