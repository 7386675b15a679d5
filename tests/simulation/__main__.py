"""``python -m tests.simulation``: many short stories of a lying venue and dying workers."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.choices import Drawn
from tests.simulation.story import explain, violation
from tests.simulation.world import Safeguards

WITHOUT = {
    "": Safeguards(),
    "settle-window": Safeguards(settle_window=False),
    "second-look": Safeguards(looks=1),
    "conditional-move": Safeguards(conditional_move=False),
}
PORTION = 500


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--disable", choices=[*WITHOUT], default="", help="take a safeguard out")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def broken(safeguards: Safeguards, seeds: range) -> list[int]:
    """The seeds whose stories break a promise."""
    return [seed for seed in seeds if violation(Drawn(seed), safeguards)]


def main() -> int:
    """Exit status 1 when a story broke a promise; the shortest like it is printed."""
    options = arguments()
    safeguards = WITHOUT[options.disable]
    started, last = time.monotonic(), options.first + options.seeds
    portions = [
        range(first, min(first + PORTION, last)) for first in range(options.first, last, PORTION)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        bad = [seed for found in pool.map(partial(broken, safeguards), portions) for seed in found]
    seconds = time.monotonic() - started
    lines = [
        f"{options.seeds} seeds from {options.first} in {seconds:.0f} s: {len(bad)} violations"
    ]
    if bad:
        lines.append(explain(bad[0], safeguards))
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
