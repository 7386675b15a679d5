"""What is measured of the running product: memory of every process, connections, queues."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, quantiles

import psutil  # type: ignore[import-untyped]
import psycopg
import redis

from execution.handing_out import ORDERS, SWEEPS
from tests.chaos.run import UNDER_WAY

MB = 1024 * 1024
QUEUES = (ORDERS, SWEEPS)
MAX_SLOPE = 1.0
"""MB an hour."""
MAX_P95_MS = 50.0
MAX_QUEUED = 50
MAX_UNDER_WAY = 200
SPARE_CONNECTIONS = 2
"""More than at the end of the warm-up that are still no growth."""


@dataclass
class Readings:
    """Samples by what they are of; times in seconds since the start."""

    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    connections: list[tuple[float, float]] = field(default_factory=list)
    queued: list[tuple[float, float]] = field(default_factory=list)
    under_way: list[tuple[float, float]] = field(default_factory=list)


class Gauges:
    """Reads everything once per ``read``."""

    def __init__(self, database: str, redis_url: str) -> None:
        self.readings = Readings()
        self._database = psycopg.connect(database, autocommit=True)
        self._valkey = redis.Redis.from_url(redis_url)
        self._started = time.monotonic()

    def read(self, processes: Mapping[int, str]) -> None:
        """Sample ``processes`` (pid to role) with their children, the database and the queues."""
        now = time.monotonic() - self._started
        for pid, role in processes.items():
            with suppress(psutil.NoSuchProcess):
                for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                    name = f"{role} {process.pid}"
                    self.readings.memory[name].append((now, private_memory(process.pid)))
        row = self._database.execute("SELECT count(*) FROM pg_stat_activity").fetchone()
        self.readings.connections.append((now, float(row[0]) if row else 0))
        row = self._database.execute(UNDER_WAY).fetchone()
        self.readings.under_way.append((now, float(row[0]) if row else 0))
        self.readings.queued.append((now, sum(float(self._valkey.llen(q)) for q in QUEUES)))


def private_memory(pid: int) -> float:
    """MB resident that no file backs: what grows when a process leaks."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024 / MB
    return 0.0


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """By how much they grow in an hour: least squares; 0 for fewer than three."""
    if len(samples) < 3:
        return 0.0
    middle, mean = fmean(at for at, _ in samples), fmean(value for _, value in samples)
    spread = sum((at - middle) ** 2 for at, _ in samples)
    return 3600 * sum((at - middle) * (value - mean) for at, value in samples) / spread


def after(samples: Sequence[tuple[float, float]], start: float) -> list[tuple[float, float]]:
    return [sample for sample in samples if sample[0] >= start]


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1] if len(values) > 1 else 0.0


def out_of_bounds(readings: Readings, answers_ms: Sequence[float], warm: float) -> list[str]:
    """What has grown, or is too slow, after the warm-up of ``warm`` seconds."""
    found = [
        f"{name} grows by {slope(after(samples, warm)):.1f} MB/h"
        for name, samples in readings.memory.items()
        if slope(after(samples, warm)) > MAX_SLOPE
    ]
    if p95(answers_ms) > MAX_P95_MS:
        found.append(f"the webhook's p95 is {p95(answers_ms):.0f} ms")
    early = [value for at, value in readings.connections if at <= warm]
    late = after(readings.connections, warm)
    if early and late and max(value for _, value in late) > max(early) + SPARE_CONNECTIONS:
        found.append(
            f"{max(value for _, value in late):.0f} connections, {max(early):.0f} at first"
        )
    for name, samples, most in (
        ("queued", readings.queued, MAX_QUEUED),
        ("under way", readings.under_way, MAX_UNDER_WAY),
    ):
        last = [value for _, value in samples[-len(samples) // 4 :]]
        if last and median(last) > most:
            found.append(f"{median(last):.0f} {name} at the end")
    return found
