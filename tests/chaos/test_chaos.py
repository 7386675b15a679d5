"""Storms: the plan of one is tested always, the storms themselves with ``FKS_CHAOS=1``.

They take minutes and both cores to themselves; the long one is ``make chaos``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.chaos.plan import Planner
from tests.chaos.points import CELLS, STALLS
from tests.venues.client import ROOT

needs_the_machine = pytest.mark.skipif(
    os.environ.get("FKS_CHAOS") != "1", reason="a storm needs the machine to itself: FKS_CHAOS=1"
)


def storm(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status and figures of a run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, figures


@needs_the_machine
@pytest.mark.timeout(400)
def test_a_storm_of_kills_and_faults_loses_and_doubles_nothing() -> None:
    status, figures = storm("--orders", "200", "--kills", "20", "--seed", "3", "--id-rule", "none")
    assert figures["findings"] == [], figures["story"]
    assert status == 0
    assert figures["acknowledged"] > 50
    assert sum(figures["kills"].values()) >= 20


@needs_the_machine
@pytest.mark.timeout(400)
@pytest.mark.parametrize("safeguard", ["settle-window", "conditional-move"])
def test_the_storm_notices_a_missing_safeguard(safeguard: str) -> None:
    arguments = ("--orders", "200", "--kills", "20", "--seed", "3", "--minutes", "0.6")
    status, figures = storm(*arguments, "--disable", safeguard)
    assert "doubled" in {finding["kind"] for finding in figures["findings"]}
    assert status == 1
    assert figures["story"].startswith("story of ")


def test_a_seed_draws_the_same_steps_again() -> None:
    assert Planner(7).draw(300, 60) == Planner(7).draw(300, 60)
    assert Planner(7).draw(300, 60) != Planner(8).draw(300, 60)


def test_enough_kills_plan_every_cell() -> None:
    steps = Planner(1).draw(2000, 500)
    planned = {(step.point, step.fault) for step in steps if step.point}
    assert planned == set(CELLS)
    assert sum(step.point is not None and step.point not in STALLS for step in steps) <= 500
