"""Instructions on their way into NinjaTrader's folder, and taken back when nobody takes them.

A file that could be deleted may have been read all the same: the platform reads first and deletes then.
So an order counts as never taken only when its file is gone by our hand and, for a settle time after
that, neither a state file nor the log names it. Until then nobody knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from brokers.bridge.driver import Memory
from brokers.bridge.drivers import nt8_lines as lines
from brokers.bridge.drivers.nt8_folders import Folders, NotTakenError, wait_until
from brokers.bridge.journal import Entry
from brokers.errors import NotShownError, QueryFailedError

TAKEN_BACK = "taken_back_at"
WITHDRAWN = "withdrawn"
"""Notes of the journal: when a file was deleted, and that nothing came of it."""


class ExpiredError(NotTakenError):
    """Nothing was written: the order's time was over."""

    code = "EXPIRED_BEFORE_SENDING"


class Instructions:
    """``take_seconds`` until a file is taken back, ``settle_seconds`` until that counts."""

    def __init__(
        self, folders: Folders, memory: Memory, take_seconds: float, settle_seconds: float
    ) -> None:
        self._folders = folders
        self._memory = memory
        self._take_seconds = take_seconds
        self._settle_seconds = settle_seconds

    def place(self, identity: str, line: str) -> None:
        """Hand over an order the journal knows; no file waits longer than the order is fresh.

        Raises NotTakenError when NinjaTrader never took it, QueryFailedError when nobody can tell.
        """
        entry = self._memory.find(identity)
        if entry is None:
            raise QueryFailedError("the journal does not know this order")
        if entry.attempt > 1 and self._folders.names(entry.client_id):
            raise QueryFailedError("NinjaTrader speaks of this order already: not written again")
        patience = self._take_seconds
        if entry.request.send_before is not None:
            left = (entry.request.send_before - datetime.now(UTC)).total_seconds()
            patience = min(patience, left)
        if patience <= 0:
            raise ExpiredError("the claim on this order ended before it could be written")
        if self._folders.hand_over(_file_of(entry), line, patience):
            return
        self._memory.note(identity, {TAKEN_BACK: datetime.now(UTC).isoformat()})
        if wait_until(lambda: self._folders.names(entry.client_id), self._settle_seconds):
            return
        self._memory.note(identity, {WITHDRAWN: True})
        raise NotTakenError("NinjaTrader did not take the order's file: it was taken back")

    def cancel(self, client_id: str, is_ending: Callable[[], bool]) -> str:
        """Hand over an instruction to cancel this order; what it said. Raises as `place` does."""
        line, name = lines.cancel(client_id), f"{client_id}c{time.time_ns()}"
        if self._folders.hand_over(name, line, self._take_seconds):
            return line.strip()

        def is_known() -> bool:
            return is_ending() or self._folders.logs(name) or self._folders.logs(line.strip())

        if wait_until(is_known, self._settle_seconds):
            raise QueryFailedError("the cancel was taken back, and NinjaTrader may have read it")
        raise NotTakenError("NinjaTrader did not take the cancel's file: it was taken back")

    def take_back(self, entry: Entry) -> None:
        """Delete what nobody took, so that no late reader executes it. Raises QueryFailedError."""
        if self._folders.withdraw(_file_of(entry)):
            now = datetime.now(UTC).isoformat()
            self._memory.note(entry.request.identity, {TAKEN_BACK: now})

    def was_never_taken(self, entry: Entry) -> bool:
        """Whether nothing of this order can be at NinjaTrader; takes its file back if it is there.

        Raises NotShownError when it is too early to say.
        """
        self.take_back(entry)
        known = self._memory.find(entry.request.identity)
        if known is None or TAKEN_BACK not in known.notes:
            return False
        if self._folders.names(known.client_id) or "state" in known.notes:
            return False
        since = datetime.now(UTC) - datetime.fromisoformat(known.notes[TAKEN_BACK])
        if since < timedelta(seconds=self._settle_seconds):
            raise NotShownError("its file was taken back a moment ago, and may have been read")
        self._memory.note(known.request.identity, {WITHDRAWN: True})
        return True


def _file_of(entry: Entry) -> str:
    """A name of its own for every attempt: NinjaTrader remembers names."""
    return f"{entry.client_id}a{entry.attempt}"
