"""Where an alert's time went, from its arrival to the venue's answers and fills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from execution.models import Fill, Order, Signal

LONGEST = timedelta(minutes=1)
"""A stage that took longer is waiting, not work: it would make the others too thin to see."""
WIDTH = 1000
_THINNEST = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage: when it began and how long it took, in milliseconds; ``x`` and ``width`` of a row
    ``WIDTH`` wide.
    """

    label: str
    began: int
    took: int
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class _Stage:
    label: str
    start: datetime
    end: datetime


def bars(signal: Signal, orders: Iterable[tuple[Order, Iterable[Fill]]]) -> tuple[Bar, ...]:
    """In the order they began. Empty while nothing has been decided."""
    stages = [stage for stage in _stages(signal, orders) if stage.end - stage.start <= LONGEST]
    if not stages:
        return ()
    span = max(stage.end for stage in stages) - signal.received_at
    return tuple(_bar(stage, signal.received_at, span) for stage in stages)


def _stages(signal: Signal, orders: Iterable[tuple[Order, Iterable[Fill]]]) -> Iterator[_Stage]:
    if signal.decided_at is None:
        return
    yield _Stage("queue and decision", signal.received_at, signal.decided_at)
    for order, fills in orders:
        name = order.account.name
        if order.submitted_at is None:
            continue
        yield _Stage(f"{name}: its turn", signal.decided_at, order.submitted_at)
        if order.acknowledged_at is None:
            continue
        yield _Stage(f"{name}: venue", order.submitted_at, order.acknowledged_at)
        last = max((fill.recorded_at for fill in fills), default=order.acknowledged_at)
        if last > order.acknowledged_at:
            yield _Stage(f"{name}: fills", order.acknowledged_at, last)


def _bar(stage: _Stage, zero: datetime, span: timedelta) -> Bar:
    began, took = stage.start - zero, max(stage.end - stage.start, timedelta(0))
    width = max(round(WIDTH * (took / span)), _THINNEST) if span else WIDTH
    x = min(round(WIDTH * (began / span)), WIDTH - width) if span else 0
    return Bar(stage.label, _milliseconds(began), _milliseconds(took), x, width)


def _milliseconds(length: timedelta) -> int:
    return round(length / timedelta(milliseconds=1))
