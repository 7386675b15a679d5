"""Telling people: one row per channel that wants to know, written in the event's own transaction.

Nothing is sent here. Whoever tells something pays for one small query, and for its words only when
somebody listens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from brokers.prepared import Prepared
from risk.channels import Channel, Event, Notice, Severity

GATHER_FOR = timedelta(seconds=3)
"""What is no alarm waits this long for company: an order's steps become one message."""
SEVERITIES = {
    Event.APPROVAL_WANTED: Severity.ALARM,
    Event.ORDER_ACCEPTED: Severity.INFO,
    Event.ORDER_PARTLY_FILLED: Severity.INFO,
    Event.ORDER_FILLED: Severity.INFO,
    Event.ORDER_ENDED: Severity.INFO,
    Event.ORDER_DENIED: Severity.INFO,
    Event.ORDER_REJECTED: Severity.WARNING,
    Event.ORDER_UNKNOWN: Severity.WARNING,
    Event.ORDER_NEEDS_OPERATOR: Severity.ALARM,
    Event.NAKED_POSITION: Severity.ALARM,
    Event.DRIFT: Severity.ALARM,
    Event.BREAKER_OPENED: Severity.ALARM,
    Event.BREAKER_CLOSED: Severity.INFO,
    Event.LIMIT_NEAR: Severity.WARNING,
    Event.MISSED_ALERT: Severity.WARNING,
    Event.TRADING_SWITCHED: Severity.ALARM,
    Event.TRADING_RESUMED: Severity.WARNING,
    Event.NOT_FLAT: Severity.ALARM,
    Event.NOT_RECONCILED: Severity.ALARM,
    Event.LOGIN_NEEDED: Severity.ALARM,
    Event.KEY_RIGHTS: Severity.ALARM,
    Event.CHANNEL_DOWN: Severity.ALARM,
    Event.AUDIT_BROKEN: Severity.ALARM,
    Event.ALARM_OVER: Severity.INFO,
    Event.LOGIN_FROM_NEW_ADDRESS: Severity.WARNING,
    Event.LOCKED_OUT: Severity.WARNING,
    Event.SECOND_FACTOR_GONE: Severity.ALARM,
    Event.ACCESS_CHANGED: Severity.WARNING,
    Event.SPREAD_SEEN: Severity.WARNING,
    Event.WEEKLY_SUMMARY: Severity.INFO,
    Event.TEST: Severity.INFO,
}


@dataclass(frozen=True, slots=True)
class News:
    """An event in words, without secrets: titles and texts leave this machine."""

    title: str
    text: str = ""
    account: str = ""
    strategy: str = ""
    symbol: str = ""
    person: int | None = None
    """The id of the user whose access it is about."""


def tell(event: Event, words: Callable[[], News], *, is_urgent: bool = False) -> None:
    """Put ``event`` down for every channel that wants it; call inside the event's transaction.

    ``words`` is asked only when a channel is in use. What is urgent is an alarm whatever the event is.
    """
    channels = _listening()
    if channels:
        write(event, words(), channels, is_urgent=is_urgent)


_listening = Prepared(lambda: Channel.objects.filter(is_active=True))


def write(event: Event, news: News, channels: list[Channel], *, is_urgent: bool = False) -> None:
    """One row for each of ``channels`` whose filters let the event through."""
    severity = Severity.ALARM if is_urgent else SEVERITIES[event]
    now = timezone.now()
    at_once = severity >= Severity.ALARM or event is Event.TEST
    Notice.objects.bulk_create(
        Notice(
            channel=channel,
            at=now,
            event=event,
            severity=severity,
            title=_storable(news.title)[:200],
            text=_storable(news.text),
            account=news.account,
            strategy=news.strategy,
            symbol=_storable(news.symbol)[:60],
            due_at=now if at_once else now + GATHER_FOR,
        )
        for channel in channels
        if channel.wants(event, severity, news.account, news.strategy, news.person)
    )


def _storable(text: str) -> str:
    """PostgreSQL keeps every character but one, and a venue's error text is anybody's."""
    return text.replace("\x00", "")
