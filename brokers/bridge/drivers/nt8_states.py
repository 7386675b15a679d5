"""What is known of each order: NinjaTrader's state files, copied into the journal as they change.

The platform forgets its files at a restart, and tells only cumulative fills. A fill here is the
difference between two states, priced so that the average comes out; its time is when it was seen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.bridge.driver import Memory
from brokers.bridge.drivers import nt8_lines as lines
from brokers.bridge.drivers.nt8_folders import Folders
from brokers.bridge.journal import Entry
from brokers.decimals import plain
from brokers.types import FillReport, Outcome

logger = logging.getLogger(__name__)

MEMORY = timedelta(days=90)
SETTLED = timedelta(seconds=10)
"""After that a fill is in NinjaTrader's position files."""
LOOK_EVERY = 0.5
NEVER = frozenset({Outcome.NOT_SENT, Outcome.REJECTED})


class States:
    """Reads, remembers, and follows in the background until stopped."""

    def __init__(self, account: str, folders: Folders, memory: Memory) -> None:
        self._account = account
        self._folders = folders
        self._memory = memory
        self._lock = threading.Lock()
        self._seen: dict[str, str] = {}
        self._stopped = threading.Event()
        self._trouble = ""
        self._following = threading.Thread(target=self._follow, daemon=True)
        self._following.start()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def trouble(self) -> str:
        """Why states are not copied any more; empty while they are."""
        return self._trouble or ("" if self._following.is_alive() else "nobody follows them")

    def entries(self) -> Sequence[Entry]:
        return self._memory.since(datetime.now(UTC) - MEMORY)

    def unfinished(self) -> Sequence[Entry]:
        """Orders that may still change, by what is known so far."""
        return [entry for entry in self.entries() if _may_change(entry)]

    def now(self, identity: str) -> tuple[lines.State | None, bool]:
        """The newest state known of an order, and whether NinjaTrader still tells it."""
        with self._lock:
            entry = self._memory.find(identity)
            if entry is None:
                return None, False
            kept = lines.state(str(entry.notes.get("state", "")))
            told = self._folders.state_file(self._account, entry.client_id)
            state = None if told is None else lines.state(told)
            if state is None:
                return kept, False
            if kept is None or _is_news(kept, state):
                self._remember(entry, kept, state)
                return state, True
            return kept, True

    def fills(self, entry: Entry, units: Decimal, fee: Decimal, currency: str) -> list[FillReport]:
        """``units`` per contract; ``fee`` per contract."""
        return [
            FillReport(
                trade_id=f"{entry.client_id}-{row['total']}",
                quantity=plain(Decimal(row["contracts"]) * units),
                price=Decimal(row["price"]),
                fee=plain(Decimal(row["contracts"]) * fee),
                fee_currency=currency,
                at=datetime.fromisoformat(row["at"]),
            )
            for row in entry.notes.get("fills", [])
        ]

    def booked(self) -> dict[str, Decimal]:
        """Contracts by all fills since NinjaTrader last called a symbol flat; symbols without any are
        left out.
        """
        for entry in self.unfinished():
            self.now(entry.request.identity)
        entries = self.entries()
        flat = {
            entry.request.symbol: datetime.fromisoformat(entry.notes["flat"])
            for entry in entries
            if "flat" in entry.notes
        }
        held: dict[str, Decimal] = {}
        for entry in entries:
            symbol, sign = entry.request.symbol, entry.request.side.sign
            for row in entry.notes.get("fills", []):
                if symbol not in flat or _seen_at(row) > flat[symbol]:
                    held[symbol] = held.get(symbol, Decimal(0)) + sign * Decimal(row["contracts"])
        return held

    def note_flat(self, symbol: str, at: datetime) -> None:
        """NinjaTrader has called ``symbol`` flat since ``at``: what was filled before counts no more. A
        person may have closed it there, and of what is older than `MEMORY` half may be forgotten.
        """
        filled = [one for one in self.entries() if one.notes.get("fills")]
        mine = [one for one in filled if one.request.symbol == symbol]
        if at - max(_seen_at(row) for one in mine for row in one.notes["fills"]) > SETTLED:
            # on the newest: no fill from before outlives it
            self._memory.note(mine[-1].request.identity, {"flat": at.isoformat()})

    def _remember(self, entry: Entry, kept: lines.State | None, state: lines.State) -> None:
        rows: list[dict[str, Any]] = list(entry.notes.get("fills", []))
        before = kept.filled if kept else Decimal(0)
        spent = before * kept.average if kept else Decimal(0)
        new = state.filled - before
        if new > 0:
            price = plain((state.filled * state.average - spent) / new)
            row = {"contracts": new, "price": price, "total": state.filled}
            told = {name: format(plain(value), "f") for name, value in row.items()}
            rows.append({**told, "at": datetime.now(UTC).isoformat()})
        text = f"{state.word};{state.filled:f};{state.average:f}"
        self._memory.note(entry.request.identity, {"state": text, "fills": rows})

    def _follow(self) -> None:
        """Copy every state of ours that changed, before a restart of the platform removes it."""
        while not self._stopped.wait(LOOK_EVERY):
            try:
                self._copy()
                self._trouble = ""
            except Exception as error:
                # The thread's boundary: what a full disk or a lost folder stops goes on after it.
                if not (self._trouble or self._stopped.is_set()):
                    logger.exception("NinjaTrader's states cannot be copied")
                self._trouble = repr(error)

    def _copy(self) -> None:
        for path in self._folders.outgoing.glob("*fks*.txt"):
            client_id = path.stem.removeprefix(f"{self._account}_")
            try:
                stamp = str(path.stat().st_mtime_ns)
            except OSError:
                continue
            if self._seen.get(client_id) == stamp:
                continue
            entry = self._memory.by_client_id(client_id)
            if entry is None or self.now(entry.request.identity)[1]:
                self._seen[client_id] = stamp


def _seen_at(row: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(row["at"])


def _may_change(entry: Entry) -> bool:
    """What NinjaTrader said of an order outweighs what was thought of it before."""
    state = lines.state(str(entry.notes.get("state", "")))
    if state is not None:
        return state.status not in lines.ENDED
    never = entry.result is not None and entry.result.outcome in NEVER
    return not (never or entry.notes.get("withdrawn"))


def _is_news(kept: lines.State, state: lines.State) -> bool:
    """Later than what is kept: an end is not undone, fills are not taken back."""
    if state == kept or state.filled < kept.filled:
        return False
    return kept.status not in lines.ENDED or state.filled > kept.filled
