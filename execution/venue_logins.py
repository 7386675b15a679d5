"""Accounts that a person must log in at their venue: alarms while nobody has, and before it ends."""

from __future__ import annotations

from collections.abc import Iterator

from brokers import venue_logins
from brokers.models import Account
from execution import alarms
from execution.alarms import Kind, Seen
from execution.models import Alarm

KINDS = {venue_logins.NEEDED: Kind.LOGIN_NEEDED, venue_logins.ENDING: Kind.LOGIN_ENDS}


def look() -> list[Alarm]:
    """Raise what is due and end what is over; returns the new alarms.

    The alarm of a log-in that is needed now ends with the first comparison that the venue answers once
    it is no longer needed.
    """
    seen = list(_seen())
    ending = {one.key for one in seen if one.kind is Kind.LOGIN_ENDS}
    for alarm in Alarm.objects.filter(kind=Kind.LOGIN_ENDS, cleared_at=None):
        if alarm.key not in ending:
            alarms.clear(Kind.LOGIN_ENDS, alarm.key)
    return [alarm for alarm in map(alarms.sound, seen) if alarm is not None]


def is_needed(account_id: int) -> bool:
    """Whether somebody must log the account in, by its row as it is now: what the venue answers says
    nothing of that while the last token is good."""
    found = Account.objects.select_related("login").get(pk=account_id).venue_login
    return found is not None and found.state == venue_logins.NEEDED


def _seen() -> Iterator[Seen]:
    for account in Account.objects.filter(is_active=True).select_related("login"):
        found = account.venue_login
        kind = None if found is None else KINDS.get(found.state)
        if found is not None and kind is not None:
            yield Seen(kind, account.name, found.text, account)
