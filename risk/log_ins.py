"""People coming in: written to the audit trail, with whether their address is new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from risk import audit, ratelimit
from risk.access_news import FROM_NEW_ADDRESS, LOCKED, LOGIN, TOKEN
from risk.models import AuditEvent

ONCE_IN = timedelta(minutes=15)
"""A lock-out is written down once, however often the door is tried meanwhile."""
MOST_CHANGES = 5
TOLD = Q(kind__startswith="second_factor.") | Q(kind__startswith="user.") | Q(kind=LOCKED)


@dataclass(frozen=True, slots=True)
class LastTime:
    """A person's log-in before this one, and what happened to their access since."""

    at: datetime
    address: str
    failed: int
    changes: list[AuditEvent]

    def is_news_to(self, address: str) -> bool:
        """Whether whoever comes from ``address`` now should hear of it."""
        return bool(self.failed or self.changes or self.address != address)


def last_time(name: str) -> LastTime | None:
    """What user ``name`` should know; ask before ``came``. ``None`` the first time."""
    before = AuditEvent.objects.filter(actor=name, kind__in=(LOGIN, TOKEN)).order_by("-id").first()
    if before is None:
        return None
    since = AuditEvent.objects.filter(subject=f"user {name}", pk__gt=before.pk)
    told = since.exclude(actor=name).filter(TOLD).order_by("id")
    failed = since.filter(kind="login.failed").count()
    return LastTime(before.at, before.address, failed, list(told[:MOST_CHANGES]))


def came(name: str, address: str, kind: str = LOGIN) -> None:
    """The password of user ``name`` was right, in a browser (``LOGIN``) or at the API (``TOKEN``)."""
    after = {FROM_NEW_ADDRESS: True} if address and _is_new(name, address) else None
    with audit.acting(audit.Actor(name, address)):
        audit.record(kind, f"user {name}", after=after)


def locked(name: str, address: str) -> None:
    """Too many passwords for ``name``, which need not exist, were wrong."""
    subject = f"user {name}"
    since = timezone.now() - ONCE_IN
    recent = AuditEvent.objects.filter(kind=LOCKED, subject=subject, address=address, at__gt=since)
    if not recent.exists():
        with audit.acting(audit.Actor("anonymous", address)):
            audit.record(LOCKED, subject)


def _is_new(name: str, address: str) -> bool:
    """An IPv6 address is as known as its /64: telephones change the rest by the hour."""
    before = AuditEvent.objects.filter(actor=name, kind__in=(LOGIN, TOKEN)).exclude(address="")
    known = before.order_by().values_list("address", flat=True).distinct()
    return ratelimit.network_of(address) not in {ratelimit.network_of(one) for one in known}
