"""A line drawn on the server: no script, readable in both colour schemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from execution.performance import Point

WIDTH, HEIGHT = 1000, 220
MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Line:
    """An SVG path over a ``WIDTH`` by ``HEIGHT`` box, and what its edges stand for: ``began`` and
    ``ended`` are the first and the last time, whatever order the points came in.
    """

    path: str
    zero: str
    lowest: Decimal
    highest: Decimal
    began: datetime
    ended: datetime
    first: Point
    last: Point


def line(points: Sequence[Point]) -> Line | None:
    """The curve through ``points``, which holds zero; ``None`` for fewer than two."""
    if len(points) < 2:
        return None
    shown = _thinned(points)
    totals = [point.total for point in shown]
    lowest, highest = min(*totals, Decimal(0)), max(*totals, Decimal(0))
    began, ended = min(point.at for point in points), max(point.at for point in points)
    span = (ended - began).total_seconds()

    def x(number: int) -> float:
        passed = (shown[number].at - began).total_seconds()
        return WIDTH * (passed / span if span else number / (len(shown) - 1))

    def y(total: Decimal) -> Decimal:
        share = (total - lowest) / (highest - lowest) if highest > lowest else Decimal("0.5")
        return HEIGHT * (1 - share)

    path = "M" + "L".join(f"{x(n):.1f},{y(total):.1f}" for n, total in enumerate(totals))
    zero = f"{y(Decimal(0)):.1f}"
    return Line(path, zero, lowest, highest, began, ended, points[0], points[-1])


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The first, the last, and between them at most ``MOST_POINTS``: of each stretch the lowest and the
    highest."""
    if len(points) <= MOST_POINTS:
        return list(points)
    step = -(-2 * len(points) // MOST_POINTS)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), step):
        stretch = range(start, min(start + step, len(points)))
        kept.add(min(stretch, key=lambda number: points[number].total))
        kept.add(max(stretch, key=lambda number: points[number].total))
    return [points[number] for number in sorted(kept)]
