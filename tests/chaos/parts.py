"""``python -m tests.chaos.parts``: a long storm in parts that can be run one by one, and their sum.

Each part is a storm of its own seed, the venue's rule for client ids in turn. What it found is a line
in ``parts.jsonl``; a part that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from tests.venues.client import ROOT

HISTORY = Path(__file__).parent / "parts.jsonl"
ID_RULES = ("forever", "open", "none")
FOUND = ("lost", "doubled", "unknown left", "cancel ignored", "wrong", "unsettled")
COLUMNS = ("parts", "orders", "at the venue", "kills", "stalls", "faults", "cells", *FOUND)
"""Of the table; the cells are those of the part that met the fewest."""
WANTED = ("seed", "id_rule", "orders", "kills")
"""By these a part is known."""
Row = Mapping[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.parts", description=__doc__)
    parser.add_argument("--parts", type=int, default=50)
    parser.add_argument("--orders", type=int, default=2100, help="of a part (%(default)s)")
    parser.add_argument("--kills", type=int, default=500, help="of a part (%(default)s)")
    parser.add_argument("--first", type=int, default=1001, help="seed of the first part")
    parser.add_argument("--minutes", type=float, help="begin no further part after this")
    parser.add_argument("--at-once", type=int, default=1, help="parts beside each other")
    parser.add_argument("--history", type=Path, default=HISTORY, help=argparse.SUPPRESS)
    return parser.parse_args()


def wanted(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The parts of a request, in order."""
    for number in range(options.parts):
        rule = ID_RULES[number % len(ID_RULES)]
        values = (options.first + number, rule, options.orders, options.kills)
        yield dict(zip(WANTED, values, strict=True))


def known(history: Path) -> list[dict[str, Any]]:
    """The parts that have been run."""
    if not history.exists():
        return []
    return [json.loads(line) for line in history.read_text().splitlines()]


def left(parts: Iterable[Row], rows: Iterable[Row]) -> list[Row]:
    """Those of ``parts`` that are not among ``rows``."""
    done = [_asked(row) for row in rows]
    return [part for part in parts if _asked(part) not in done]


def run(part: Row) -> dict[str, Any]:
    """The line of one part; the story of what it found goes to standard error.

    Raises RuntimeError when the storm itself broke.
    """
    command = [sys.executable, "-m", "tests.chaos", "--json"]
    for name in WANTED:
        command += [f"--{name.replace('_', '-')}", str(part[name])]
    started, commit = time.monotonic(), _commit()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"the storm of seed {part['seed']} ended with {done.returncode}")
    figures = json.loads(done.stdout.splitlines()[-1])
    if figures["findings"]:
        sys.stderr.write(figures["story"] + "\n")
    seconds = round(time.monotonic() - started)
    return dict(part) | {"commit": commit, "at": _now(), "seconds": seconds} | _kept(figures)


def _kept(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What a part's line keeps of a storm's figures."""
    return {
        "made": figures["orders"],
        "at the venue": figures["placed"],
        "acknowledged": figures["acknowledged"],
        "killed": sum(figures["kills"].values()),
        "stalls": figures["stalls"],
        "faults": sum(figures["faults"].values()),
        "cells": figures["cells"],
        "processor_s": sum(figures["processor_s"].values()),
        "findings": [[one["kind"], one["what"]] for one in figures["findings"]],
    }


def table(rows: Iterable[Row]) -> str:
    """A line for each rule of ids and one for their sum."""
    rows = list(rows)
    lines = [("ids", *COLUMNS)]
    for rule in (*ID_RULES, ""):
        mine = [row for row in rows if row["id_rule"] == rule or not rule]
        lines.append((rule or "all", *(f"{figure:,}" for figure in _sums(mine))))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )


def _sums(rows: list[Row]) -> list[int]:
    names = ("made", "at the venue", "killed", "stalls", "faults")
    found = Counter(kind for row in rows for kind, _ in row["findings"])
    least = min((row["cells"] for row in rows), default=0)
    sums = [sum(row[name] for row in rows) for name in names]
    return [len(rows), *sums, least, *(found[kind] for kind in FOUND)]


def _asked(part: Row) -> tuple[Any, ...]:
    return tuple(part[name] for name in WANTED)


def _commit() -> str:
    """What is tested; with a ``+`` where code differs from it."""
    differs = _git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return _git("rev-parse", "--short", "HEAD") + ("+" if differs else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main() -> int:
    """Exit status 1 when any part of the request found something."""
    options = arguments()
    parts = list(wanted(options))
    end = time.monotonic() + options.minutes * 60 if options.minutes is not None else float("inf")
    writing = Lock()

    def carry_out(part: Row) -> None:
        if time.monotonic() > end:
            return
        row = run(part)
        with writing, options.history.open("a") as history:
            history.write(json.dumps(row) + "\n")

    with ThreadPoolExecutor(options.at_once) as pool:
        list(pool.map(carry_out, left(parts, known(options.history))))
    asked = [_asked(part) for part in parts]
    rows = [row for row in known(options.history) if _asked(row) in asked]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    sys.stdout.write(f"{table(rows)}\n{len(rows)} of {len(parts)} parts, at {commits}\n")
    return int(any(row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
