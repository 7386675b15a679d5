from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.chaos import parts
from tests.chaos.parts import known, left, table, wanted
from tests.venues.client import ROOT

REQUEST = Namespace(parts=4, orders=2100, kills=500, first=1001)


def line(seed: int, rule: str, findings: list[list[str]]) -> dict[str, Any]:
    return {
        "seed": seed,
        "id_rule": rule,
        "orders": 2100,
        "kills": 500,
        "commit": "0123abc",
        "made": 2050,
        "at the venue": 1900,
        "killed": 505,
        "stalls": 38,
        "faults": 1200,
        "cells": 366,
        "findings": findings,
    }


def test_each_part_has_a_seed_of_its_own_and_the_rules_of_ids_take_turns() -> None:
    made = [(part["seed"], part["id_rule"]) for part in wanted(REQUEST)]
    assert made == [(1001, "forever"), (1002, "open"), (1003, "none"), (1004, "forever")]


def test_a_part_that_was_run_for_the_same_request_is_not_run_again() -> None:
    rows = [line(1002, "open", []), line(1003, "none", []) | {"orders": 300}]
    assert [part["seed"] for part in left(wanted(REQUEST), rows)] == [1001, 1003, 1004]


def test_the_sum_has_a_line_for_each_rule_and_names_the_fewest_cells() -> None:
    rows = [
        line(1, "none", [["doubled", "one"]]),
        line(2, "none", []) | {"cells": 365},
        line(3, "open", []),
    ]
    head, *body = (text.split() for text in table(rows).splitlines())
    assert head[:3] == ["ids", "parts", "orders"]
    by_rule = {words[0]: " ".join(words[1:]) for words in body}
    assert by_rule["forever"] == "0 0 0 0 0 0 0 0 0 0 0 0 0"
    assert by_rule["open"] == "1 2,050 1,900 505 38 1,200 366 0 0 0 0 0 0"
    assert by_rule["all"] == "3 6,150 5,700 1,515 114 3,600 365 0 1 0 0 0 0"


def test_a_request_that_is_done_prints_its_sum_and_fails_for_what_was_found(tmp_path: Path) -> None:
    history = tmp_path / "parts.jsonl"
    rows = [line(1001, "forever", []), line(1002, "open", [["lost", "an alert"]])]
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert known(history) == rows

    def run(number: int) -> tuple[int, str]:
        command = [sys.executable, "-m", "tests.chaos.parts", "--parts", str(number)]
        command += ["--history", str(history)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()[-1]

    assert run(1) == (0, "1 of 1 parts, at 0123abc")
    assert run(2) == (1, "2 of 2 parts, at 0123abc")


def test_two_parts_at_once_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history, both = tmp_path / "parts.jsonl", Barrier(2, timeout=20)

    def run(part: parts.Row) -> dict[str, Any]:
        both.wait()
        return line(part["seed"], part["id_rule"], [])

    monkeypatch.setattr(parts, "run", run)
    asked = ["parts", "--parts", "4", "--at-once", "2", "--history", str(history)]
    monkeypatch.setattr(sys, "argv", asked)
    assert parts.main() == 0
    assert sorted(row["seed"] for row in known(history)) == [1001, 1002, 1003, 1004]
