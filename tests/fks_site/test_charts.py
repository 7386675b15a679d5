"""A line of many points: what its caption says is what the points say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execution.performance import Point
from fks_site import charts

START = datetime(2026, 7, 1, tzinfo=UTC)


def points(*totals: int) -> list[Point]:
    return [Point(START + timedelta(minutes=n), Decimal(total)) for n, total in enumerate(totals)]


@pytest.mark.parametrize("many", [3, 399, 400, 401, 5000])
@pytest.mark.parametrize("place", ["beginning", "middle", "end"])
def test_the_extremes_survive_thinning(many: int, place: str) -> None:
    totals = [5] * many
    at = {"beginning": 0, "middle": many // 2, "end": many - 2}[place]
    totals[at], totals[at + 1] = 900, -700
    line = charts.line(points(*totals))
    assert line is not None
    assert (line.lowest, line.highest) == (-700, 900)
    assert line.path.count(",") <= charts.MOST_POINTS + 2
    assert (line.first.total, line.last.total) == (totals[0], totals[-1])


def test_a_trade_told_late_stays_within_the_box() -> None:
    """Trades come in the order FKS learned of them, which need not be that of the venue's times."""
    first, second, third = points(1, 2, 3)
    line = charts.line([second, third, first])
    assert line is not None
    assert (line.began, line.ended) == (first.at, third.at)
    assert [part.split(",")[0] for part in line.path[1:].split("L")] == ["500.0", "1000.0", "0.0"]


def test_one_point_is_no_line() -> None:
    assert charts.line(points(1)) is None
