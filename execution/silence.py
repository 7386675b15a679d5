"""Alerts that did not come: alarms for strategies that are silent, for gaps noted on signals, and for
alerts that came and could not be read. What FKS sends itself is no sign of life of a sender, nor is
what an operator stored after it was missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.db.models import Count, Exists, Max, OuterRef, Q
from django.utils import timezone

from execution import alarms
from execution.alarms import Kind, Seen
from execution.dry_run import IMPORTED
from execution.models import Alarm, QuarantinedBody, Signal, Strategy
from execution.second_channel import REQUEUED
from execution.states import SignalState
from execution.watching import OWN_ALERT
from risk import calendars

LONGEST_LOOK = timedelta(days=21)
"""Silence longer than this is overdue whatever the hours: no market rests so long."""
GAPS_OF = timedelta(days=7)
UNREAD_FOR = timedelta(minutes=15)
"""So long an alarm lasts after the last body that could not be read: one, however many come."""
MOST_UNREAD = 10_000
"""Only the newest are counted: a sender's flood must not make the look slow."""
LONGEST_KEY = 100
NOT_HEARD = (OWN_ALERT, IMPORTED, REQUEUED)
"""``Signal.auth`` of what no sender's delivery brought when it was stored."""
_SATURDAY = 5


def look(now: datetime | None = None) -> list[Alarm]:
    """Raise alarms for what is missing, and end those that are over; returns the new ones."""
    now = now or timezone.now()
    return [
        *_settle(Kind.SILENT, _silent(now)),
        *_settle(Kind.GAP, _gaps(now)),
        *_settle(Kind.UNREAD, _unread(now)),
    ]


def _settle(kind: Alarm.Kind, seen: Iterable[Seen]) -> list[Alarm]:
    found = {one.key: one for one in seen}
    for alarm in Alarm.objects.filter(kind=kind, cleared_at=None):
        if alarm.key not in found:
            alarms.clear(kind, alarm.key)
    return [alarm for alarm in map(alarms.sound, found.values()) if alarm is not None]


def _silent(now: datetime) -> Iterator[Seen]:
    """Strategies whose expected alert is overdue."""
    expecting = Strategy.objects.filter(is_enabled=True, expects_minutes__isnull=False)
    heard_at = Max("signals__received_at", filter=~Q(signals__auth__in=NOT_HEARD))
    for strategy in expecting.annotate(heard_at=heard_at):
        since = strategy.heard_at or strategy.created_at
        minutes = strategy.expects_minutes or 0
        if expected_time(strategy, since, now) >= timedelta(minutes=minutes):
            text = (
                f"no alert since {since:%Y-%m-%d %H:%M} UTC, one expected every {minutes} minutes"
            )
            yield Seen(Kind.SILENT, strategy.slug, text)


def _gaps(now: datetime) -> Iterator[Seen]:
    """The newest gap of each strategy and symbol, until a later alert fits our book again."""
    later = Signal.objects.filter(
        strategy=OuterRef("strategy"), symbol=OuterRef("symbol"), pk__gt=OuterRef("pk")
    ).exclude(Q(state=SignalState.RECEIVED) | Q(auth=OWN_ALERT))
    rows = Signal.objects.filter(~Exists(later), received_at__gt=now - GAPS_OF).exclude(gap="")
    for signal in rows.select_related("strategy"):
        key = _key(signal.strategy.slug, signal.symbol)
        yield Seen(Kind.GAP, key, signal.gap, symbol=signal.symbol)


def _unread(now: datetime) -> Iterator[Seen]:
    """What each strategy was lately answered 400 for, by code: its sender does not send it again."""
    rows = QuarantinedBody.objects.order_by("-pk")
    older = rows.values_list("pk", flat=True)[MOST_UNREAD : MOST_UNREAD + 1].first() or 0
    recent = rows.filter(pk__gt=older, received_at__gt=now - UNREAD_FOR).order_by()
    kinds = recent.values_list("strategy__slug", "code")
    for slug, code, count, last in kinds.annotate(Count("pk"), Max("received_at")):
        text = f"{count} refused, the last at {last:%H:%M:%S} UTC; nothing was traded on them"
        yield Seen(Kind.UNREAD, _key(slug, code), text)


def _key(slug: str, what: str) -> str:
    """The strategy, and as much of what it is about as has room beside the longest name."""
    return f"{slug} {what}"[:LONGEST_KEY]


def expected_time(strategy: Strategy, since: datetime, now: datetime) -> timedelta:
    """How much of the time from ``since`` to ``now`` lies in the hours alerts are expected in."""
    since = max(since, now - LONGEST_LOOK)
    total = timedelta()
    for opens, closes in _hours(strategy, since, now):
        total += max(min(closes, now) - max(opens, since), timedelta())
    return total


def _hours(
    strategy: Strategy, since: datetime, now: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """The expected hours of each day, a day early because hours may run past midnight."""
    zone = ZoneInfo(strategy.expects_zone)
    opens = strategy.expects_from or time.min
    closes = strategy.expects_until or time.min
    day = since.astimezone(zone).date() - timedelta(days=1)
    while day <= now.astimezone(zone).date():
        if _is_open(strategy.expects_market, day):
            last = day if closes > opens else day + timedelta(days=1)
            # In UTC: between two times of one zone Python takes no notice of the clock's change.
            yield _in_utc(day, opens, zone), _in_utc(last, closes, zone)
        day += timedelta(days=1)


def _in_utc(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)


def _is_open(market: str, day: date) -> bool:
    """Half days do not count either: nobody says at what hour they end."""
    if not market:
        return True
    is_short = calendars.is_holiday(market, day) or calendars.is_half_day(market, day)
    return day.weekday() < _SATURDAY and not is_short
