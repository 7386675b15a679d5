"""FKS's end of the storm: sends a durable ledger's orders through the plugin; may be killed anywhere.

It keeps FKS's rules: a row is SUBMITTING on the disk before a byte leaves; what was SUBMITTING at a
start is UNKNOWN; an UNKNOWN order is looked for, twice, a settle window apart, before it is sent again.
One that nobody can tell anything of for so long is an operator's.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from brokers.errors import BrokerError
from brokers.plugins.bridge import BridgePlugin
from brokers.types import (
    AccountConfig,
    Environment,
    OrderRef,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
)

SETTLE = 0.5
"""Seconds; the imitation of the terminal is never late by more."""
TRIES = 3
THREADS = 2


def request_of(identity: str, symbol: str, quantity: str) -> OrderRequest:
    side = Side.BUY if int(identity[0], 16) % 2 else Side.SELL
    return OrderRequest(identity, symbol, side, OrderType.MARKET, Decimal(quantity))


class Ledger:
    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self.db.execute("PRAGMA synchronous=FULL")

    def take(self) -> tuple[str, str, int, int] | None:
        """The next order with something to do, marked as under way."""
        with self.lock:
            row = self.db.execute(
                "SELECT identity, state, tries, looks FROM orders WHERE busy = 0 AND due <= ?"
                " AND state IN ('PENDING', 'UNKNOWN') ORDER BY state DESC, due LIMIT 1",
                (time.time(),),
            ).fetchone()
            if row is not None:
                state = "SUBMITTING" if row[1] == "PENDING" else "UNKNOWN"
                self.db.execute(
                    "UPDATE orders SET busy = 1, state = ? WHERE identity = ?", (state, row[0])
                )
            return row  # type: ignore[no-any-return]

    def book(self, identity: str, state: str, tries: int, looks: int, delay: float) -> None:
        with self.lock:
            now = time.time()
            self.db.execute(
                "UPDATE orders SET state=?, tries=?, looks=?, due=?, busy=0,"
                " unknown_since=CASE WHEN ?='UNKNOWN' AND unknown_since>0 THEN unknown_since"
                " WHEN ?='UNKNOWN' THEN ? ELSE 0 END WHERE identity=?",
                (state, tries, looks, now + delay, state, state, now, identity),
            )

    def is_an_operators(self, identity: str, patience: float) -> bool:
        """Whether it has been unknown for longer than that."""
        with self.lock:
            query = "SELECT unknown_since FROM orders WHERE identity = ?"
            since: float = self.db.execute(query, (identity,)).fetchone()[0]
            return 0 < since < time.time() - patience

    def unfinished(self) -> int:
        with self.lock:
            query = "SELECT count(*) FROM orders WHERE state NOT IN ('ACCEPTED', 'ABSENT',"
            query += " 'OPERATOR')"
            count: int = self.db.execute(query).fetchone()[0]
            return count


class Sender:
    """Gives every order of the ledger an end."""

    def __init__(
        self, plugin: BridgePlugin, ledger: Ledger, symbol: str, quantity: str, patience: float
    ) -> None:
        self.plugin, self.ledger = plugin, ledger
        self.symbol, self.quantity, self.patience = symbol, quantity, patience

    def send(self, identity: str, tries: int) -> None:
        result = self.plugin.execute_order(request_of(identity, self.symbol, self.quantity))
        if result.outcome is Outcome.ACCEPTED:
            self.ledger.book(identity, "ACCEPTED", tries, 0, 0)
        elif result.outcome is Outcome.NOT_SENT:
            self.ledger.book(identity, "PENDING", tries, 0, 0.05)
        elif result.outcome is Outcome.UNKNOWN:
            self.ledger.book(identity, "UNKNOWN", tries, 0, SETTLE)
        else:
            raise AssertionError(f"{identity}: {result}")

    def look(self, identity: str, tries: int, looks: int) -> None:
        try:
            report = self.plugin.fetch_order(OrderRef(identity, self.symbol, "", None))
        except BrokerError:
            over = self.ledger.is_an_operators(identity, self.patience)
            state = "OPERATOR" if over else "UNKNOWN"
            self.ledger.book(identity, state, tries, looks, 0.1)
            return
        if report is not None:
            self.ledger.book(identity, "ACCEPTED", tries, 0, 0)
        elif looks == 0:
            self.ledger.book(identity, "UNKNOWN", tries, 1, SETTLE)
        elif tries < TRIES:
            self.ledger.book(identity, "PENDING", tries + 1, 0, 0)
        else:
            self.ledger.book(identity, "ABSENT", tries, 0, 0)

    def work(self) -> None:
        while self.ledger.unfinished():
            row = self.ledger.take()
            if row is None:
                time.sleep(0.01)
                continue
            identity, state, tries, looks = row
            if state == "PENDING":
                self.send(identity, tries)
            else:
                self.look(identity, tries, looks)


def main(path: str, told: str) -> None:
    config: dict[str, Any] = json.loads(told)
    plugin, ledger = BridgePlugin(), Ledger(Path(path))
    asked = [config.pop(name) for name in ("symbol", "quantity", "patience")]
    sender = Sender(plugin, ledger, *asked)
    key = {"bridge_key": config.pop("key")}
    plugin.init(AccountConfig("1", "storm", Environment.SANDBOX, config, key))
    ledger.db.execute(
        "UPDATE orders SET state = 'UNKNOWN', unknown_since = ? WHERE state = 'SUBMITTING'",
        (time.time(),),
    )
    ledger.db.execute("UPDATE orders SET busy = 0")
    threads = [threading.Thread(target=sender.work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
