"""A storm over the bridge: both ends killed at random under a terminal that loses requests and answers.

`python -m tests.brokers.bridge.chaos --driver ib --orders 1000 --days 10` prints one JSON object a day
and one for all; `--latency` measures a quiet agent instead. A day has a terminal, an agent and a worker
of its own: each look-up of an order whose number nobody heard reads all orders of the day.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from brokers.bridge.drivers.mt5_terms import magic_of
from brokers.client_ids import letters_and_digits
from brokers.types import Outcome
from tests.brokers.bridge.chaos_worker import request_of
from tests.brokers.terminals import ib, mt5, nt8
from tests.brokers.terminals.agent import RunningAgent
from tests.brokers.terminals.rigs import ib_agent, mt5_agent, nt8_agent

LOSSES = 0.02
"""Share of placements whose request is lost, and of those whose answer is; a twentieth of it hangs."""


LEAST, GRACE = 4, 30.0
"""So many orders end between two kills, if they do within so many seconds."""


@dataclass(frozen=True)
class Venue:
    """A terminal with its agent. ``placed`` counts the orders of an identity in the terminal's book;
    ``symbol`` and ``quantity`` are what is traded; after ``patience`` seconds without a word of an
    order the worker leaves it to an operator."""

    agent: RunningAgent
    symbol: str
    quantity: str
    placed: Callable[[str], int]
    patience: float = 300


@contextmanager
def mt5_venue(folder: Path, trouble: Callable[[], Any] | None, history: int = 0) -> Iterator[Venue]:
    """``history``: orders of today the terminal has to look through already."""
    terminal = mt5.Mt5Terminal(balance=1e12, trouble=trouble)
    terminal.look_back_on(history)

    def placed(identity: str) -> int:
        return terminal.placed(magic_of(identity))

    with mt5.running(terminal) as address:
        yield Venue(mt5_agent(folder, terminal, address), "BTC/USDT", "0.001", placed)


@contextmanager
def nt8_venue(folder: Path, trouble: Callable[[], Any] | None, history: int = 0) -> Iterator[Venue]:
    """A file that was read empty leaves no trace: no machine can say what became of that order."""
    simulator = nt8.Nt8Simulator(folder, trouble=trouble)

    def placed(identity: str) -> int:
        return simulator.placed(letters_and_digits(identity))

    with nt8.running(simulator):
        yield Venue(nt8_agent(folder, simulator), "BTC/USDT", "0.001", placed, patience=8)


@contextmanager
def ib_venue(folder: Path, trouble: Callable[[], Any] | None, history: int = 0) -> Iterator[Venue]:
    tws = ib.Tws(balance=Decimal(10) ** 12, trouble=trouble)

    def placed(identity: str) -> int:
        return tws.placed(letters_and_digits(identity))

    with ib.running(tws) as port:
        yield Venue(ib_agent(folder, tws, port), "BRK.A/USD", "1", placed)


VENUES = {"mt5": mt5_venue, "nt8": nt8_venue, "ib": ib_venue}


@dataclass
class Verdict:
    orders: int
    accepted: int = 0
    absent: int = 0
    lost: int = 0
    doubled: int = 0
    ghosts: int = 0
    """Called absent and yet at the venue."""
    operators: int = 0
    """Of which nobody could tell anything: an operator's."""
    unfinished: int = 0
    agent_kills: int = 0
    worker_kills: int = 0
    faults: int = 0
    seconds: float = 0


def storm(
    folder: Path,
    driver: str,
    orders: int,
    calm: float,
    seed: int,
    seconds: float,
    history: int = 0,
) -> Verdict:
    """Both ends are killed about every ``calm`` seconds until all orders have an end."""
    dice, verdict = random.Random(seed), Verdict(orders)

    def trouble() -> str | None:
        drawn = dice.random()
        fault = "before" if drawn < LOSSES else "after" if drawn < 2 * LOSSES else None
        fault = "hang" if 2 * LOSSES <= drawn < 2.05 * LOSSES else fault
        verdict.faults += fault is not None
        return fault

    ledger = _ledger(folder / "ledger.sqlite3", orders, dice)
    with VENUES[driver](folder, trouble, history) as venue:
        venue.agent.start()
        try:
            _rage(venue, ledger, calm, dice, verdict, seconds)
        finally:
            venue.agent.kill()
    _judge(ledger, venue, verdict)
    return verdict


def _rage(
    venue: Venue, ledger: Path, calm: float, dice: random.Random, v: Verdict, most: float
) -> None:
    started, worker = time.monotonic(), _worker(venue, ledger)
    while worker.poll() is None and time.monotonic() - started < most:
        before = _ended(ledger)
        time.sleep(dice.uniform(0.2, 2) * calm)
        _let_some_end(ledger, before, worker)
        if dice.random() < 0.5:
            venue.agent.kill()
            v.agent_kills += 1
            venue.agent.start()
        elif worker.poll() is None:
            worker.kill()
            worker.wait()
            v.worker_kills += 1
            worker = _worker(venue, ledger)
    worker.kill()
    worker.wait()
    v.seconds = round(time.monotonic() - started, 1)


