"""Failed attempts to authenticate: a token bucket per client address, and lock-outs that end.

Asked only after authentication has failed, so whoever proves who they are is never refused here,
whatever others did from the same address. The rows live in PostgreSQL: one bucket for all web
processes, kept over restarts, working with Valkey down. A locked address costs a process two
queries a second, however often it knocks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv6Address, ip_network
from math import ceil

from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from risk import audit
from risk.allowlist import parse_address
from risk.models import ClientAddress, RateLimit

FRESH_SECONDS = 0.5
MAX_REMEMBERED = 10_000
QUIET = timedelta(days=1)
LOGIN_WINDOW = 900
_IPV6_CLIENT = 64
"""A prefix: one customer usually has at least a /64, and may use every address of it."""

# Refilled by the time since the last failure, then one token taken if there is one.
_FAIL = """
INSERT INTO risk_clientaddress AS held
    (door, network, tokens, is_empty, failures, lockouts, locked_until, updated_at)
VALUES (%(door)s, %(network)s, %(capacity)s - 1, false, 1, 0, NULL, %(now)s)
ON CONFLICT (door, network) DO UPDATE SET (tokens, is_empty, failures, updated_at) = (
    SELECT CASE WHEN refilled >= 1 THEN refilled - 1 ELSE refilled END,
           refilled < 1,
           CASE WHEN refilled >= %(capacity)s THEN 1 ELSE held.failures + 1 END,
           %(now)s
    FROM (SELECT LEAST(%(capacity)s, held.tokens + %(per_second)s
        * GREATEST(EXTRACT(EPOCH FROM %(now)s - held.updated_at), 0)) AS refilled) AS bucket
)
RETURNING tokens, is_empty, failures
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one door allows an address. Tokens are failures; ``per_second`` refills them."""

    capacity: int
    per_second: Decimal
    lockout_after: int
    policy: RateLimit


_policy: tuple[float, RateLimit] | None = None
_locked: dict[tuple[str, str], tuple[float, datetime | None]] = {}
_lock = threading.Lock()


def network_of(address: str | None) -> str:
    """The client as it is counted: an IPv4 address, or the /64 of an IPv6 one."""
    parsed = parse_address(address or "")
    if parsed is None:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed), _IPV6_CLIENT), strict=False))
    return str(parsed)


def failed(address: str | None, door: str = ClientAddress.Door.WEBHOOK) -> int:
    """Count one failure; the seconds to wait when the address is over its limit or locked, else 0.

    Raises DatabaseError.
    """
    network = network_of(address)
    if left := locked_for(address, door):
        return left
    terms = _terms(door)
    with connection.cursor() as cursor:
        cursor.execute(
            _FAIL,
            {
                "door": door,
                "network": network,
                "capacity": terms.capacity,
                "per_second": terms.per_second,
                "now": timezone.now(),
            },
        )
        tokens, is_empty, failures = cursor.fetchone()
    if failures >= terms.lockout_after > 0:
        _lock_out(door, network, terms)
        return locked_for(address, door)
    return max(1, ceil((1 - tokens) / terms.per_second)) if is_empty else 0


def locked_for(address: str | None, door: str = ClientAddress.Door.WEBHOOK) -> int:
    """Seconds until the address's lock-out ends, at most half a second out of date; 0 without one."""
    key = (door, network_of(address))
    found = _locked.get(key)
    if found is None or time.monotonic() - found[0] >= FRESH_SECONDS:
        row = ClientAddress.objects.filter(door=key[0], network=key[1])
        found = time.monotonic(), row.values_list("locked_until", flat=True).first()
        with _lock:
            if len(_locked) >= MAX_REMEMBERED:
                _locked.clear()
            _locked[key] = found
    if found[1] is None:
        return 0
    return max(0, ceil((found[1] - timezone.now()).total_seconds()))


def release(row: ClientAddress, reason: str) -> None:
    """End the lock-out of ``row`` and forget its failures."""
    with transaction.atomic():
        before = audit.snapshot(row)
        ClientAddress.objects.filter(pk=row.pk).update(
            locked_until=None, lockouts=0, failures=0, tokens=_terms(row.door).capacity
        )
        row.refresh_from_db()
        audit.record(
            "address.released",
            f"address {row}",
            before=before,
            after=audit.snapshot(row),
            reason=reason,
        )
    forget()


def forget_quiet_addresses() -> int:
    """Drop what has not failed for a day and is not locked; how many rows that were."""
    now = timezone.now()
    quiet = Q(locked_until__isnull=True) | Q(locked_until__lt=now - QUIET)
    unused = ClientAddress.objects.filter(quiet, updated_at__lt=now - QUIET)
    refilled = ClientAddress.objects.filter(
        locked_until__isnull=True, lockouts=0, updated_at__lt=now - _time_to_refill()
    )
    return unused.delete()[0] + refilled.delete()[0]


def forget() -> None:
    """Drop everything this process remembers."""
    global _policy
    with _lock:
        _locked.clear()
    _policy = None


def policy() -> RateLimit:
    """The limits in force, at most half a second old."""
    global _policy
    if _policy is None or time.monotonic() - _policy[0] >= FRESH_SECONDS:
        _policy = time.monotonic(), RateLimit.objects.first() or RateLimit()
    return _policy[1]


def _terms(door: str) -> Terms:
    row = policy()
    if door == ClientAddress.Door.LOGIN:
        most = row.login_failures
        return Terms(most, Decimal(most) / LOGIN_WINDOW, most, row)
    per_second = Decimal(row.requests) / row.window
    return Terms(row.requests + row.burst, per_second, row.lockout_after, row)


def _time_to_refill() -> timedelta:
    row = policy()
    webhook = row.window * (1 + ceil(row.burst / row.requests))
    return timedelta(seconds=max(webhook, LOGIN_WINDOW))


def _lock_out(door: str, network: str, terms: Terms) -> None:
    """Lock the address, once however many failures arrive together."""
    now = timezone.now()
    rows = ClientAddress.objects.filter(
        Q(locked_until__isnull=True) | Q(locked_until__lte=now), door=door, network=network
    )
    with transaction.atomic():
        row = rows.select_for_update().first()
        if row is not None:
            seconds = _lockout_seconds(terms.policy, row.lockouts)
            rows.filter(pk=row.pk).update(
                locked_until=now + timedelta(seconds=seconds),
                lockouts=F("lockouts") + 1,
                failures=0,
            )
            after = {"failures": row.failures, "seconds": seconds, "lockouts": row.lockouts + 1}
            audit.record("address.locked", f"address {row}", after=after)
    with _lock:
        _locked.pop((door, network), None)


def _lockout_seconds(limits: RateLimit, earlier: int) -> int:
    if not limits.lockout_doubles:
        return limits.lockout_seconds
    doubled: int = limits.lockout_seconds * 2 ** min(earlier, 20)
    return min(doubled, max(limits.longest_lockout, limits.lockout_seconds))
