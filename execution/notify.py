"""Sending what was put down for people: gathered, at a channel's pace, tried again until it arrives.

A message may come twice when a worker dies between sending it and noting that; none is lost.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import unquote

from django.db.models import Q
from django.utils import timezone

from brokers import crypto
from execution import alarms
from execution.exclusive import Work, exclusive
from execution.models import Alarm
from risk.channels import Channel, Event, Notice, Severity

logger = logging.getLogger(__name__)

State = Notice.State
LINES = 10
"""Events spelled out in one message; further ones are counted. Discord takes 2,000 characters."""
LINE = 150
LONGEST = 1700
"""Of a text; with its title Discord takes it."""
CUT = "\n… cut here; all of it is in the admin under Notifications, What was told."
BATCH = 500
ALARM_GAP = timedelta(seconds=3)
"""Between two messages with alarms in them: whatever else is alarming goes into the next one."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=5)
GIVE_UP_AFTER, TRIES_AT_LEAST = timedelta(hours=24), 20
"""Both: what grew old while the machine slept has hardly been tried."""
DOWN_AFTER = 3
"""Tries after which an alarm says that nothing arrives there."""
_TYPES = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.ALARM: "failure"}
_CALLS = re.compile(r"@(?=everyone|here|channel|room|all|[!&]?\d)", re.IGNORECASE)
_SECRETIVE = re.compile(r"[^A-Za-z0-9_.~-]+")


class NotDeliveredError(Exception):
    """The service did not take the message; the text says why, without the channel's address."""


def due_channels() -> list[int]:
    """Channels with something to send now."""
    now = timezone.now()
    is_due = Q(due_at__lte=now) | Q(due_at__gt=now + LONGEST_PAUSE)
    due = Notice.objects.filter(is_due, state=State.WAITING)
    return sorted(set(due.order_by().values_list("channel_id", flat=True).distinct()))


def deliver(channel_id: int) -> int:
    """Send what waits for a channel as one message; returns how many events it told.

    Once at a time per channel. Never raises for what a service does.
    """
    with exclusive(Work.NOTIFY, channel_id) as mine:
        return _deliver(channel_id) if mine else 0


def _deliver(channel_id: int) -> int:
    now = timezone.now()
    waiting = Notice.objects.filter(channel_id=channel_id, state=State.WAITING)
    channel = Channel.objects.filter(pk=channel_id, is_active=True).first()
    if channel is None:
        waiting.exclude(event=Event.TEST).update(state=State.DROPPED)
        channel = Channel.objects.filter(pk=channel_id).first()
    rows = list(waiting.order_by("-severity", "id")[:BATCH])
    if channel is None or not any(_is_due(row, now) for row in rows):
        return 0
    if _must_wait(channel, rows, now):
        return 0
    title, body = compose(rows)
    try:
        send(channel, title, body, Severity(rows[0].severity))
    except NotDeliveredError as error:
        _note_failure(channel, rows, str(error))
        return 0
    sent = Notice.objects.filter(pk__in=[row.pk for row in rows])
    sent.update(state=State.SENT, sent_at=timezone.now(), error="")
    alarms.clear(Alarm.Kind.CHANNEL_DOWN, channel.name)
    return len(rows)


def _must_wait(channel: Channel, rows: Sequence[Notice], now: datetime) -> bool:
    """Whether the channel has had its messages of this minute; alarms only keep a short distance."""
    minute = now - timedelta(minutes=1), now
    recent = Notice.objects.filter(channel=channel, sent_at__range=minute)
    rows_sent = recent.order_by("-sent_at").values_list("sent_at", flat=True).distinct()
    times = [at for at in rows_sent if at is not None]
    if any(row.event == Event.TEST for row in rows):
        return False
    if _still_pauses(rows, now):
        return True
    if rows[0].severity >= Severity.ALARM:
        return bool(times) and now - times[0] < ALARM_GAP
    return len(times) >= channel.per_minute


