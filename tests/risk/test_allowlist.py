from __future__ import annotations

import time
from collections import Counter
from ipaddress import ip_address, ip_network

import pytest
from django.core.exceptions import ValidationError

from risk import network_hits
from risk.allowlist import allowed_cidrs, client_address, contains, networks, parse_address
from risk.models import AllowedNetwork, IPAllowlist, validate_network

PROXIES = ("10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("52.89.214.238", "52.89.214.238"),
        (" 52.89.214.238 ", "52.89.214.238"),
        ("::ffff:52.89.214.238", "52.89.214.238"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text", ["", "unknown", "52.89.214.238:443", "[::1]", "1.2.3", "01.2.3.4", "52.89.214.238, x"]
)
def test_what_is_no_address(text):
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "52.89.214.238", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "52.89.214.238", "52.89.214.238"),
        ("10.0.0.1", "52.89.214.238, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "52.89.214.238, 10.0.0.2", "52.89.214.238"),
        ("10.0.0.1", "52.89.214.238, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("::ffff:10.0.0.1", "::ffff:52.89.214.238", "52.89.214.238"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "52.89.214.238, unknown", None),
        ("10.0.0.1", "52.89.214.238,", None),
        ("", "52.89.214.238", None),
    ],
)
def test_the_client_is_read_from_the_right_past_our_own_proxies(remote, forwarded, client):
    expected = None if client is None else ip_address(client)
    assert client_address(remote, forwarded, PROXIES) == expected


def test_without_trusted_proxies_the_header_means_nothing():
    assert client_address("10.0.0.1", "52.89.214.238", ()) == ip_address("10.0.0.1")


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("192.0.2.0", True),
        ("192.0.2.127", True),
        ("192.0.2.128", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("::ffff:192.0.2.1", True),
        ("nonsense", False),
    ],
)
def test_contains(address, inside):
    allowed = networks(("192.0.2.0/25", "2001:db8::/32"))
    assert contains(allowed, parse_address(address)) is inside


def test_an_empty_allowlist_contains_nobody():
    assert not contains((), ip_address("192.0.2.1"))


def test_the_networks_of_one_allowlist(db):
    ours, theirs = (IPAllowlist.objects.create(name=name) for name in ("ours", "theirs"))
    for owner, cidr in ((ours, "192.0.2.2/32"), (ours, "192.0.2.1/32"), (theirs, "10.0.0.0/8")):
        AllowedNetwork.objects.create(allowlist=owner, cidr=cidr)
    assert allowed_cidrs(ours.pk) == ("192.0.2.1/32", "192.0.2.2/32")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("192.0.2.1/24", "did you mean 192.0.2.0/24"),
        ("example.org", "is not an address or network"),
        ("0.0.0.0/0", "the whole internet"),
        ("::/0", "the whole internet"),
    ],
)
def test_networks_an_operator_surely_did_not_mean(text, sentence):
    with pytest.raises(ValidationError, match=sentence):
        validate_network(text)


@pytest.mark.parametrize("text", ["52.89.214.238", "52.89.214.238/32", "2001:db8::/32"])
def test_networks_that_can_be_allowed(text):
    validate_network(text)


@pytest.mark.django_db
def test_hits_are_counted_in_the_process_and_written_now_and_then(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries
) -> None:
    allowlist = IPAllowlist.objects.create(name="list")
    row = AllowedNetwork.objects.create(allowlist=allowlist, cidr="192.0.2.0/24")
    network = ip_network("192.0.2.0/24")
    monkeypatch.setattr(network_hits, "_counts", Counter())
    monkeypatch.setattr(network_hits, "_written_at", time.monotonic())

    with django_assert_num_queries(0):
        for _ in range(5):
            network_hits.count(allowlist.pk, network)
            network_hits.write_if_due()
    monkeypatch.setattr(network_hits, "_written_at", time.monotonic() - 31)
    with django_assert_num_queries(1):
        network_hits.write_if_due()
        network_hits.write_if_due()

    row.refresh_from_db()
    assert row.hits == 5
    assert row.last_hit_at is not None
