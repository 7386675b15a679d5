"""How fast alerts are accepted: signed alerts posted at a running server from another process.

``python -m benchmarks.webhook --http 127.0.0.1:8000 --seconds 15 --connections 20`` needs a running
``manage.py up`` of the same ``FKS_VAR``. Makes a strategy of its own on a disabled route, so that
accepting is measured and not trading (``--execute`` trades on paper as well). Afterwards every answered
alert is counted in the database: a run that lost one is no result.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
OLDER_SERVICE = {"req_per_s": 419.8, "p95_ms": 4.24}
"""What the older service reported of itself; it stored nothing."""


@dataclass
class Tally:
    """What the load generator saw. Latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    refused: int = 0


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    path: str
    key: bytes


def request_bytes(target: Target) -> bytes:
    """One signed HTTP request with an alert nobody sent before."""
    body = json.dumps(
        {
            "symbol": "BTCUSDT",
            "action": "buy",
            "quantity": "0.001",
            "price": "60000",
            "confidence": 0.8,
            "timestamp": int(time.time()),
            "id": uuid4().hex,
        }
    ).encode()
    signature = hmac.new(target.key, body, hashlib.sha256).hexdigest()
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: application/json\r\n"
        f"X-Webhook-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def one_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    lower = head.lower()
    length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
    return status, await reader.readexactly(length)


async def connection(
    target: Target, tally: Tally, end: float, interval: float, offset: float
) -> None:
    """Post until ``end``; with an ``interval`` at fixed times, so that a slow answer counts in full."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    due = time.perf_counter() + offset
    while (now := time.perf_counter()) < end:
        if interval and due > now:
            await asyncio.sleep(due - now)
        begun = due if interval else time.perf_counter()
        due += interval
        writer.write(request_bytes(target))
        status, body = await one_answer(reader)
        tally.latencies.append(time.perf_counter() - begun)
        if status == 202:
            tally.accepted.append(json.loads(body)["signal_id"])
        else:
            tally.refused += 1
    writer.close()


async def load(target: Target, connections: int, seconds: float, rate: float) -> Tally:
    tally = Tally()
    end = time.perf_counter() + seconds
    interval = connections / rate if rate else 0.0
    await asyncio.gather(
        *(
            connection(target, tally, end, interval, number * interval / connections)
            for number in range(connections)
        )
    )
    return tally


def in_django(code: str) -> str:
    """Run ``code`` in the installation's own Django; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{code}"],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "fks_site.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def make_strategy(slug: str, *, execute: bool) -> str:
    return in_django(
        "from execution.strategies import create_strategy\n"
        f"created = create_strategy({slug!r}, accounts=['paper'], auth='hmac')\n"
        f"created.strategy.routes.update(is_enabled={execute})\n"
        "print(created.secret)"
    )


def stored(slug: str) -> set[str]:
    listed = in_django(
        "from execution.models import Signal\n"
        f"rows = Signal.objects.filter(strategy__slug={slug!r})\n"
        "print('\\n'.join(str(pk) for pk in rows.values_list('pk', flat=True)))"
    )
    return set(listed.split())


def milliseconds(latencies: list[float], percent: float) -> float:
    ordered = sorted(latencies)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def report(name: str, tally: Tally, seconds: float) -> dict[str, float | str]:
    latencies = tally.latencies
    return {
        "run": name,
        "req_per_s": round(len(latencies) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(latencies), 2),
        "p95_ms": round(milliseconds(latencies, 95), 2),
        "p99_ms": round(milliseconds(latencies, 99), 2),
        "refused": tally.refused,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--rate", type=float, default=420, help="offered req/s of the second run")
    parser.add_argument("--execute", action="store_true", help="let the workers trade on paper")
    options = parser.parse_args()
    host, _, port = options.http.rpartition(":")
    slug = f"bench-{uuid4().hex[:8]}"
    key = make_strategy(slug, execute=options.execute)
    target = Target(host, int(port), f"/webhook/{slug}", key.encode())
    asyncio.run(load(target, 4, 2, 0))  # warm up, and counted below like the rest
    rows = []
    accepted: list[str] = []
    for name, rate in (("closed loop", 0.0), (f"{options.rate:g}/s offered", options.rate)):
        tally = asyncio.run(load(target, options.connections, options.seconds, rate))
        rows.append(report(name, tally, options.seconds))
        accepted += tally.accepted
    missing = set(accepted) - stored(slug)
    for row in rows:
        print(json.dumps(row))
    print(json.dumps({"answered_202": len(accepted), "missing_in_database": len(missing)}))
    print(json.dumps({"older_service_storing_nothing": OLDER_SERVICE}))
    if missing or len(set(accepted)) != len(accepted):
        sys.exit("an answered alert is not in the database: this is no result")


if __name__ == "__main__":
    main()
