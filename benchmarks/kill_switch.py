"""The kill switch under load: 1,000 queued orders, pressed at a random moment, many times over.

``python -m benchmarks.kill_switch --trials 200`` runs the trials of
``tests/execution/test_kill_switch.py`` on a throw-away PostgreSQL, half of them ``cancel_all``, half
``flatten``, and prints one line of JSON. Each trial is added to the log as it ends: the same command
again makes only those that are missing, and sums up all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "var" / "kill_switch.jsonl"
MODES = ("cancel_all", "flatten")
AT_ONCE = 10
"""Trials of a mode in one run of the tests."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="how many the log is to hold")
    parser.add_argument("--orders", type=int, default=1000, help="queued in each (default 1000)")
    parser.add_argument(
        "--log", type=Path, default=LOG, help="the trials so far (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    log: Path = options.log.resolve()
    log.parent.mkdir(parents=True, exist_ok=True)
    failed = False
    while len(done := trials_of(log, options.orders)) < options.trials:
        failed |= bool(_run(log, options.orders, options.trials, done))
        if len(trials_of(log, options.orders)) == len(done):
            sys.stderr.write("no trial came to an end: see what is written above\n")
            return 1
    report = summary(done)
    sys.stdout.write(json.dumps(report) + "\n")
    return int(failed or not report["passed"])


def trials_of(log: Path, orders: int) -> list[dict[str, Any]]:
    """The trials the log holds for so many queued orders."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [one for one in map(json.loads, lines) if one["orders"] == orders]


def _run(log: Path, orders: int, trials: int, done: Sequence[dict[str, Any]]) -> int:
    """The next trials of the mode there are fewest of."""
    counts = {mode: sum(one["mode"] == mode for one in done) for mode in MODES}
    mode = min(MODES, key=lambda name: counts[name])
    env = os.environ | {
        "KILL_SWITCH_TRIALS": str(min(AT_ONCE, trials - len(done))),
        "KILL_SWITCH_FIRST": str(counts[mode]),
        "KILL_SWITCH_ORDERS": str(orders),
        "KILL_SWITCH_LOG": str(log),
    }
    tests = ["tests/execution/test_kill_switch.py", "-k", mode, "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        sys.stderr.write((finished.stdout + finished.stderr)[-3000:])
    return finished.returncode


def summary(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was seen in all of them; times in seconds."""
    firsts = [one["first_cancel"] for one in trials if one["first_cancel"] is not None]
    ends = [one["all_done"] for one in trials]
    after, left = (sum(one[name] for one in trials) for name in ("sent_afterwards", "left"))
    return {
        "trials": len(trials),
        "orders_queued": sum(one["orders"] for one in trials),
        "entries_sent_before": sum(one["sent"] for one in trials),
        "entries_sent_after": after,
        "left": left,
        "first_cancel_median": round(median(firsts), 3) if firsts else None,
        "first_cancel_worst": round(max(firsts), 3) if firsts else None,
        "first_cancel_within_1s": sum(first < 1 for first in firsts),
        "first_cancels": len(firsts),
        "nothing_left_median": round(median(ends), 3) if ends else None,
        "nothing_left_worst": round(max(ends), 3) if ends else None,
        "load": max((one["load"] for one in trials), default=None),
        "passed": not after and not left and all(first < 1 for first in firsts),
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
