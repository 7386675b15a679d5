"""The client's address as every guard at the door sees it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from execution.guards import client_ip


def seen(settings: Any, *trusted: str, remote: str, forwarded: str = "") -> str | None:
    settings.TRUSTED_PROXIES = trusted
    request = RequestFactory().post(
        "/webhook/x",
        REMOTE_ADDR=remote,
        HTTP_X_FORWARDED_FOR=forwarded,
        HTTP_X_REAL_IP="198.51.100.1",
        HTTP_FORWARDED="for=198.51.100.1",
        HTTP_CLIENT_IP="198.51.100.1",
    )
    return client_ip(request)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:DB8:0::9", "2001:db8::9"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("unix:", None),
        ("203.0.113.9:443", None),
    ],
)
def test_without_proxies_it_is_the_peer(settings: Any, remote: str, address: str | None) -> None:
    assert seen(settings, remote=remote, forwarded="198.51.100.1") == address


def test_a_trusted_proxy_names_the_client(settings: Any) -> None:
    networks = ("10.0.0.0/8",)

    assert seen(settings, *networks, remote="10.0.0.1", forwarded="203.0.113.9") == "203.0.113.9"
    forged = "198.51.100.1, 203.0.113.9"
    assert seen(settings, *networks, remote="10.0.0.1", forwarded=forged) == "203.0.113.9"
    assert (
        seen(settings, *networks, remote="203.0.113.9", forwarded="198.51.100.1") == "203.0.113.9"
    )


def test_a_request_without_any_address(settings: Any) -> None:
    settings.TRUSTED_PROXIES = ()
    request = RequestFactory().post("/webhook/x")
    del request.META["REMOTE_ADDR"]

    assert client_ip(request) is None
