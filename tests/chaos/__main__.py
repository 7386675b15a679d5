"""``python -m tests.chaos``: kill everything, all the time, and count what is lost or doubled."""

from __future__ import annotations

import argparse
import signal
import sys

from tests.chaos.installation import installation
from tests.chaos.plan import Planner
from tests.chaos.points import CELLS, HIDDEN_MS
from tests.chaos.venue import running_venue

DISABLED = ("settle-window", "conditional-move")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--orders", type=int, default=2000, help="alerts that ask for an order")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--id-rule",
        choices=["forever", "open", "none"],
        default="none",
        help="among which of its orders the venue refuses a client id it knows (%(default)s)",
    )
    parser.add_argument(
        "--hidden-ms",
        type=int,
        default=HIDDEN_MS,
        help="for how long an order stays out of answers (%(default)s)",
    )
    parser.add_argument("--disable", choices=DISABLED, default="", help="take a safeguard out")
    parser.add_argument(
        "--until-doubled", action="store_true", help="end as soon as the venue has an order twice"
    )
    parser.add_argument("--minutes", type=float, default=60, help="send no more alerts after this")
    parser.add_argument(
        "--patience",
        type=float,
        default=90,
        metavar="SECONDS",
        help="without progress, in which everything must be resolved once the faults are lifted "
        "(%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    return parser.parse_args()


def main() -> int:
    """Exit status 1 when anything was lost, doubled, wrong or left unknown."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    plan = Planner(options.seed)
    plan.draw(options.orders, options.kills)
    with installation() as place, running_venue(options.seed, options.id_rule) as venue:
        place.bring_up(plan.everything(options.kills), options.kills, venue, options.disable)
        from tests.chaos.report import as_json, table
        from tests.chaos.run import Run

        run = Run(options, plan, place, venue)
        try:
            result = run.carry_out()
        finally:
            run.fleet.stop()
    figures = as_json(result) if options.json else table(options, result, len(CELLS))
    sys.stdout.write(figures + "\n")
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
