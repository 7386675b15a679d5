"""What reached the venues: every exchange request, its outcome, secrets masked."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass

from tests.venues.venue import Answer, Request

MASK = "***"
MASKED = frozenset({"signature", "otp"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One request. `order_id` is set when it got an order accepted, whatever was answered.

    `status` 0 means the connection was closed without an answer. `time` is in milliseconds.
    """

    sequence: int
    time: int
    venue: str
    account: str
    method: str
    path: str
    params: dict[str, str]
    endpoint: str
    status: int
    fault: str
    order_id: str
    error: str

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class Journal:
    """The newest `limit` entries and the counts of all."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._counts: dict[str, Counter[str]] = {}
        self._sequence = 0

    def record(
        self, venue: str, time: int, endpoint: str, request: Request, acted: Answer, sent: Answer
    ) -> None:
        """Note a request: `acted` is what the venue did, `sent` what the client got to see."""
        params = {k: MASK if k in MASKED else v for k, v in request.params.items()}
        account = request.credential.account if request.credential else ""
        with self._lock:
            self._sequence += 1
            entry = Entry(
                self._sequence,
                time,
                venue,
                account,
                request.method,
                request.path,
                params,
                endpoint,
                0 if sent.dropped else sent.status,
                request.fault.label if request.fault else "",
                acted.order_id,
                acted.error or sent.error,
            )
            self._entries.append(entry)
            self._count(entry)

    def _count(self, entry: Entry) -> None:
        counts = self._counts.setdefault(entry.venue, Counter())
        counts["requests"] += 1
        counts[f"{entry.endpoint}_requests"] += 1
        if entry.order_id:
            counts["accepted"] += 1
        if entry.fault:
            counts["faults"] += 1
            counts[f"fault {entry.fault}"] += 1

    def since(self, sequence: int) -> list[Entry]:
        """The kept entries after `sequence`, oldest first."""
        with self._lock:
            return [entry for entry in self._entries if entry.sequence > sequence]

    def counts(self, venue: str) -> dict[str, int]:
        with self._lock:
            return dict(self._counts.get(venue, Counter()))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._counts.clear()
