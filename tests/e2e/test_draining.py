"""SIGTERM while alerts come in: what is under way ends, what is stored is picked up afterwards."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fks_site.management.commands.up import GRACE
from tests.e2e.desk import binance_desk
from tests.e2e.product import Product, eventually, running_product
from tests.venues.client import running_venue

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SYMBOLS = {"BTCUSDT": "0.001", "ETHUSDT": "0.01", "SOLUSDT": "0.1"}
LATENCY_MS = 300
DONE = "SELECT count(*) FROM execution_signal WHERE state = 'executed'"
STORED = "SELECT count(*) FROM execution_signal"
CUT_SHORT = "SELECT count(*) FROM execution_orderevent WHERE event = 'lose_sight'"


class Sender:
    """Posts an alert after the other, each until it is acknowledged, as senders do."""

    def __init__(self, product: Product, path: str, symbol: str) -> None:
        self.acknowledged: set[str] = set()
        self._product, self._path, self._symbol = product, path, symbol
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(20)

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            body = {"symbol": self._symbol, "action": "buy", "id": f"{self._symbol} {number}"}
            if self._is_taken(body | {"quantity": SYMBOLS[self._symbol]}):
                number += 1
            time.sleep(0.1)

    def _is_taken(self, body: dict[str, str]) -> bool:
        try:
            status, answer = self._product.post(self._path, body)
        except (OSError, http.client.HTTPException, ValueError):
            return False
        assert status in (200, 202, 503), answer
        if status != 503:
            self.acknowledged.add(answer["signal_id"])
        return status != 503


def seconds_until_gone(process: psutil.Process) -> float:
    """SIGTERM; how long it took to end."""
    started = time.monotonic()
    process.terminate()
    process.wait(60)
    return time.monotonic() - started


def test_nothing_is_lost_or_doubled_when_it_is_told_to_stop_during_traffic(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with running_venue(id_rule="none") as venue, running_product(tmp_path / "var") as product:
        path = binance_desk(product, venue)
        venue.control.set_latency(LATENCY_MS)
        senders = [Sender(product, path, symbol) for symbol in SYMBOLS]
        eventually(lambda: product.rows(DONE)[0][0] > 3, seconds=60, what="traffic")

        told = [("worker", one) for one in product.workers()]
        told.append(("web", product.running("granian")[0]))
        for name, process in told:
            took = seconds_until_gone(process)
            record_property(f"{name} ended after, s", round(took, 2))
            assert took < GRACE[name]
        before = product.rows(DONE)[0][0]
        eventually(lambda: product.rows(DONE)[0][0] > before, seconds=90, what="traffic again")

        started = time.monotonic()
        assert product.stop(signal.SIGTERM) == 0
        took = time.monotonic() - started
        record_property("everything ended after, s", round(took, 2))
        assert took < sum(GRACE.values())
        assert product.processes() == []
        for sender in senders:
            sender.stop()
        acknowledged = set().union(*(sender.acknowledged for sender in senders))
        record_property("alerts acknowledged", len(acknowledged))

        venue.control.set_latency(0)
        product.start()
        eventually(
            lambda: product.rows(DONE) == product.rows(STORED),
            seconds=90,
            what="every acknowledged alert executed",
        )
        stored = {str(pk) for (pk,) in product.rows("SELECT id FROM execution_signal")}
        assert acknowledged <= stored
        placed = Counter(order.client_id for order in venue.control.ledger("binance").orders)
        assert set(placed.values()) == {1}
        assert len(placed) == len(stored)
        assert product.rows(CUT_SHORT) == [(0,)]
