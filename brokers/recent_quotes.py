"""Prices this process has just been told, for whoever asks the same venue in the same moment.

An alert for many accounts of a venue, or many alerts of one symbol, would ask the same question again
and again, and each order would wait for its own answer. One asks, and who comes within ``SHARED_FOR``
gets that answer, also while it is still on its way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass, field

from brokers.types import Quote

SHARED_FOR = 0.5
"""Seconds since the question left; what is older is asked anew."""
MOST = 1000
"""Prices kept; beyond them all are forgotten, and asked anew."""


@dataclass(frozen=True, slots=True)
class _Asked:
    at: float
    answer: Future[Quote] = field(default_factory=Future)


class RecentQuotes:
    """Questions for a price by venue and symbol, safe for threads. ``clock`` counts seconds and never
    goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], _Asked] = {}

    def ask(self, venue: str, symbol: str, question: Callable[[], Quote]) -> Quote:
        """The answer to ``question``, or to the same one of at most ``SHARED_FOR`` ago.

        Raises what ``question`` raises. Another's failure is not shared: then one's own is asked.
        """
        asked, is_mine = self._join(venue, symbol)
        if is_mine:
            return self._answer(asked, question)
        try:
            return asked.answer.result(max(0.0, asked.at + SHARED_FOR - self._clock()))
        except (TookTooLong, _Failed):
            return question()

    def forget(self) -> None:
        with self._lock:
            self._asked.clear()

    def _join(self, venue: str, symbol: str) -> tuple[_Asked, bool]:
        """The question under way or answered lately, else a new one for the caller to answer."""
        with self._lock:
            asked, now = self._asked.get((venue, symbol)), self._clock()
            if asked is not None and now - asked.at <= SHARED_FOR:
                return asked, False
            if len(self._asked) >= MOST:
                self._asked.clear()
            asked = self._asked[venue, symbol] = _Asked(now)
            return asked, True

    def _answer(self, asked: _Asked, question: Callable[[], Quote]) -> Quote:
        try:
            quote = question()
            asked.answer.set_result(quote)
        finally:
            if not asked.answer.done():
                asked.answer.set_exception(_Failed())
        return quote


class _Failed(Exception):
    """The one who asked got no answer."""


RECENT = RecentQuotes()