def _still_pauses(rows: Sequence[Notice], now: datetime) -> bool:
    """Whether the channel failed so lately that it is left alone, whatever came since; an alarm waits
    no longer than after a first failure, or its own pause.
    """
    failed = [row for row in rows if row.tries and _failed_at(row) <= now]
    if not failed:
        return False
    if any(row.severity >= Severity.ALARM and _is_due(row, now) for row in rows):
        return now < max(map(_failed_at, failed)) + FIRST_PAUSE
    return now < max(row.due_at for row in failed)


def _is_due(row: Notice, now: datetime) -> bool:
    """What is due later than any pause lasts was put down before the clock was set back."""
    return not now < row.due_at <= now + LONGEST_PAUSE


def _failed_at(row: Notice) -> datetime:
    return row.due_at - _pause(row.tries)


def _pause(tries: int) -> timedelta:
    """How long nothing is sent after so many failures."""
    doubled: int = 2 ** min(tries - 1, 10)
    return min(FIRST_PAUSE * doubled, LONGEST_PAUSE)


def compose(rows: Sequence[Notice]) -> tuple[str, str]:
    """Title and text of one message about ``rows``, the worst first."""
    if len(rows) == 1:
        return f"FKS: {rows[0].title}", _body(rows[0])
    worst = Severity(rows[0].severity).label
    lines = [f"• {row.title}{' – ' if row.text else ''}{row.text}"[:LINE] for row in rows[:LINES]]
    counted = _counted(rows[LINES:])
    body = _cut("\n".join(lines), LONGEST - len(counted)) + counted
    return f"FKS: {len(rows)} events, worst: {worst}", body


def _counted(rest: Sequence[Notice]) -> str:
    counts = Counter(Event(row.event).label for row in rest).most_common()
    told = ", ".join(f"{count} × {label}" for label, count in counts)
    return f"\nand {told}" if told else ""


def _body(row: Notice) -> str:
    return f"{_cut(row.text)}\n{row.at:%Y-%m-%d %H:%M:%S} UTC".strip()


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - len(CUT)] + CUT


def send(channel: Channel, title: str, body: str, severity: Severity) -> None:
    """One message to the channel's service. Raises NotDeliveredError."""
    import apprise  # workers only: a web process never sends

    try:
        address = channel.reveal()
    except crypto.DecryptionError as error:
        raise NotDeliveredError(str(error)) from error
    service = apprise.Apprise()
    if not service.add(address):
        raise NotDeliveredError("no service is known by this address")
    try:
        result = service.notify(
            title=without_calls(title),
            body=without_calls(body),
            body_format="text",  # or a service takes a venue's words for HTML or Markdown
            notify_type=_TYPES[severity],
        )
    except Exception as error:
        # The boundary to foreign code: over a hundred services, each with its own ways to fail.
        raise NotDeliveredError(without_address(repr(error), address)) from error
    if not result:
        said = " ".join(entry.message for entry in result.logs())
        raise NotDeliveredError(without_address(said, address)[:500] or "the service said no")


def without_calls(text: str) -> str:
    """``text`` in which nothing calls everybody of a chat: a symbol or a venue's words may try."""
    return _CALLS.sub("@\u200b", text)


def without_address(text: str, address: str) -> str:
    """``text`` with every longer piece of ``address`` masked: a token may be any of them."""
    pieces = {*_SECRETIVE.split(address), *_SECRETIVE.split(unquote(address))}
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) >= 6:
            text = text.replace(piece, "***")
    return text


def _note_failure(channel: Channel, rows: Sequence[Notice], error: str) -> None:
    """Try again after a growing pause; say once that nothing arrives, on the channels that work."""
    now = timezone.now()
    logger.warning("nothing arrives at the channel %s: %s", channel, error)
    for row in rows:
        row.tries += 1
        is_hopeless = row.tries >= TRIES_AT_LEAST and now - row.at > GIVE_UP_AFTER
        gives_up = row.event == Event.TEST or is_hopeless
        row.state = State.FAILED if gives_up else State.WAITING
        row.due_at, row.error = now + _pause(row.tries), error
    Notice.objects.bulk_update(rows, ["tries", "state", "due_at", "error"])
    if max(row.tries for row in rows) >= DOWN_AFTER:
        alarms.sound(alarms.Seen(Alarm.Kind.CHANNEL_DOWN, channel.name, error))
