"""A line drawn on the server: no script, readable in both colour schemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from execution.performance import Point

WIDTH, HEIGHT = 1000, 220
MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Line:
    """An SVG path over a ``WIDTH`` by ``HEIGHT`` box, and what its edges stand for."""

    path: str
    zero: str
    lowest: Decimal
    highest: Decimal
    first: Point
    last: Point


def line(points: Sequence[Point]) -> Line | None:
    """The curve through ``points``, which holds zero; ``None`` for fewer than two."""
    if len(points) < 2:
        return None
    shown = _thinned(points)
    totals = [point.total for point in shown]
    lowest, highest = min(*totals, Decimal(0)), max(*totals, Decimal(0))
    began, span = points[0].at, (points[-1].at - points[0].at).total_seconds()

    def x(number: int) -> float:
        passed = (shown[number].at - began).total_seconds()
        return WIDTH * (passed / span if span else number / (len(shown) - 1))

    def y(total: Decimal) -> Decimal:
        share = (total - lowest) / (highest - lowest) if highest > lowest else Decimal("0.5")
        return HEIGHT * (1 - share)

    path = "M" + "L".join(f"{x(n):.1f},{y(total):.1f}" for n, total in enumerate(totals))
    return Line(path, f"{y(Decimal(0)):.1f}", lowest, highest, points[0], points[-1])


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most ``MOST_POINTS`` and the last: of each stretch the one furthest from its first."""
    step = -(-len(points) // MOST_POINTS)
    stretches = (points[start : start + step] for start in range(0, len(points), step))
    kept = [
        max(stretch, key=lambda point: abs(point.total - stretch[0].total)) for stretch in stretches
    ]
    return [*kept[:-1], points[-1]] if len(kept) > 1 else list(points)
