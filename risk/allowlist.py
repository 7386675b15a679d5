"""Client addresses: where a request really comes from, and whether that address is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from risk.models import AllowedNetwork

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """The address in ``text``, IPv4-mapped IPv6 unwrapped, without a zone (``%eth0``), which means
    nothing elsewhere; ``None`` for anything that is not one.
    """
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


@lru_cache(maxsize=256)
def networks(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    """Parsed networks; raises ValueError for a malformed one."""
    return tuple(ip_network(cidr) for cidr in cidrs)


def contains(nets: Iterable[Network], address: Address | None) -> bool:
    """Whether ``address`` lies in one of ``nets``; no address lies in none."""
    return address is not None and any(
        address in net for net in nets if net.version == address.version
    )


def matching(nets: Iterable[Network], address: Address | None) -> Network | None:
    """The first of ``nets`` in which ``address`` lies."""
    return next((net for net in nets if contains((net,), address)), None)


def client_address(
    remote_addr: str, forwarded_for: str, trusted: tuple[str, ...]
) -> Address | None:
    """The client behind our own proxies.

    ``remote_addr`` unless that is a trusted proxy; then the first hop of ``X-Forwarded-For``, read
    from the right, that is not a trusted proxy. An unreadable hop ends the walk with ``None``,
    which no allowlist contains: entries further left may be forged.
    """
    proxies = networks(trusted)
    address = parse_address(remote_addr)
    if not contains(proxies, address):
        return address
    for hop in reversed(forwarded_for.split(",")) if forwarded_for else ():
        address = parse_address(hop)
        if address is None or not contains(proxies, address):
            return address
    return address


def allowed_cidrs(allowlist_id: int) -> tuple[str, ...]:
    """The networks of an allowlist as text, sorted."""
    rows = AllowedNetwork.objects.filter(allowlist_id=allowlist_id)
    return tuple(rows.order_by("cidr").values_list("cidr", flat=True))
