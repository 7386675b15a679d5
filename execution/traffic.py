"""Alerts as a load generator sends them: a realistic mix over several threads, and what came back."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import SplitResult

from execution.signing import Signer

TIMEOUT = 15.0  # seconds
SHARES = {"buy": 0.44, "sell": 0.28, "close": 0.12, "repeat": 0.08, "cancel": 0.04, "invalid": 0.04}
"""Of the deliveries. ``repeat`` sends an earlier one again, ``invalid`` cannot be read as an alert."""
STORED = {200, 202}
"""An alert's repetition may overtake it and be the one that is stored."""
PRICES = {"BTC/USDT": Decimal(60_000), "ETH/USDT": Decimal(3_000), "SOL/USDT": Decimal(150)}
QUANTITIES = {"BTC/USDT": "0.001", "ETH/USDT": "0.02", "SOL/USDT": "0.5"}

Alert = dict[str, Any]


def alerts(seed: int, run: str) -> Iterator[tuple[str, Alert]]:
    """Kinds and alerts without end; each of its own id, the same for the same ``seed`` and ``run``."""
    random, number, latest = Random(seed), 0, None  # noqa: S311  (a mix, not a secret)
    while True:
        [kind] = random.choices(list(SHARES), list(SHARES.values()))
        if kind == "repeat" and latest is not None:
            yield kind, latest
            continue
        number += 1
        symbol = random.choice(list(PRICES))
        moved = PRICES[symbol] * (1 + Decimal(random.randint(-50, 50)) / 10_000)
        alert = {"symbol": symbol, "id": f"{run}-{number}", "timestamp": str(int(time.time()))}
        if kind == "invalid":
            yield kind, alert | {"action": "hodl"}
            continue
        action = "buy" if kind == "repeat" else kind
        alert |= {"action": action, "price": str(moved.quantize(Decimal("0.01")))}
        if action in ("buy", "sell"):
            alert |= {"quantity": QUANTITIES[symbol], "confidence": "0.8"}
        latest = alert
        yield "buy" if kind == "repeat" else kind, alert


@dataclass
class Report:
    """What was sent and what came back; ``accepted`` are the ids of signals that must be stored."""

    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    unexpected: int = 0
    seconds: float = 0
    latencies: list[float] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)

    def figures(self) -> dict[str, Any]:
        """The report as JSON values; latencies in milliseconds."""
        ordered = sorted(self.latencies) or [0.0]
        at = {q: ordered[min(len(ordered) - 1, len(ordered) * q // 100)] for q in (50, 95, 99)}
        return {
            "deliveries": len(self.latencies),
            "seconds": round(self.seconds, 2),
            "per_second": round(len(self.latencies) / max(self.seconds, 0.001), 1),
            "mean_ms": round(1000 * statistics.fmean(ordered), 2),
            **{f"p{q}_ms": round(1000 * value, 2) for q, value in at.items()},
            "sent": dict(sorted(self.sent.items())),
            "answers": dict(sorted(self.answers.items())),
            "unexpected": self.unexpected,
            "accepted": len(self.accepted),
        }


class Generator:
    """Posts to one webhook from several threads, until so many were sent or so long has passed."""

    def __init__(self, url: SplitResult, signer: Signer, mix: Iterator[tuple[str, Alert]]) -> None:
        self.report = Report()
        self._url, self._signer, self._mix = url, signer, mix
        self._lock = threading.Lock()
        self._left, self._end, self._begin, self._rate = 0, 0.0, 0.0, 0.0

    def run(self, *, webhooks: int, concurrent: int, seconds: float, rate: float = 0) -> Report:
        """With a ``rate`` (per second) each has its time, and a late answer counts from it."""
        self._begin, self._left, self._rate = time.monotonic(), webhooks, rate
        self._end = self._begin + seconds
        threads = [threading.Thread(target=self._post_all, daemon=True) for _ in range(concurrent)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.report.seconds = time.monotonic() - self._begin
        return self.report

    def _next(self) -> tuple[str, Alert, float] | None:
        with self._lock:
            due = self._begin + sum(self.report.sent.values()) / self._rate if self._rate else 0.0
            if not self._left or max(due, time.monotonic()) >= self._end:
                return None
            self._left -= 1
            kind, alert = next(self._mix)
            self.report.sent[kind] += 1
            return kind, alert, due

    def _post_all(self) -> None:
        with closing(self._connection()) as connection:
            while (job := self._next()) is not None:
                kind, alert, due = job
                time.sleep(max(due - time.monotonic(), 0))
                begun = due or time.monotonic()
                status, answer = self._post(connection, alert)
                self._note(kind, status, answer, time.monotonic() - begun)

    def _connection(self) -> http.client.HTTPConnection:
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._url.netloc, timeout=TIMEOUT)

    def _post(self, connection: http.client.HTTPConnection, alert: Alert) -> tuple[int, Any]:
        """Status and answer; 0 when there was none."""
        body, headers = self._signer.sign(alert)
        with suppress(OSError, http.client.HTTPException, ValueError):
            connection.request(
                "POST", self._url.path, body, {"Content-Type": "application/json"} | headers
            )
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        connection.close()
        return 0, {}

    def _note(self, kind: str, status: int, answer: Any, seconds: float) -> None:
        with self._lock:
            self.report.latencies.append(seconds)
            self.report.answers[str(status or "no answer")] += 1
            self.report.unexpected += status not in ({400} if kind == "invalid" else STORED)
            if status == http.HTTPStatus.ACCEPTED:
                self.report.accepted.add(answer["signal_id"])
