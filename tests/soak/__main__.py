"""``python -m tests.soak``: a steady stream of orders for hours; nothing may grow."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from tests.chaos.installation import installation
from tests.venues.client import running_venue

if TYPE_CHECKING:
    from tests.soak.soak import Soak


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=float, default=1000, help="orders a minute")
    parser.add_argument(
        "--warm-up",
        type=float,
        default=30,
        help="minutes in which memory may grow: a worker's pages fill up (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    return parser.parse_args()


def main() -> int:
    """Exit status 1 when something grew, was too slow, lost, doubled or wrong.

    Ctrl-C or SIGTERM ends the stream, and what has been measured is printed; a second one ends all.
    """
    options = arguments()
    with installation() as place, running_venue(options.seed, "none") as venue:
        place.prepare(venue)
        from tests.soak.soak import Soak

        soak = Soak(place.port, place.paths, place.zygote, place.urls, place.servers(), options)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, partial(_end, soak))
        try:
            figures = soak.carry_out(venue)
        finally:
            soak.fleet.stop()
    text = (
        json.dumps(figures) if options.json else "\n".join(f"{k}: {v}" for k, v in figures.items())
    )
    sys.stdout.write(text + "\n")
    return 1 if figures["out of bounds"] or figures["findings"] else 0


def _end(soak: Soak, number: int, _frame: FrameType | None) -> None:
    signal.signal(number, lambda *_: sys.exit(2))
    soak.pace.end()


if __name__ == "__main__":
    sys.exit(main())
