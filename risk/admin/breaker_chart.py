"""The last day of a breaker as a strip of colours, and its latest changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from risk.colors import BREAKER_COLORS
from risk.models import BreakerEvent, CircuitBreaker

SPAN = timedelta(hours=24)
WIDTH = 1000
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in one state: its place on the strip, and its words."""

    x: int
    width: int
    state: str
    color: str
    text: str


@dataclass(frozen=True, slots=True)
class History:
    """What the page shows. ``opened`` counts the last day."""

    stretches: tuple[Stretch, ...]
    opened: int
    changes: tuple[BreakerEvent, ...]


def history_of(breaker: CircuitBreaker) -> History:
    """The state before the first change of the day is closed, or what the change before led to."""
    now = timezone.now()
    start = now - SPAN
    events = list(breaker.history.filter(at__gte=start).order_by("id"))
    before = breaker.history.filter(at__lt=start).first()
    closed = CircuitBreaker.State.CLOSED.value
    points = [(start, before.to_state if before else closed)]
    points += [(event.at, event.to_state) for event in events]
    ends = [at for at, _ in points[1:]] + [now]
    stretches = tuple(
        _stretch(start, begins, ends_at, state)
        for (begins, state), ends_at in zip(points, ends, strict=True)
    )
    opened = sum(event.to_state == CircuitBreaker.State.OPEN for event in events)
    return History(stretches, opened, tuple(breaker.history.all()[:SHOWN]))


def _stretch(start: datetime, begins: datetime, ends: datetime, state: str) -> Stretch:
    def place(moment: datetime) -> int:
        return int((moment - start) / SPAN * WIDTH)

    known = CircuitBreaker.State(state)
    text = f"{known.label} {begins:%H:%M:%S} to {ends:%H:%M:%S} UTC"
    # A moment too short to be drawn to scale is drawn all the same.
    width = max(place(ends) - place(begins), 2)
    return Stretch(place(begins), width, state, BREAKER_COLORS[known], text)