def _let_some_end(ledger: Path, before: int, worker: subprocess.Popen[bytes]) -> None:
    """A kill leaves at most two orders unknown. Where finding one takes as long as the calm between two
    kills, as in a day of 10,000 orders, the storm would never end without this."""
    end = time.monotonic() + GRACE
    while worker.poll() is None and _ended(ledger) < before + LEAST and time.monotonic() < end:
        time.sleep(0.05)


def _ended(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger, timeout=30)) as db:
        query = "SELECT count(*) FROM orders WHERE state IN ('ACCEPTED', 'ABSENT', 'OPERATOR')"
        count: int = db.execute(query).fetchone()[0]
        return count


def _worker(venue: Venue, ledger: Path) -> subprocess.Popen[bytes]:
    agent = venue.agent
    told: dict[str, Any] = {
        "symbol": venue.symbol,
        "quantity": venue.quantity,
        "url": f"http://127.0.0.1:{agent.port}",
        "account": agent.account,
        "patience": venue.patience,
        "key": agent.key,
    }
    command = [sys.executable, "-m", "tests.brokers.bridge.chaos_worker", str(ledger)]
    return subprocess.Popen([*command, json.dumps(told)], env=agent.environment())


def _ledger(path: Path, orders: int, dice: random.Random) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(
            "CREATE TABLE orders (identity TEXT PRIMARY KEY, state TEXT DEFAULT 'PENDING',"
            " tries INT DEFAULT 1, looks INT DEFAULT 0, due REAL DEFAULT 0, busy INT DEFAULT 0,"
            " unknown_since REAL DEFAULT 0)"
        )
        db.execute("CREATE INDEX ready ON orders (state, busy, due)")
        rows = [(uuid.UUID(int=dice.getrandbits(128)).hex,) for _ in range(orders)]
        db.executemany("INSERT INTO orders (identity) VALUES (?)", rows)
        db.commit()
    return path


def _judge(ledger: Path, venue: Venue, verdict: Verdict) -> None:
    with closing(sqlite3.connect(ledger)) as db:
        for identity, state in db.execute("SELECT identity, state FROM orders"):
            there = venue.placed(identity)
            verdict.doubled += there > 1
            verdict.accepted += state == "ACCEPTED"
            verdict.absent += state == "ABSENT"
            verdict.lost += state == "ACCEPTED" and there == 0
            verdict.ghosts += state == "ABSENT" and there > 0
            verdict.operators += state == "OPERATOR"
            verdict.unfinished += state not in ("ACCEPTED", "ABSENT", "OPERATOR")


def _total(days: Sequence[Verdict]) -> Verdict:
    return Verdict(*(sum(getattr(day, one.name) for day in days) for one in fields(Verdict)))


def latency(folder: Path, driver: str, orders: int) -> dict[str, float]:
    """Milliseconds from the plugin's call to its accepted answer, one after the other."""
    with VENUES[driver](folder, None) as venue:
        venue.agent.start()
        plugin, taken = venue.agent.plugin(), []
        plugin.fetch_data(venue.symbol)
        for _ in range(orders):
            request = request_of(uuid.uuid4().hex, venue.symbol, venue.quantity)
            started = time.perf_counter()
            assert plugin.execute_order(request).outcome is Outcome.ACCEPTED
            taken.append((time.perf_counter() - started) * 1000)
        venue.agent.kill()
    cuts = statistics.quantiles(taken, n=20)
    return {"orders": orders, "p50_ms": round(cuts[9], 2), "p95_ms": round(cuts[18], 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", choices=sorted(VENUES), default="mt5")
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--calm", type=float, default=2.0, help="seconds between kills, about")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=1, help="so many storms, one after the other")
    parser.add_argument("--history", type=int, default=0, help="orders of today before it (mt5)")
    parser.add_argument("--latency", type=int, help="measure so many orders in peace instead")
    told = parser.parse_args()
    if told.latency:
        with tempfile.TemporaryDirectory() as folder:
            _print(latency(Path(folder), told.driver, told.latency))
        return 0
    days = []
    for day in range(told.days):
        seed, seconds = told.seed + day, told.minutes * 60
        with tempfile.TemporaryDirectory() as folder:
            verdict = storm(
                Path(folder), told.driver, told.orders, told.calm, seed, seconds, told.history
            )
            days.append(verdict)
        _print(asdict(days[-1]))
    verdict = _total(days)
    _print(asdict(verdict))
    return int(bool(verdict.lost or verdict.doubled or verdict.ghosts or verdict.unfinished))


def _print(told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
