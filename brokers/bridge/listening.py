"""Where the agent may listen: this machine, a private network the operator vouches for, or TLS."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

PRIVATE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
"""Networks nobody routes: RFC 1918, shared addresses (used by some VPNs), and IPv6's own."""


class OpenDoorError(ValueError):
    """Listening or talking there would show orders to strangers."""


def check_address(host: str, *, tls: bool, vpn: bool) -> None:
    """Raise OpenDoorError unless ``host`` is safe for signed but readable traffic.

    ``vpn`` is the operator's word that a private address belongs to a tunnel. Names other than
    ``localhost`` are refused without TLS: where they lead may change.
    """
    if tls or host == "localhost":
        return
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError as error:
        raise OpenDoorError(f"{host!r} is not an address: without TLS name one") from error
    if address.is_loopback:
        return
    if any(address.version == net.version and address in net for net in PRIVATE):
        if vpn:
            return
        raise OpenDoorError(
            f"{host} is a private network: say vpn = true if it is a tunnel of yours, or use TLS"
        )
    raise OpenDoorError(f"{host} is open to others: use 127.0.0.1, a VPN address or TLS")
