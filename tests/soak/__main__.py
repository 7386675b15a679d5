"""``python -m tests.soak``: a steady stream of orders for hours; nothing may grow."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from tests.chaos.installation import installation
from tests.venues.client import running_venue


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=float, default=1000, help="orders a minute")
    parser.add_argument("--warm-up", type=float, default=10, help="minutes (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    return parser.parse_args()


def main() -> int:
    """Exit status 1 when something grew, was too slow, lost, doubled or wrong."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    with installation() as place, running_venue(options.seed, "none") as venue:
        place.prepare(venue)
        from tests.soak.soak import Soak

        soak = Soak(place.port, place.paths, place.zygote, place.urls, place.servers(), options)
        try:
            figures = soak.carry_out(venue)
        finally:
            soak.fleet.stop()
    text = (
        json.dumps(figures) if options.json else "\n".join(f"{k}: {v}" for k, v in figures.items())
    )
    sys.stdout.write(text + "\n")
    return 1 if figures["out of bounds"] or figures["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
