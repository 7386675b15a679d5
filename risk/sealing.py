"""The chain of the audit trail. Writers only append; one sealer at a time links what they wrote.

A sealed event carries its place, the hash before it, and a SHA-256 over these and its own columns.
So an event that is edited, removed or moved breaks the chain at its place; an end that was cut off
no longer fits the chain's own row, nor an anchor kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC

from django.db import connection, transaction
from django.utils import timezone

from risk.models import AuditChain, AuditEvent

SEAL_LOCK = 0x464B5305
BATCH = 500
PAGE = 2000
"""Events that are read at once to verify: what this needs in memory does not grow with the trail."""
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Anchor:
    """How far the chain reached at a time: kept outside, it proves what the chain was then."""

    position: int
    hash: str
    sealed_at: str


class BrokenChain(Exception):
    """The first place where the trail is not what was sealed; the message names it."""


def digest(event: AuditEvent, position: int, previous: str) -> str:
    """SHA-256 in hex over the event's columns in one canonical form, its place, and ``previous``."""
    row = {
        "position": position,
        "previous": previous,
        "id": event.pk,
        "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "kind": event.kind,
        "actor": event.actor,
        "address": event.address,
        "correlation_id": event.correlation_id,
        "subject": event.subject,
        "before": event.before,
        "after": event.after,
        "reason": event.reason,
    }
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def seal() -> int:
    """Link every committed event that is not yet in the chain; how many that were.

    A second sealer finds the lock taken and leaves. Writers are never waited for: an event that
    commits later than its neighbours is sealed after them.
    """
    sealed = 0
    while linked := _seal_some():
        sealed += linked
    return sealed


@transaction.atomic
def _seal_some() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SEAL_LOCK])
        (mine,) = cursor.fetchone()
    events = list(AuditEvent.objects.filter(position=None).order_by("id")[:BATCH]) if mine else []
    if not events:
        return 0
    chain = _end()
    for event in events:
        event.position, event.previous = chain.position + 1, chain.hash
        event.hash = digest(event, event.position, event.previous)
        chain.position, chain.hash = event.position, event.hash
    AuditEvent.objects.bulk_update(events, ["position", "previous", "hash"])
    chain.sealed_at = timezone.now()
    chain.save()
    return len(events)


def verify(
    anchors: Iterable[Anchor] = (), progress: Callable[[int, int], None] | None = None
) -> Anchor | None:
    """Recompute the whole chain; its end, or ``None`` while nothing is sealed.

    After each page ``progress`` is told how many events were looked at, and how many there are.
    Raises BrokenChain at the first event that was changed, removed or moved, at a cut-off end, or
    at an anchor that names another hash. Events may be sealed meanwhile.
    """
    _refuse_places_before_the_first()
    at_position = {anchor.position: anchor for anchor in anchors}
    meant, position, previous = _end(), 0, GENESIS
    linked = GENESIS
    while page := _page_after(position):
        for event in page:
            position += 1
            _check(event, position, previous)
            _fit(at_position.pop(position, None), event.hash)
            previous = event.hash
            linked = previous if position == meant.position else linked
        if progress is not None:
            progress(position, max(position, meant.position))
    chain = _end()
    if not meant.position <= position <= chain.position:
        raise BrokenChain(
            f"the chain ends at position {position}, and {chain.position} were sealed"
        )
    if linked != meant.hash:
        raise BrokenChain(f"position {meant.position}: the chain's own row names another hash")
    if at_position:
        anchor = at_position[min(at_position)]
        raise BrokenChain(
            f"position {anchor.position} is missing: an anchor of {anchor.sealed_at} names it"
        )
    return Anchor(position, previous, chain.sealed_at.isoformat()) if position else None


def _end() -> AuditChain:
    """Where the chain ends by its own row. Read before the events and after them: what is sealed in
    between lies between the two."""
    return AuditChain.objects.first() or AuditChain(hash=GENESIS)


def _page_after(position: int) -> list[AuditEvent]:
    """The next events of the chain. Each page is a statement, so no snapshot lasts as long as all."""
    return list(AuditEvent.objects.filter(position__gt=position).order_by("position")[:PAGE])


def _refuse_places_before_the_first() -> None:
    """An event placed there would count as sealed and never be looked at."""
    event = AuditEvent.objects.filter(position__lte=0).order_by("position").first()
    if event is not None:
        raise BrokenChain(
            f"position {event.position}: the chain begins at 1, and event {event.pk} ({event}) is "
            "before it"
        )


def _check(event: AuditEvent, position: int, previous: str) -> None:
    name = f"event {event.pk} ({event})"
    if event.position != position:
        raise BrokenChain(f"position {position} is missing; the next is {event.position}, {name}")
    if event.previous != previous:
        raise BrokenChain(f"position {position}: {name} does not follow the one before it")
    if event.hash != digest(event, position, previous):
        raise BrokenChain(f"position {position}: {name} was changed after it was sealed")


def _fit(anchor: Anchor | None, found: str) -> None:
    if anchor is not None and anchor.hash != found:
        raise BrokenChain(
            f"position {anchor.position}: an anchor of {anchor.sealed_at} names another hash"
        )


def to_line(anchor: Anchor) -> str:
    """One line of an anchor file."""
    return json.dumps(asdict(anchor))


def from_line(line: str) -> Anchor:
    """The anchor of a line. Raises ValueError."""
    try:
        row = json.loads(line)
        return Anchor(int(row["position"]), str(row["hash"]), str(row["sealed_at"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an anchor: {line[:80]!r}") from error
