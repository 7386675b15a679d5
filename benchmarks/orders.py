"""Orders through one machine: how soon one is acknowledged, and how many a second it takes.

``python -m benchmarks.orders`` starts the product and a Binance-like venue whose answers take 20 ms,
offers buys and sells at a fixed rate over lanes of several accounts, however long they take, and reads
from our rows when each was decided, sent and filled. Then it offers more than one machine takes. Every
acknowledged alert must have become one filled order: a run that lost one is no result.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.lanes import strategy_at
from tests.e2e.product import ROOT, Product, eventually, running_product
from tests.venues.client import RunningVenue, running_venue

HISTORY = Path(__file__).parent / "orders.jsonl"
QUANTITIES = {"BTCUSDT": "0.0004", "ETHUSDT": "0.008", "SOLUSDT": "0.16", "BNBUSDT": "0.04"}
CLIENTS = 12
_STAGES = """
SELECT extract(epoch FROM o.created_at - received_at),
       extract(epoch FROM submitted_at - o.created_at),
       extract(epoch FROM o.finished_at - submitted_at),
       extract(epoch FROM o.finished_at - received_at),
       extract(epoch FROM o.finished_at)
FROM execution_order o JOIN execution_signal s ON s.id = signal_id
WHERE s.id = ANY(%s::uuid[]) AND o.state = 'filled'
"""
_STAGE_NAMES = ("decided", "sent", "filled", "in all")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accounts", type=int, default=16, help="each trades four symbols")
    parser.add_argument("--latency", type=float, default=20, help="of the venue, in ms")
    parser.add_argument("--rate", type=float, default=17, help="orders a second at first")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--flood-rate", type=float, default=120, help="and then; 0 leaves it out")
    parser.add_argument("--flood-seconds", type=float, default=300)
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {"commit": _commit(), "load_before": psutil.getloadavg()[0]}
    figures["at"] = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
    with (
        tempfile.TemporaryDirectory() as var,
        running_venue() as venue,
        running_product(Path(var)) as product,
    ):
        paths = [_account(product, venue, f"a{n}") for n in range(options.accounts)]
        venue.control.set_latency(options.latency)
        offered(product, paths, options.rate, 5)
        figures["offered"] = offered(product, paths, options.rate, options.seconds)
        if options.flood_rate:
            before = processor_seconds(product)
            flood = offered(product, paths, options.flood_rate, options.flood_seconds)
            spent = processor_seconds(product) - before
            figures["flood"] = flood | {"processor_ms_an_order": _each(spent, flood["orders"])}
        figures["memory_mib"] = memory(product)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    with HISTORY.open("a") as history:
        history.write(json.dumps(figures) + "\n")
    return 0


def _account(product: Product, venue: RunningVenue, name: str) -> str:
    """An account with a key and balances of its own; returns the path to post to."""
    key, secret = name.ljust(64, "x"), b64encode(secrets.token_bytes(48)).decode()
    venue.control.add_key("binance", key, secret, name)
    return strategy_at(product, venue, name, {"api_key": key, "api_secret": secret})


def offered(product: Product, paths: Sequence[str], rate: float, seconds: float) -> dict[str, Any]:
    """Post at fixed times for ``seconds``, wait until everything has ended, and sum it up."""
    alerts = _alerts(paths, round(rate * seconds))
    started, started_at = time.monotonic(), time.time()

    def post(turn: int) -> str:
        time.sleep(max(0.0, started + turn / rate - time.monotonic()))
        path, alert = alerts[turn]
        status, answer = product.post(path, alert)
        if status != 202:
            raise SystemExit(f"{alert} was answered {status} {answer}")
        return str(answer["signal_id"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        ids = list(pool.map(post, range(len(alerts))))
    posted = time.monotonic() - started
    unfinished = "SELECT 1 FROM execution_signal WHERE finished_at IS NULL LIMIT 1"
    eventually(lambda: not product.rows(unfinished), seconds=600, what="everything ended")
    rows = product.rows(_STAGES, ids)
    if len(rows) != len(ids):
        raise SystemExit(f"{len(ids)} alerts, {len(rows)} filled orders")
    last = max(float(row[4]) for row in rows) - started_at
    within = sum(float(row[4]) - started_at <= posted for row in rows)
    return {
        "orders": len(rows),
        "offered_per_s": round(len(rows) / posted, 1),
        "filled_per_s_meanwhile": round(within / posted, 1),
        "filled_per_s_to_the_end": round(len(rows) / last, 1),
        "ms": {name: _spread(rows, stage) for stage, name in enumerate(_STAGE_NAMES)},
    }


def _alerts(paths: Sequence[str], number: int) -> list[tuple[str, dict[str, Any]]]:
    """In turn through the lanes; every lane buys and sells the same by turns."""
    lanes = [(path, symbol) for symbol in QUANTITIES for path in paths]
    made = []
    for turn in range(number + number % (2 * len(lanes))):
        path, symbol = lanes[turn % len(lanes)]
        action = "sell" if turn // len(lanes) % 2 else "buy"
        alert = {"symbol": symbol, "action": action, "quantity": QUANTITIES[symbol]}
        made.append((path, alert | {"id": f"{time.monotonic_ns()}-{turn}"}))
    return made


def _spread(rows: Sequence[Sequence[Any]], stage: int) -> dict[str, int]:
    values = sorted(float(row[stage]) for row in rows)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        name: round(values[min(int(len(values) * share), len(values) - 1)] * 1000)
        for name, share in shares.items()
    }


def processor_seconds(product: Product) -> Counter[str]:
    """What the product's processes, taken together by their work, have used of the processors."""
    used: Counter[str] = Counter()
    for process in _everybody(product):
        with suppress(psutil.Error):
            times = process.cpu_times()
            used[_role(process.cmdline())] += times.user + times.system  # type: ignore[assignment]
    return used


def _everybody(product: Product) -> set[psutil.Process]:
    """Its processes with their children: PostgreSQL's for its connections name themselves otherwise."""
    found = set(product.processes())
    for process in list(found):
        with suppress(psutil.Error):
            found.update(process.children(recursive=True))
    return found


def _each(spent: Counter[str], orders: int) -> dict[str, float]:
    return {role: round(seconds * 1000 / orders, 1) for role, seconds in spent.items()}


def memory(product: Product) -> dict[str, int]:
    """Proportional set size of the product's processes in MiB, PostgreSQL's taken together."""
    found: Counter[str] = Counter()
    for process in _everybody(product):
        with suppress(psutil.Error):
            words = process.cmdline()
            found[_role(words)] += process.memory_full_info().pss >> 20
    return dict(found)


def _role(words: Sequence[str]) -> str:
    if "worker" in words:
        return f"worker of {words[words.index('-Q') + 1]}"
    if words and "postgres" in words[0]:
        return "PostgreSQL"
    roles = ("up", "granian", "beat")
    return next((role for role in roles if any(role in one for one in words)), "others")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
