from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.chaos import parts
from tests.chaos.parts import known, left, table, wanted

REQUEST = Namespace(parts=4, orders=2100, kills=500, first=1001)


@pytest.fixture(autouse=True)
def commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_commit", lambda: "0123abc")


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
    other_code = {"commit": "ffffff0"}
    rows = [line(1002, "open", []), line(1003, "none", []) | {"orders": 300}]
    rows.append(line(1001, "forever", []) | other_code)
    assert [part["seed"] for part in left(wanted(REQUEST), rows)] == [1001, 1003, 1004]


def test_the_sum_has_a_line_for_each_rule_and_names_the_fewest_cells() -> None:
    rows = [
        line(1, "none", [["doubled", "one"]]),
        line(2, "none", []) | {"cells": 365},
        line(3, "open", []),
    ]
    head, *body = (text.split() for text in table(rows).splitlines())
    assert head[:3] == ["id_rule", "parts", "orders"]
    by_rule = {words[0]: " ".join(words[1:]) for words in body}
    assert list(by_rule) == ["none", "open", "all"]
    assert by_rule["open"] == "1 2,050 1,900 505 38 1,200 366 0 0 0 0 0 0"
    assert by_rule["all"] == "3 6,150 5,700 1,515 114 3,600 365 0 1 0 0 0 0"


def test_a_request_that_is_done_prints_its_sum_and_fails_for_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    history = tmp_path / "parts.jsonl"
    rows = [line(1001, "forever", []), line(1002, "open", [["lost", "an alert"]])]
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert known(history) == rows

    def run(number: int) -> tuple[int, str]:
        asked = ["parts", "--parts", str(number), "--history", str(history)]
        monkeypatch.setattr(sys, "argv", asked)
        return parts.main(), capsys.readouterr().out.splitlines()[-1]

    assert run(1) == (0, "1 of 1 parts, at 0123abc")
    assert run(2) == (1, "2 of 2 parts, at 0123abc")


def test_what_was_published_is_summed_by_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["parts", "--published"])
    assert parts.main() == 0
    head, *lines = (text.split() for text in capsys.readouterr().out.splitlines())
    published = known(parts.PUBLISHED)
    assert head[:2] == ["commit", "parts"]
    assert [words[0] for words in lines] == [*dict.fromkeys(r["commit"] for r in published), "all"]
    assert lines[-1][1] == str(len(published))


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
