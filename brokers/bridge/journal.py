"""The agent's durable memory: an order is written here, synced to disk, before anything is done.

SQLite in WAL mode with ``synchronous=FULL``: every commit is on the disk before it returns
(sqlite.org/pragma.html#pragma_synchronous). An id is taken once; a repeated id gets the stored result,
an id whose result was never written gets none.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brokers.bridge.codec import dump, load
from brokers.types import ExecutionResult, OrderRequest, Outcome

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    account TEXT NOT NULL, identity TEXT NOT NULL, client_id TEXT NOT NULL, request TEXT NOT NULL,
    sent_at TEXT NOT NULL, attempt INTEGER NOT NULL, result TEXT, notes TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (account, identity)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_client_id ON orders (account, client_id);
"""
_CHANGEABLE = {"send_before": None, "reference_price": None, "attempt": None}
"""What may differ when FKS sends an order again with the same identity."""
_ANEW = {"quantity": None}
"""What may differ besides where nothing of it has left: the position may have become smaller."""


class OtherOrderError(Exception):
    """The id belongs to an order with other content."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One order of the journal; ``result`` is ``None`` while nobody knows how it ended."""

    account: str
    client_id: str
    request: OrderRequest
    sent_at: datetime
    attempt: int
    result: ExecutionResult | None
    notes: Mapping[str, Any]

    @property
    def may_be_sent_again(self) -> bool:
        """Proven not to have left, and to be tried again."""
        result = self.result
        if result is None or result.outcome is not Outcome.NOT_SENT:
            return False
        return result.retry_after is not None

    @property
    def is_in_doubt(self) -> bool:
        """Nobody knows whether it is at the terminal."""
        return self.result is None or self.result.outcome is Outcome.UNKNOWN


class Journal:
    """Orders by account and identity. Safe for threads; one agent per file."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises sqlite3.Error, also when another agent holds it."""
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=2)
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(SCHEMA)
        with self._transaction():
            pass

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def intend(
        self, account: str, client_id: str, request: OrderRequest, absent: int | None = None
    ) -> Entry | None:
        """Take the id for ``request`` and sync it; ``None`` when it is now the caller's to send.

        Else the entry that holds the id. One that ended NOT_SENT, to be tried again, is taken
        anew, and so is one whose last attempt is ``absent``, proven not to be at the terminal. Raises
        OtherOrderError when the id belongs to an order with other content.
        """
        with self._transaction():
            known = self.find(account, request.identity)
            if known is not None:
                anew = known.may_be_sent_again or known.attempt == absent
                may_differ = _CHANGEABLE | _ANEW if anew else _CHANGEABLE
                if {**dump(known.request), **may_differ} != {**dump(request), **may_differ}:
                    raise OtherOrderError(request.identity)
                if not anew:
                    return known
            self._db.execute(
                "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?, ?, NULL, '{}')",
                (
                    account,
                    request.identity,
                    client_id,
                    json.dumps(dump(request)),
                    datetime.now(UTC).isoformat(),
                    known.attempt + 1 if known else 1,
                ),
            )
        return None

    def finish(self, account: str, identity: str, result: ExecutionResult) -> None:
        """Store how the order ended, synced."""
        with self._transaction():
            self._db.execute(
                "UPDATE orders SET result = ? WHERE account = ? AND identity = ?",
                (json.dumps(dump(result)), account, identity),
            )

    def note(self, account: str, identity: str, notes: Mapping[str, Any]) -> None:
        """Add what a driver must not forget of an order, synced."""
        with self._transaction():
            known = self.find(account, identity)
            if known is None:
                raise KeyError(identity)
            self._db.execute(
                "UPDATE orders SET notes = ? WHERE account = ? AND identity = ?",
                (json.dumps({**known.notes, **notes}), account, identity),
            )

    def find(self, account: str, identity: str) -> Entry | None:
        return self._one("account = ? AND identity = ?", account, identity)

    def by_client_id(self, account: str, client_id: str) -> Entry | None:
        return self._one("account = ? AND client_id = ?", account, client_id)

    def since(self, account: str, moment: datetime) -> list[Entry]:
        """Orders sent at or after ``moment``, oldest first."""
        rows = self._rows("account = ? AND sent_at >= ? ORDER BY sent_at", account, moment)
        return [_entry(row) for row in rows]

    def unresolved(self) -> int:
        """How many orders were begun and never got a result."""
        return len(self._rows("result IS NULL"))

    def _one(self, where: str, *values: object) -> Entry | None:
        rows = self._rows(where, *values)
        return _entry(rows[0]) if rows else None

    def _rows(self, where: str, *values: object) -> list[Any]:
        told = [v.isoformat() if isinstance(v, datetime) else v for v in values]
        columns = "account, client_id, request, sent_at, attempt, result, notes"
        with self._lock:
            query = f"SELECT {columns} FROM orders WHERE {where}"  # noqa: S608  our own text
            return self._db.execute(query, told).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield


def _entry(row: tuple[Any, ...]) -> Entry:
    account, client_id, request, sent_at, attempt, result, notes = row
    return Entry(
        account,
        client_id,
        load(OrderRequest, json.loads(request)),
        datetime.fromisoformat(sent_at),
        attempt,
        None if result is None else load(ExecutionResult, json.loads(result)),
        json.loads(notes),
    )
