"""Who may ask the agent, and where it listens."""

from __future__ import annotations

import pytest

from brokers.bridge.listening import OpenDoorError, check_address
from brokers.bridge.signing import (
    WINDOW,
    Doorkeeper,
    NotNowError,
    SignatureError,
    new_key,
    read_key,
    sign_answer,
    sign_request,
)

KEY = read_key(new_key())
NOW = 1_800_000_000
NONCE = "a-nonce-of-some-length"


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


def admit(door: Doorkeeper, at: int = NOW, nonce: str = NONCE, body: bytes = b"{}") -> None:
    door.admit("/v1/health", str(at), nonce, sign_request(KEY, "/v1/health", at, nonce, body), body)


def test_a_request_is_let_in_once() -> None:
    door = Doorkeeper(KEY, Clock())
    admit(door)
    with pytest.raises(SignatureError, match="was here already"):
        admit(door)
    admit(door, nonce="another-nonce-of-a-length")


@pytest.mark.parametrize(
    ("path", "at", "nonce", "body"),
    [
        ("/v1/execute_order", NOW, NONCE, b"{}"),
        ("/v1/health", NOW + 1, NONCE, b"{}"),
        ("/v1/health", NOW, NONCE + "x", b"{}"),
        ("/v1/health", NOW, NONCE, b'{"a": 1}'),
    ],
)
def test_a_signature_holds_for_nothing_else(path: str, at: int, nonce: str, body: bytes) -> None:
    signature = sign_request(KEY, "/v1/health", NOW, NONCE, b"{}")
    with pytest.raises(SignatureError, match="wrong signature"):
        Doorkeeper(KEY, Clock()).admit(path, str(at), nonce, signature, body)


def test_another_key_opens_nothing() -> None:
    signature = sign_request(read_key(new_key()), "/v1/health", NOW, NONCE, b"{}")
    with pytest.raises(SignatureError, match="wrong signature"):
        Doorkeeper(KEY, Clock()).admit("/v1/health", str(NOW), NONCE, signature, b"{}")


@pytest.mark.parametrize(("late", "passes"), [(WINDOW, True), (WINDOW + 1, False)])
def test_an_old_request_is_refused(late: int, *, passes: bool) -> None:
    clock = Clock()
    door = Doorkeeper(KEY, clock)
    clock.now += late
    if passes:
        admit(door)
    else:
        with pytest.raises(NotNowError, match="clocks differ by -31 s"):
            admit(door)


def test_a_restarted_agent_takes_nothing_from_before() -> None:
    with pytest.raises(NotNowError, match="before this agent started"):
        admit(Doorkeeper(KEY, Clock()), at=NOW - 1)


@pytest.mark.parametrize("timestamp", ["", "-5", "1e9", "١٢٣", "9" * 12])
def test_an_odd_time_is_refused(timestamp: str) -> None:
    with pytest.raises(SignatureError, match="no time"):
        Doorkeeper(KEY, Clock()).admit("/v1/health", timestamp, NONCE, "", b"{}")


def test_an_answer_belongs_to_its_question() -> None:
    signed = sign_answer(KEY, NONCE, 200, b"{}")
    others = [("other", 200, b"{}"), (NONCE, 400, b"{}"), (NONCE, 200, b"null")]
    assert all(signed != sign_answer(KEY, *other) for other in others)
    assert signed != sign_request(KEY, NONCE, 200, "", b"{}")


@pytest.mark.parametrize("text", ["", "short", "A" * 43, "not base64 !!!"])
def test_a_key_is_32_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        read_key(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_may_listen_plainly(host: str) -> None:
    check_address(host, tls=False, vpn=False)


@pytest.mark.parametrize("host", ["10.8.0.2", "172.16.0.1", "192.168.1.5", "100.64.0.7", "fd00::1"])
def test_a_private_address_needs_the_operators_word(host: str) -> None:
    check_address(host, tls=False, vpn=True)
    with pytest.raises(OpenDoorError, match="vpn = true"):
        check_address(host, tls=False, vpn=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8", "172.32.0.1", "bridge.example", ""])  # noqa: S104
def test_an_open_door_needs_tls(host: str) -> None:
    check_address(host, tls=True, vpn=False)
    with pytest.raises(OpenDoorError):
        check_address(host, tls=False, vpn=True)
