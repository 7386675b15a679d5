"""The soak's own arithmetic, and a soak of seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice

import pytest

from tests.soak.gauges import Readings, out_of_bounds, p95, slope
from tests.soak.soak import Pace
from tests.soak.stream import FAULTS, stream
from tests.venues.client import ROOT

HOUR = 3600.0


def test_the_slope_is_the_growth_in_an_hour() -> None:
    assert slope([(0, 100.0), (HOUR / 2, 101.0), (HOUR, 102.0)]) == pytest.approx(2.0)
    assert slope([(0, 5.0), (60, 5.0), (120, 5.0)]) == 0
    assert slope([(0, 1.0), (60, 9.0)]) == 0


def test_a_quiet_product_is_within_bounds() -> None:
    assert out_of_bounds(_readings(growth=0.5), [10.0] * 100, 600) == []


def test_what_grows_or_is_slow_is_named() -> None:
    readings = _readings(growth=3)
    readings.connections += [(HOUR, 30.0)]
    readings.queued = [(float(at), 80.0) for at in range(0, 3600, 60)]
    assert out_of_bounds(readings, [10.0] * 90 + [60.0] * 10, 600) == [
        "worker 7 grows by 3.0 MB/h",
        "the webhook's p95 is 60 ms",
        "30 connections, 20 at first",
        "80 queued at the end",
    ]


def test_growth_before_the_end_of_the_warm_up_does_not_count() -> None:
    readings = _readings(growth=0)
    readings.memory["worker 7"][0:2] = [(0.0, 10.0), (60.0, 50.0)]
    assert out_of_bounds(readings, [10.0], 600) == []


def _readings(growth: float) -> Readings:
    times = [float(at) for at in range(0, 3600, 60)]
    readings = Readings()
    readings.memory["worker 7"] = [(at, 150 + growth * at / HOUR) for at in times]
    readings.connections = [(at, 20.0) for at in times]
    readings.queued = [(at, 1.0) for at in times]
    readings.under_way = [(at, 3.0) for at in times]
    return readings


def test_p95_of_a_hundred() -> None:
    assert p95([float(value) for value in range(1, 101)]) == pytest.approx(95.95)
    assert p95([1.0]) == 0


def test_every_lane_is_bought_and_then_sold() -> None:
    lanes = len({step.lane for step in islice(stream(), 500)})
    first, second = islice(stream(), lanes), islice(stream(), lanes, 2 * lanes)
    assert {step.body["action"] for step in first} == {"buy"}
    assert {step.body["action"] for step in second} == {"sell"}


def test_one_placement_in_ten_fails() -> None:
    assert sum(fault.probability for fault in FAULTS) == pytest.approx(0.1)


def test_a_stream_ends_at_its_time_and_earlier_when_told() -> None:
    whole, told = Pace(per_minute=60_000, minutes=0.001), Pace(per_minute=60_000, minutes=60)
    whole.begin()
    assert len(list(whole)) == 61
    told.begin()
    steps = iter(told)
    assert [next(steps).index for _ in range(3)] == [0, 1, 2]
    told.end()
    assert list(steps) == []


@pytest.mark.alone
@pytest.mark.timeout(200)
def test_a_soak_of_seconds_runs_to_its_end() -> None:
    terms = ["--minutes", "0.2", "--warm-up", "0.1", "--rate", "120", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *terms],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    figures = json.loads(done.stdout)
    assert figures["findings"] == []
    assert figures["orders"] == figures["alerts acknowledged"] >= 20
    assert {name.split()[0] for name in figures["memory"]} == {
        "postgres", "valkey", "worker", "exits", "beat", "web",
    }  # fmt: skip
