"""``python -m tests.chaos.parts``: a long storm in parts that can be run one by one, and their sum.

Each part is a storm of its own seed, the venue's rule for client ids in turn. What it found is a line
in ``var/chaos/parts.jsonl``; a part that is there for the code as it is now is not run again. The
lines in ``parts.jsonl`` beside this file are published: ``--published`` prints their sums.
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

HISTORY = ROOT / "var" / "chaos" / "parts.jsonl"
PUBLISHED = Path(__file__).with_name("parts.jsonl")
TESTED = (
    "brokers",
    "execution",
    "fks_site",
    "risk",
    "tests/chaos/*.py",
    "tests/venues",
    "requirements.txt",
)
"""What a storm runs: a commit that changes nothing of it leaves its parts as they are."""
ID_RULES = ("forever", "open", "none")
FOUND = ("lost", "doubled", "unknown left", "cancel ignored", "wrong", "unsettled")
COLUMNS = ("parts", "orders", "at the venue", "kills", "stalls", "faults", "cells", *FOUND)
"""Of the table; the cells are those of the part that met the fewest."""
WANTED = ("seed", "id_rule", "orders", "kills")
"""Of a storm; by these and its commit a part is known."""
Row = Mapping[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.parts", description=__doc__)
    parser.add_argument("--parts", type=int, default=50)
    parser.add_argument("--orders", type=int, default=2100, help="of a part (%(default)s)")
    parser.add_argument("--kills", type=int, default=500, help="of a part (%(default)s)")
    parser.add_argument("--first", type=int, default=1001, help="seed of the first part")
    parser.add_argument("--minutes", type=float, help="begin no further part after this")
    parser.add_argument("--at-once", type=int, default=1, help="parts beside each other")
    parser.add_argument("--published", action="store_true", help="run nothing, print what was")
    parser.add_argument("--history", type=Path, default=HISTORY, help=argparse.SUPPRESS)
    return parser.parse_args()


def wanted(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The parts of a request, in order, of the code as it is now."""
    commit = _commit()
    for number in range(options.parts):
        rule = ID_RULES[number % len(ID_RULES)]
        values = (options.first + number, rule, options.orders, options.kills)
        yield dict(zip(WANTED, values, strict=True)) | {"commit": commit}


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
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"the storm of seed {part['seed']} ended with {done.returncode}")
    figures = json.loads(done.stdout.splitlines()[-1])
    if figures["findings"]:
        sys.stderr.write(figures["story"] + "\n")
    seconds = round(time.monotonic() - started)
    return dict(part) | {"at": _now(), "seconds": seconds} | _kept(figures)


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


def table(rows: Iterable[Row], by: str = "id_rule") -> str:
    """A line for each value of ``by``, in the order of ``rows``, and one for their sum."""
    rows = list(rows)
    lines = [(by, *COLUMNS)]
    for value in (*dict.fromkeys(row[by] for row in rows), ""):
        mine = [row for row in rows if row[by] == value or not value]
        lines.append((value or "all", *(f"{figure:,}" for figure in _sums(mine))))
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
    return tuple(part[name] for name in (*WANTED, "commit"))


def _commit() -> str:
    """The last one that changed what is tested; with a ``+`` where code differs from it."""
    differs = _git("status", "--porcelain", "--untracked-files=no", "--", *TESTED)
    return _git("log", "-1", "--format=%h", "--", *TESTED) + ("+" if differs else "")


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
    if options.published:
        sys.stdout.write(f"{table(known(PUBLISHED), by='commit')}\n")
        return 0
    options.history.parent.mkdir(parents=True, exist_ok=True)
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
    sys.stdout.write(f"{table(rows)}\n{len(rows)} of {len(parts)} parts, at {parts[0]['commit']}\n")
    return int(any(row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
