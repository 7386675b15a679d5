"""Checks at the door, before authentication: where a request comes from and how large it is."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest

from risk.allowlist import client_address, contains, networks, parse_address


def client_ip(request: HttpRequest) -> str | None:
    """The client's address behind our own proxies, as text; ``None`` when it cannot be told."""
    address = client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.META.get("HTTP_X_FORWARDED_FOR", ""),
        settings.TRUSTED_PROXIES,
    )
    return None if address is None else str(address)


def came_by_proxy(request: HttpRequest) -> bool:
    """Whether the peer itself is a trusted proxy: only then do its headers say anything."""
    peer = parse_address(request.META.get("REMOTE_ADDR", ""))
    return contains(networks(settings.TRUSTED_PROXIES), peer)
