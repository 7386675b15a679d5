"""Storms, which take minutes and both cores to themselves, and what they are made of.

``make test`` runs the storms after everything else; the long one is ``make chaos``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.chaos.fuses import STALL_S, Fuses
from tests.chaos.plan import CHANCES, ENCORES, PLANNED_BY, Planner, planned_strikes
from tests.chaos.points import CELLS, NO_FAULT, Point
from tests.chaos.report import as_json
from tests.chaos.result import Result
from tests.chaos.verdict import Finding
from tests.venues.client import ROOT

TROUBLES = {
    "Valkey flushed",
    "Valkey stopped",
    "PostgreSQL immediate restart",
    "worker frozen past its lease",
    "kill switch killed half-way (C11)",
    "flatten killed half-way (C11)",
    "reconciliation killed half-way (C10)",
    "migration killed (C12)",
    "rolling restart with migrate and kills (C12)",
    "clock jumps ahead",
    "market reached stops or targets",
}


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


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_storm_of_kills_and_faults_loses_and_doubles_nothing() -> None:
    status, figures = storm("--orders", "2050", "--kills", "500", "--id-rule", "none")
    assert figures["findings"] == [], figures["story"]
    assert status == 0
    assert figures["acknowledged"] >= 2000
    assert figures["orders"] >= 2000
    assert sum(figures["kills"].values()) >= 500
    assert figures["cells_missed"] == []
    assert set(figures["troubles"]) == TROUBLES


@pytest.mark.alone
@pytest.mark.timeout(600)
@pytest.mark.parametrize("safeguard", ["settle-window", "conditional-move"])
def test_the_storm_notices_a_missing_safeguard(safeguard: str) -> None:
    # Most end within two hundred orders, but no single one is certain to be doubled.
    arguments = ("--orders", "2000", "--kills", "200", "--seed", "3", "--hidden-ms", "1900")
    status, figures = storm(*arguments, "--until-doubled", "--disable", safeguard)
    assert "doubled" in {finding["kind"] for finding in figures["findings"]}
    assert status == 1
    assert figures["story"].startswith("story of ")


def test_the_crash_points_fit_the_product() -> None:
    code = """
import django; django.setup()
from tests.chaos.crash import Crasher
from tests.chaos.patches import DISABLED, disable
Crasher(None, "http://127.0.0.1:1").install()
for safeguard in DISABLED:
    disable(safeguard)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "fks_site.settings"},
    )
    assert done.returncode == 0, done.stderr


def test_a_seed_draws_the_same_steps_again() -> None:
    assert Planner(7).draw(300, 60) == Planner(7).draw(300, 60)
    assert Planner(7).draw(300, 60) != Planner(8).draw(300, 60)


def test_enough_kills_plan_every_cell_more_than_once() -> None:
    steps = Planner(1).draw(2000, 500)
    planned = Counter((step.point, step.fault) for step in steps if step.point)
    assert set(planned) == set(CELLS)
    assert min(planned.values()) >= CHANCES
    assert sum(step.makes_an_order for step in steps) == 2000


def test_the_last_alerts_leave_the_planned_kills_time_to_strike() -> None:
    orders = [step for step in Planner(1).draw(2000, 500) if step.makes_an_order]
    last = max(number for number, step in enumerate(orders) if step.point)
    assert 1400 < last < 2000 * PLANNED_BY


def test_every_planned_cell_has_encores_that_are_not_sent_at_first() -> None:
    plan = Planner(1)
    drawn = list(plan.draw(2000, 500))
    everything = plan.everything(500)
    assert set(plan.encores) == set(CELLS)
    assert plan.steps == drawn == everything[: len(drawn)]
    assert [step.index for step in everything] == list(range(len(everything)))
    canceled = plan.encores[Point.CANCELED, NO_FAULT]
    assert [[step.body["action"] for step in steps] for steps in canceled] == (
        [["buy", "cancel"]] * ENCORES
    )


def test_a_cell_strikes_no_more_often_than_its_share(tmp_path: Path) -> None:
    steps = Planner(1).draw(2000, 500)
    fuses = Fuses(steps, tmp_path / "kills", planned_strikes(500))
    stalled = [step for step in steps if (step.point, step.fault) == (Point.STALL_SIGNED, NO_FAULT)]
    assert [fuses.is_set(step.index, Point.STALL_SIGNED) for step in stalled] == [True] * CHANCES
    with patch("tests.chaos.fuses.time.sleep") as slept:
        for step in stalled:
            fuses.strike(step.index, Point.STALL_SIGNED)
    slept.assert_called_once_with(STALL_S)
    assert fuses.cells() == {(Point.STALL_SIGNED, NO_FAULT): 1}
    assert not fuses.is_set(stalled[1].index, Point.STALL_SIGNED)
    cut = [step for step in steps if (step.point, step.fault) == (Point.STALL_SIGNED, "cut JSON")]
    assert [fuses.fault_of(step.index) for step in cut] == ["cut JSON"] * CHANCES
    with patch("tests.chaos.fuses.time.sleep"):
        fuses.strike(cut[0].index, Point.STALL_SIGNED)
    left = [fuses.fault_of(step.index) for step in cut]
    assert left == ["cut JSON", *[NO_FAULT] * (CHANCES - 1)]


def test_a_process_killed_before_its_strike_is_logged_leaves_the_cell_to_others(
    tmp_path: Path,
) -> None:
    steps = Planner(1).draw(2000, 500)
    fuses = Fuses(steps, tmp_path / "kills", planned_strikes(500))
    cell = (Point.STALL_SIGNED, NO_FAULT)
    first, second, *_ = (step.index for step in steps if (step.point, step.fault) == cell)
    with (
        patch("tests.chaos.fuses.os.write", side_effect=KeyboardInterrupt),
        suppress(KeyboardInterrupt),
    ):
        fuses.strike(first, Point.STALL_SIGNED)
    assert not fuses.cells()
    assert not fuses.is_set(first, Point.STALL_SIGNED)
    assert fuses.is_set(second, Point.STALL_SIGNED)


def test_figures_are_printed_as_json() -> None:
    result = Result(orders=2, findings=[Finding("lost", "one", "id")])
    result.kills["at named points"] = 3
    figures = json.loads(as_json(result))
    assert figures["kills"] == {"at named points": 3}
    assert figures["findings"] == [{"kind": "lost", "what": "one", "order": "id"}]
    assert figures["orders"] == 2
