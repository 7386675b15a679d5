"""The kill switch under load: 1,000 queued orders, pressed at a random moment, many times over.

``python -m benchmarks.kill_switch --trials 200`` runs the trials of
``tests/execution/test_kill_switch.py`` on a throw-away PostgreSQL, half of them ``cancel_all``, half
``flatten``, and says what was seen.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEN = re.compile(
    r"(?:cancel_all|flatten): Seen\(sent=(\d+), sent_afterwards=(\d+), "
    r"first_cancel=([\d.e-]+|None), all_done=([\d.e-]+), left=(\d+)"
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--orders", type=int, default=1000)
    options = parser.parse_args(arguments)
    env = os.environ | {
        "KILL_SWITCH_TRIALS": str(-(-options.trials // 2)),
        "KILL_SWITCH_ORDERS": str(options.orders),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "tests/execution/test_kill_switch.py"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    report(SEEN.findall(done.stdout))
    if done.returncode:
        sys.stdout.write(done.stdout[-3000:])
    return done.returncode


def report(trials: list[tuple[str, ...]]) -> None:
    """Print the sums and the worst times."""
    firsts = sorted(float(one[2]) for one in trials if one[2] != "None")
    ends = sorted(float(one[3]) for one in trials)
    lines = [
        f"trials {len(trials)}",
        f"entries sent before the switch {sum(int(one[0]) for one in trials)}",
        f"entries sent after it {sum(int(one[1]) for one in trials)}",
        f"left {sum(int(one[4]) for one in trials)}",
        f"first cancel at the venue: median {_middle(firsts)} s, worst {max(firsts, default=0):.3f} s",
        f"nothing left: median {_middle(ends)} s, worst {max(ends, default=0):.3f} s",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _middle(values: list[float]) -> str:
    return f"{values[len(values) // 2]:.3f}" if values else "-"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
