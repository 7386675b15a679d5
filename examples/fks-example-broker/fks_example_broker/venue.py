"""The venue of the example: one SQLite file, one price, no fees to speak of.

It stands for what is on the other side of a network: it commits before it answers, knows each client
id once, and its answers may get lost (``break_next``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY, client_id TEXT UNIQUE, symbol TEXT, side TEXT, type TEXT,
    quantity TEXT, price TEXT, stop_price TEXT, status TEXT);
CREATE TABLE IF NOT EXISTS trades (
    id INTEGER PRIMARY KEY, order_id INTEGER, symbol TEXT, side TEXT, quantity TEXT, price TEXT,
    fee TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS troubles (kind TEXT);
"""
CASH = Decimal(1_000_000)
FEE = Decimal("0.001")


class Refused(Exception):
    """The venue said no, in its own words."""


class Lost(Exception):
    """The connection broke; nobody knows what the venue did."""


@dataclass(frozen=True, slots=True)
class Row:
    """An order as the venue keeps it."""

    id: int
    client_id: str
    symbol: str
    side: str
    type: str
    quantity: Decimal
    price: Decimal | None
    status: str


@dataclass(frozen=True, slots=True)
class Trade:
    id: int
    order_id: int
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    at: datetime


class Venue:
    """One file. Raises sqlite3.Error when it cannot be read."""

    def __init__(self, path: str, prices: dict[str, Decimal]) -> None:
        self._path, self.prices = path, prices

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=5)
        try:
            connection.executescript(TABLES)
            with connection:
                yield connection
        finally:
            connection.close()

    def place(self, order: dict[str, str]) -> int:
        """The id of the order. Raises Refused, or Lost."""
        with self._open() as db:
            trouble = db.execute("SELECT rowid, kind FROM troubles ORDER BY rowid").fetchone()
            if trouble is not None:
                db.execute("DELETE FROM troubles WHERE rowid = ?", (trouble[0],))
            if trouble is None or trouble[1] != "request":
                order_id = self._take(db, order)
        if trouble is not None:
            raise Lost
        return order_id

    def _take(self, db: sqlite3.Connection, order: dict[str, str]) -> int:
        known = db.execute("SELECT id FROM orders WHERE client_id = ?", (order["client_id"],))
        if known.fetchone() is not None:
            raise Refused("duplicate client id")
        price = Decimal(order["price"]) if "price" in order else self.prices[order["symbol"]]
        if Decimal(order["quantity"]) * price > self._cash(db):
            raise Refused("not enough money")
        names = ("client_id", "symbol", "side", "type", "quantity", "price", "stop_price")
        values = [order.get(name) for name in names]
        insert = (
            "INSERT INTO orders (client_id, symbol, side, type, quantity, price, stop_price, status)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'open')"
        )
        order_id = db.execute(insert, values).lastrowid or 0
        if order["type"] == "market":
            self._fill(db, order_id, Decimal(order["quantity"]), price)
        return order_id

    def _cash(self, db: sqlite3.Connection) -> Decimal:
        paid = Decimal(0)
        for side, quantity, price in db.execute("SELECT side, quantity, price FROM trades"):
            paid += Decimal(quantity) * Decimal(price) * (1 if side == "buy" else -1)
        return CASH - paid

    def fill(self, order_id: int, quantity: Decimal) -> None:
        """Execute a part of a resting order at its own price."""
        with self._open() as db:
            (price,) = db.execute("SELECT price FROM orders WHERE id = ?", (order_id,)).fetchone()
            self._fill(db, order_id, quantity, Decimal(price))

    def _fill(
        self, db: sqlite3.Connection, order_id: int, quantity: Decimal, price: Decimal
    ) -> None:
        symbol, side, whole = db.execute(
            "SELECT symbol, side, quantity FROM orders WHERE id = ?", (order_id,)
        ).fetchone()
        db.execute(
            "INSERT INTO trades (order_id, symbol, side, quantity, price, fee, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                order_id, symbol, side, str(quantity), str(price), str(quantity * price * FEE),
                datetime.now(UTC).isoformat(),
            ),
        )  # fmt: skip
        rows = db.execute("SELECT quantity FROM trades WHERE order_id = ?", (order_id,))
        if sum((Decimal(one) for (one,) in rows), Decimal(0)) == Decimal(whole):
            db.execute("UPDATE orders SET status = 'filled' WHERE id = ?", (order_id,))

    def cancel(self, client_id: str) -> bool:
        with self._open() as db:
            statement = (
                "UPDATE orders SET status = 'canceled' WHERE client_id = ? AND status = 'open'"
            )
            return db.execute(statement, (client_id,)).rowcount == 1

    def orders(self) -> list[Row]:
        with self._open() as db:
            rows = db.execute(
                "SELECT id, client_id, symbol, side, type, quantity, price, status FROM orders"
            ).fetchall()
        return [
            Row(*row[:5], Decimal(row[5]), None if row[6] is None else Decimal(row[6]), row[7])
            for row in rows
        ]

    def trades(self) -> list[Trade]:
        with self._open() as db:
            rows = db.execute(
                "SELECT id, order_id, symbol, side, quantity, price, fee, at FROM trades ORDER BY id"
            ).fetchall()
        return [
            Trade(*row[:4], *(Decimal(one) for one in row[4:7]), datetime.fromisoformat(row[7]))
            for row in rows
        ]

    def cash(self) -> Decimal:
        with self._open() as db:
            return self._cash(db)

    def break_next(self, kind: str) -> None:
        """The next order's ``answer`` or the ``request`` itself gets lost."""
        with self._open() as db:
            db.execute("INSERT INTO troubles VALUES (?)", (kind,))
