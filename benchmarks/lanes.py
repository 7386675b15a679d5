"""Exits behind queued entries, and a venue that hangs beside another, on the whole product.

``python -m benchmarks.lanes`` starts the product and a venue whose answers take 100 ms, opens
positions, posts 300 entries at once and then 30 exits, and says how long each exit took from its
alert to its fill. Then a second venue hangs under 60 alerts, and exits at the first one must take
no longer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.e2e.product import Product, eventually, running_product
from tests.e2e.test_product import KEYS
from tests.venues.client import RunningVenue, running_venue
from tests.venues.faults import Action, Endpoint, Fault, When

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
QUANTITIES = {"BTCUSDT": "0.0002", "ETHUSDT": "0.004", "SOLUSDT": "0.08"}
_STAGES = """
SELECT extract(epoch FROM o.created_at - received_at), extract(epoch FROM submitted_at - o.created_at),
       extract(epoch FROM o.finished_at - submitted_at), extract(epoch FROM o.finished_at - received_at)
FROM execution_order o JOIN execution_signal s ON s.id = signal_id
WHERE s.id = ANY(%s::uuid[]) AND role = 'exit' AND o.state = 'filled'
"""
WAIT = {"Prefer": "wait=10"}
RULES = (
    "repeated_execution",
    "duplicate_order",
    "message_rate",
    "max_open_orders",
    "reject_streak",
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=300)
    parser.add_argument("--exits", type=int, default=30)
    parser.add_argument("--latency", type=float, default=100, help="of the venue, in ms")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as var,
        running_venue() as venue,
        running_venue() as hanging,
        running_product(Path(var)) as product,
    ):
        quick, slow = (
            strategy_at(product, one, name) for one, name in ((venue, "q"), (hanging, "s"))
        )
        venue.control.set_latency(options.latency)
        exits_behind_entries(product, quick, options.entries, options.exits)
        beside_a_venue_that_hangs(product, quick, slow, hanging)
    return 0


def exits_behind_entries(product: Product, path: str, entries: int, exits: int) -> None:
    for symbol in SYMBOLS:
        _execute(product, path, _alert(symbol, "buy", 40))
    _report("exits, nothing queued", _exits(product, path, exits))
    with ThreadPoolExecutor(20) as pool:
        posted = list(
            pool.map(
                lambda number: product.post(path, _alert(SYMBOLS[number % 3], "buy", 1))[0],
                range(entries),
            )
        )
    if set(posted) != {202}:
        raise SystemExit(f"not all entries were taken: {Counter(posted)}")
    _report(f"exits behind {entries} entries", _exits(product, path, exits))
    unfinished = "SELECT 1 FROM execution_signal WHERE finished_at IS NULL LIMIT 1"
    eventually(lambda: not product.rows(unfinished), seconds=300, what="every entry ended")
    ends = "SELECT role, state, reason, count(*) FROM execution_order GROUP BY 1, 2, 3"
    _say(str(product.rows(ends)))


def beside_a_venue_that_hangs(
    product: Product, quick: str, slow: str, hanging: RunningVenue
) -> None:
    rates = (Fault(Action.HANG, When.BEFORE, one, seconds=30) for one in Endpoint)
    hanging.control.set_fault_rates(*rates)
    alerts = [_alert(SYMBOLS[number % 3], "buy", 1) for number in range(60)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda alert: product.post(slow, alert), alerts))
        time.sleep(0.5)
        _report("exits beside a venue that hangs", _exits(product, quick, 30))


def _exits(product: Product, path: str, number: int) -> list[tuple[float, ...]]:
    """Seconds of each exit, by our own rows: to its order, to its sending, to its fill, and in all."""

    def leave(turn: int) -> str:
        time.sleep(0.1)
        answer = product.post(path, _alert(SYMBOLS[turn % 3], "sell", 0.5))[1]
        return str(answer["signal_id"])

    ids = [leave(turn) for turn in range(number)]
    return eventually(
        lambda: found if len(found := product.rows(_STAGES, ids)) == number else None,
        seconds=120,
        what="every exit filled",
    )


def _execute(product: Product, path: str, alert: dict[str, Any]) -> None:
    status, answer = product.post(path, alert, WAIT)
    if (status, answer["status"]) != (200, "executed"):
        raise SystemExit(f"{alert} ended otherwise: {answer}")


def _alert(symbol: str, action: str, times: float) -> dict[str, Any]:
    size = str(round(float(QUANTITIES[symbol]) * times, 8))
    return {"symbol": symbol, "action": action, "quantity": size, "id": str(time.monotonic_ns())}


def strategy_at(
    product: Product, venue: RunningVenue, name: str, keys: Mapping[str, str] = KEYS["binance"]
) -> str:
    """A strategy on an account of its own at ``venue``; returns the path to post to."""
    options = json.dumps({"exchange": "binance", "base_url": venue.base_url})
    product.manage(
        *("add_account", name, "--broker", "ccxt", "--environment", "sandbox"),
        *("--options", options, "--credentials-file", "-"),
        stdin=json.dumps(keys),
    )
    made = product.manage(
        *("add_strategy", name, "--accounts", name),
        *("--options", '{"allowlist": "none", "min_confidence": 0}'),
    )
    for rule in RULES:
        product.manage("set_limit", rule, "1", "--mode", "off", "--reason", "measuring")
    for rule in ("max_order_value", "max_position_value", "daily_loss"):
        product.manage("set_limit", rule, "1000000", "--reason", "measuring")
    return f"/webhook/{name}/{made['token']}"


def _report(what: str, exits: Sequence[tuple[float, ...]]) -> None:
    def at(share: float, stage: int) -> float:
        seconds = sorted(float(one[stage]) for one in exits)
        return seconds[min(int(len(seconds) * share), len(seconds) - 1)] * 1000

    _say(f"{what}: p50 {at(0.5, 3):.0f} ms, p95 {at(0.95, 3):.0f} ms, worst {at(1, 3):.0f} ms")
    stages = ("until decided", "until sent", "until filled")
    parts = [f"{name} {at(0.95, stage):.0f} ms" for stage, name in enumerate(stages)]
    _say(f"  p95 of its parts: {', '.join(parts)}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
