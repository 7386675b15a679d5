"""Prices of another account for a paper account: the market as it is, orders as in a rehearsal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from brokers.types import Quote

FRESH = 1.0
"""Seconds for which a quote answers again: every question about a resting order brings one."""
KNOWN = 5.0
"""Seconds after which nothing trades at a quote any more."""


class LiveQuotes:
    """The quotes of one source, safe for threads.

    ``see`` asks, and is never called inside a transaction; ``known`` is what it has just seen.
    """

    def __init__(self, source: Callable[[str], Quote]) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, Quote]] = {}

    def see(self, symbol: str) -> Quote:
        """The quote now. Raises what the source raises: BrokerError."""
        with self._lock:
            known = self._seen.get(symbol)
        if known is not None and time.monotonic() - known[0] < FRESH:
            return known[1]
        quote = self._source(symbol)
        with self._lock:
            self._seen[symbol] = (time.monotonic(), quote)
        return quote

    def known(self, symbol: str) -> Quote | None:
        """The last quote seen, unless it is too old to trade at."""
        with self._lock:
            known = self._seen.get(symbol)
        return known[1] if known is not None and time.monotonic() - known[0] < KNOWN else None
