"""Posts the alerts of a run and sends each again until it is acknowledged, as senders do."""

from __future__ import annotations

import http.client
import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from random import Random

from tests.chaos.plan import Step

THREADS = 6
REPEATED_SHARE = 0.05
"""Of the alerts, delivered again after their acknowledgement."""


class Gate:
    """Lets senders through while the product keeps up."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.closed_for_good = threading.Event()

    def wait(self) -> bool:
        while not self.open.wait(0.2):
            if self.closed_for_good.is_set():
                return False
        return not self.closed_for_good.is_set()


class Senders:
    """``acknowledged`` maps the index of a step to the id its acknowledgement named."""

    def __init__(self, port: int, paths: Mapping[str, str], gate: Gate) -> None:
        self.acknowledged: dict[int, str] = {}
        self.answers: Counter[str] = Counter()
        self.surprises: list[str] = []
        self._port = port
        self._paths = paths
        self._gate = gate
        self._threads: list[threading.Thread] = []

    def send(self, steps: Iterable[Step]) -> None:
        """Send them in the background; those of a lane in their order."""
        parts: list[list[Step]] = [[] for _ in range(THREADS)]
        for step in steps:
            parts[zlib.crc32(repr(step.lane).encode()) % THREADS].append(step)
        for number, part in enumerate(parts):
            if part:
                work = part, Random(number)
                self._threads.append(
                    threading.Thread(target=self._send_all, args=work, daemon=True)
                )
                self._threads[-1].start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _send_all(self, steps: Sequence[Step], random: Random) -> None:
        for step in steps:
            if not self._gate.wait():
                return
            self._deliver(step)
            if random.random() < REPEATED_SHARE:
                self._deliver(step)

    def _deliver(self, step: Step) -> None:
        """Send until a 2xx; the id in it must be the same every time."""
        body = json.dumps(step.body)
        while True:
            status, answer = self._post(self._paths[step.strategy], body)
            self.answers[str(status or "no answer")] += 1
            if status in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
                break
            if status in range(400, 501):
                self.surprises.append(f"{step.key} was answered {status} {answer}")
                return
            time.sleep(0.1)
        known = self.acknowledged.setdefault(step.index, answer["signal_id"])
        if known != answer["signal_id"]:
            self.surprises.append(f"{step.key} has two signals: {known}, {answer['signal_id']}")

    def _post(self, path: str, body: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with suppress(OSError, http.client.HTTPException, ValueError):
            try:
                connection.request("POST", path, body)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            finally:
                connection.close()
        return 0, {}
