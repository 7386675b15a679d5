"""NinjaTrader 8's two folders and log, for tests, with the bad habits seen on real machines."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

TYPES = {"MARKET", "LIMIT", "STOPMARKET", "STOPLIMIT"}
NAP = 3.0
ENDED = {"FILLED", "CANCELLED", "REJECTED"}


@dataclass
class Nt8Simulator:
    """``asleep``: reads nothing until woken, then everything. ``empty_reads``: so many files are read
    before they hold anything. ``lingers``: what was read stays in the folder, and is acted upon once it
    is gone from there; ``stuck``: not even then. ``mute``: works and writes no state files.
    ``fills_first``: an order is filled just before its cancel is read. ``refuses_form``: refuses lines
    at parse time, in the log only."""

    root: Path
    account: str = "Sim101"
    price: Decimal = Decimal(60000)
    most: Decimal = Decimal(100_000)
    short_names: bool = False
    asleep: bool = False
    empty_reads: int = 0
    lingers: bool = False
    stuck: bool = False
    mute: bool = False
    fills_first: bool = False
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    refuses_form: bool = False
    trouble: Callable[[], Any] | None = None
    """What strikes each file: `before` reads it empty, `after` lingers on it, `hang` is a nap."""

    def __post_init__(self) -> None:
        for name in ("incoming", "outgoing", "log", "staging"):
            (self.root / name).mkdir()
        self.incoming, self.outgoing = self.root / "incoming", self.root / "outgoing"
        self.journal = self.root / "log" / "log.20261121.00001.txt"
        self.held: dict[str, Decimal] = {}
        self._lock = threading.RLock()
        self._read: dict[Path, str] = {}
        self._naps_until = 0.0
        self.connect("CONNECTED")

    def connect(self, word: str) -> None:
        (self.outgoing / "Feed.txt").write_text(word)

    def fill(self, order_id: str, contracts: Decimal) -> None:
        with self._lock:
            self._fill(order_id, contracts, self.orders[order_id]["limit"] or self.price)

    def placed(self, order_id: str) -> int:
        """How many instructions to place this order were acted upon."""
        with self._lock:
            mine = [line for line in self.lines if f";{order_id};" in line]
            return sum(line.startswith("PLACE") for line in mine)

    def restart(self) -> None:
        """The outgoing folder is emptied."""
        with self._lock:
            shutil.rmtree(self.outgoing)
            self.outgoing.mkdir()
            self.connect("CONNECTED")

    def look(self) -> None:
        """One look of the folder's watcher."""
        if self.asleep or time.monotonic() < self._naps_until:
            return
        self._act_on_what_was_read()
        for path in sorted(self.incoming.glob("*.txt")):
            with self._lock:
                for line in self._lines_of(path):
                    self._take(line)

    def _lines_of(self, path: Path) -> list[str]:
        """What of a file is acted upon now; most often it is deleted after it was read."""
        try:
            text = path.read_text()
        except FileNotFoundError:
            return []
        is_half = not text.endswith("\n") and path.name.startswith("oif")
        if is_half or path in self._read or time.monotonic() < self._naps_until:
            return []
        fault = self.trouble() if self.trouble else None
        if fault == "hang":
            self._naps_until = time.monotonic() + NAP
            return []
        if self.lingers or fault == "after":
            self._read[path] = text
            return []
        path.unlink(missing_ok=True)
        if self.empty_reads or fault == "before":
            self.empty_reads = max(0, self.empty_reads - 1)
            return []
        if not path.name.startswith("oif"):
            self._log(f"Unknown OIF file type '{path.name}'")
            return []
        return text.splitlines()

    def _act_on_what_was_read(self) -> None:
        with self._lock:
            gone = [path for path in self._read if not self.stuck and not path.exists()]
            for path in gone:
                for line in self._read.pop(path).splitlines():
                    self._take(line)

    def _take(self, line: str) -> None:
        self.lines.append(line)
        self._log(f"OIF, '{line}' processing")
        fields = line.split(";")
        if len(fields) != 13 or self.refuses_form:
            self._log(f"OIF, '{line}' has invalid # of parameters, should be 13 but is 15")
            return
        if fields[0] == "CANCEL":
            order = self.orders.get(fields[10])
            if order is not None and order["state"] not in ENDED and self.fills_first:
                self.fill(fields[10], order["quantity"] - order["filled"])
            if order is not None and order["state"] not in ENDED:
                self._say(fields[10], "CANCELLED")
        elif fields[5] not in TYPES:
            self._log(f"OIF, '{line}' holds invalid order type parameter '{fields[5]}'")
        else:
            self._place(fields)

    def _place(self, fields: list[str]) -> None:
        order_id, quantity = fields[10], Decimal(fields[4])
        self.orders[order_id] = {
            "instrument": fields[2],
            "sign": 1 if fields[3] == "BUY" else -1,
            "quantity": quantity,
            "limit": Decimal(fields[6]) if fields[6] else None,
            "filled": Decimal(0),
            "spent": Decimal(0),
            "state": "",
        }
        self._say(order_id, "SUBMITTED")
        if quantity > self.most:
            self._say(order_id, "REJECTED")
        elif fields[5] == "MARKET":
            self._fill(order_id, quantity, self.price)
        else:
            self._say(order_id, "WORKING")

    def _fill(self, order_id: str, contracts: Decimal, price: Decimal) -> None:
        order = self.orders[order_id]
        order["filled"] += contracts
        order["spent"] += contracts * price
        whole = order["filled"] == order["quantity"]
        self._say(order_id, "FILLED" if whole else "PARTFILLED")
        name = order["instrument"]
        held = self.held[name] = self.held.get(name, Decimal(0)) + order["sign"] * contracts
        word = "FLAT" if not held else "LONG" if held > 0 else "SHORT"
        file = self.outgoing / f"{name} Globex_{self.account}_Position.txt"
        self._write(file, f"{word};{abs(held)};{price}")

    def _say(self, order_id: str, word: str) -> None:
        order = self.orders[order_id]
        order["state"] = word
        average = order["spent"] / order["filled"] if order["filled"] else Decimal(0)
        name = f"{order_id}.txt" if self.short_names else f"{self.account}_{order_id}.txt"
        self._write(self.outgoing / name, f"{word};{order['filled']};{average}")

    def _write(self, path: Path, text: str) -> None:
        if not self.mute:
            path.write_text(text)

    def _log(self, text: str) -> None:
        with self.journal.open("a") as file:
            file.write(f"2026-11-21 12:00:00:000|1|64|{text}\n")


@contextmanager
def running(simulator: Nt8Simulator) -> Iterator[Nt8Simulator]:
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.is_set():
            simulator.look()
            time.sleep(0.005)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield simulator
    finally:
        stopped.set()
        thread.join()
