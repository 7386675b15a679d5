"""One soak: alerts at an even pace, gauges read on the way, judged like a storm at the end."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from statistics import median
from typing import Any

from django.db import connections

from brokers.errors import BrokerError
from brokers.models import Account
from execution import reconcile
from fks_site.addresses import Urls
from risk.types import Refusal
from tests.chaos.fleet import Fleet
from tests.chaos.plan import Step
from tests.chaos.story import story
from tests.chaos.verdict import Auditor
from tests.soak.gauges import Gauges, Readings, after, out_of_bounds, p95, slope
from tests.soak.stream import FAULTS, stream
from tests.venues.client import RunningVenue

PROCESSES = {"worker": 1, "exits": 1, "beat": 1, "web": 1}
SENDERS = 8
SAMPLE_S = 10
READY_S = 30
SETTLE_LIMIT_S = 180
TOO_LATE_S = 1
"""An alert sent so long after its time shows that the machine does not keep the pace."""


class Pace:
    """Hands the steps out, each at its time from ``begin`` on."""

    def __init__(self, per_minute: float, minutes: float) -> None:
        self.late = 0
        self._every = 60 / per_minute
        self._steps_left = round(per_minute * minutes) + 1  # both ends are sent
        self._is_over = threading.Event()
        self._steps = stream()
        self._lock = threading.Lock()

    def begin(self) -> None:
        self._started = self._next = time.monotonic()

    def end(self) -> None:
        """Now, whatever is left."""
        self._is_over.set()

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._started) / 60

    def __iter__(self) -> Iterator[Step]:
        while True:
            with self._lock:
                if not self._steps_left:
                    return
                self._steps_left -= 1
                due, self._next = self._next, self._next + self._every
                step = next(self._steps)
            wait = due - time.monotonic()
            if self._is_over.wait(max(wait, 0)):
                return
            if -wait > TOO_LATE_S:
                self.late += 1
            yield step


class Soak:
    """Drives an installation whose zygote is up."""

    def __init__(
        self,
        port: int,
        paths: dict[str, str],
        channel: socket.socket,
        urls: Urls,
        servers: Mapping[int, str],
        options: Namespace,
    ) -> None:
        self.options = options
        self.pace = Pace(options.rate, options.minutes)
        self.fleet = Fleet(channel, options.seed, PROCESSES)
        self.gauges = Gauges(urls.database, urls.redis)
        self.steps: list[Step] = []
        self.acknowledged: dict[int, str] = {}
        self.answers: Counter[str] = Counter()
        self.answers_ms: list[float] = []
        self._servers = servers
        self._port = port
        self._paths = paths

    def carry_out(self, venue: RunningVenue) -> dict[str, Any]:
        """All figures, by name."""
        self.fleet.start()
        self._wait_for_the_web()
        venue.control.set_fault_rates(*FAULTS)
        self.pace.begin()
        senders = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        told = 0
        while any(sender.is_alive() for sender in senders):
            self.gauges.read({**self._servers, **self.fleet.pids()})
            if self.pace.minutes >= told + 1:
                told += 1
                self._tell(told)
            time.sleep(SAMPLE_S)
        minutes = round(self.pace.minutes, 1)
        bounds = out_of_bounds(self.gauges.readings, self.answers_ms, self.options.warm_up * 60)
        if self.pace.late:
            bounds.append(
                f"{self.pace.late} alerts were sent late: the machine does not keep the pace"
            )
        venue.control.clear_faults()
        self._settle()
        return {"minutes": minutes} | self._figures(venue, bounds)

    def _tell(self, minute: int) -> None:
        """On stderr: hours without a word would look like a hang."""
        readings = self.gauges.readings
        words = [
            f"minute {minute}: {len(self.answers_ms)} alerts",
            f"p95 {p95(self.answers_ms[-1000:]):.0f} ms",
            f"{readings.under_way[-1][1]:.0f} under way",
            f"{readings.queued[-1][1]:.0f} queued",
            *(
                f"{name.split()[0]} {samples[-1][1]:.1f} MB"
                for name, samples in readings.memory.items()
                if name.startswith(("worker", "exits", "web"))
            ),
        ]
        sys.stderr.write(", ".join(words) + "\n")

    def _wait_for_the_web(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.1)

    def _send(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        for step in self.pace:
            started = time.monotonic()
            connection.request("POST", self._paths[step.strategy], json.dumps(step.body))
            response = connection.getresponse()
            body = response.read()
            self.answers_ms.append((time.monotonic() - started) * 1000)
            self.answers[str(response.status)] += 1
            self.steps.append(step)
            if response.status == HTTPStatus.ACCEPTED:
                self.acknowledged[step.index] = json.loads(body)["signal_id"]
        connection.close()

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while time.monotonic() < deadline:
            self.gauges.read({**self._servers, **self.fleet.pids()})
            if not self.gauges.readings.under_way[-1][1]:
                break
            time.sleep(1)
        connections.close_all()
        for account in Account.objects.all():
            with suppress(BrokerError, Refusal):
                reconcile.reconcile_account(account)

    def _figures(self, venue: RunningVenue, bounds: list[str]) -> dict[str, Any]:
        ledgers = {name: venue.control.ledger(name) for name in ("binance", "kraken")}
        auditor = Auditor(ledgers)
        auditor.alerts(self.steps, self.acknowledged)
        auditor.order_by_order()
        auditor.positions(ledgers)
        auditor.journals([])
        named = [finding.order for finding in auditor.findings if finding.order]
        faults = Counter[str]()
        for ledger in ledgers.values():
            faults.update({k: n for k, n in ledger.counts.items() if k.startswith("fault ")})
        return {
            "alerts acknowledged": len(self.acknowledged),
            "answers": dict(self.answers),
            "orders": len(auditor.orders),
            "reached the venue": len(auditor.placed),
            "faults": faults.total(),
            "order states": dict(Counter(str(row.state) for row in auditor.orders.values())),
            "webhook ms": {
                "median": round(median(self.answers_ms), 1),
                "p95": round(p95(self.answers_ms), 1),
                "most": round(max(self.answers_ms), 1),
            },
            **_of(self.gauges.readings, self.options.warm_up * 60),
            "deaths": dict(self.fleet.deaths),
            "out of bounds": bounds,
            "findings": [f"{finding.kind}: {finding.what}" for finding in auditor.findings[:20]],
            "story": story(named[0], venue.control, ledgers) if named else "",
        }


def _of(readings: Readings, warm: float) -> dict[str, Any]:
    """First, last and slope after the warm-up of each process; the most of the others."""
    memory = {}
    for name, samples in readings.memory.items():
        kept = after(samples, warm)
        if kept:
            growth = round(slope(kept), 2)
            memory[name] = f"{kept[0][1]:.1f} to {kept[-1][1]:.1f} MB, {growth:+} MB/h"
    return {
        "memory": memory,
        "connections": int(max(value for _, value in readings.connections)),
        "queued, most": int(max(value for _, value in readings.queued)),
        "under way, most": int(max(value for _, value in readings.under_way)),
    }
