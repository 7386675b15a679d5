"""Telling people of changes in who may come in: what of the audit trail is told, and to whom.

Told in the transaction that wrote the event, so that nobody loosens a safeguard unheard.
"""

from __future__ import annotations

from django.contrib.auth.models import User

from risk import notices
from risk.channels import Event
from risk.models.addresses import ClientAddress
from risk.models.audit import AuditEvent

LOGIN, TOKEN = "login.succeeded", "login.token_made"
LOCKED, ADDRESS_LOCKED = "login.locked", "address.locked"
FROM_NEW_ADDRESS = "from_new_address"
"""What the ``after`` of a log-in says where its address was not seen before."""
SECOND_FACTOR_GONE = frozenset({"second_factor.reset", "second_factor.recovered"})
ACCESS = frozenset(
    ("second_factor", "user", "group", "credential", "secret", "safeguards", "allowlist", "network",
     "channel")
)  # fmt: skip
"""First halves of the kinds of events that change who may come in, or who hears of it."""
OF_A_PERSON = "user "


def tell(event: AuditEvent) -> None:
    """Tell the channels of ``event`` if it is news; call inside its transaction."""
    news = event_of(event)
    if news is not None:
        notices.tell(news, lambda: _words(event))


def event_of(event: AuditEvent) -> Event | None:
    """What ``event`` is told as, ``None`` for what nobody is told."""
    if event.kind in (LOGIN, TOKEN):
        return Event.LOGIN_FROM_NEW_ADDRESS if (event.after or {}).get(FROM_NEW_ADDRESS) else None
    if event.kind == LOCKED or (
        event.kind == ADDRESS_LOCKED and event.subject.endswith(f"({ClientAddress.Door.LOGIN})")
    ):
        return Event.LOCKED_OUT
    if event.kind in SECOND_FACTOR_GONE:
        return Event.SECOND_FACTOR_GONE
    return Event.ACCESS_CHANGED if event.kind.partition(".")[0] in ACCESS else None


def in_words(event: AuditEvent) -> str:
    """What happened, without to whom."""
    if event.kind in (LOGIN, TOKEN):
        return "Log-in from a new address"
    if event.kind in (LOCKED, ADDRESS_LOCKED):
        return "Too many failed log-ins"
    return event.kind.replace(".", " ").replace("_", " ").capitalize()


def _words(event: AuditEvent) -> notices.News:
    who = f"by {event.actor}" + (f" from {event.address}" if event.address else "")
    return notices.News(
        f"{in_words(event)}: {event.subject}",
        ": ".join(part for part in (who, event.reason) if part),
        person=_person(event.subject),
    )


def _person(subject: str) -> int | None:
    """The id of the user whom an event about ``subject`` concerns."""
    if not subject.startswith(OF_A_PERSON):
        return None
    named = User.objects.filter(username=subject.removeprefix(OF_A_PERSON))
    return named.values_list("pk", flat=True).first()
