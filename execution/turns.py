"""Turns within a process: what one thread is doing already, another does not do beside it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Turn:
    """One thread's turn; ``somebody_came`` since it was taken or kept."""

    key: Hashable
    began: float
    somebody_came: bool = False


class Turns:
    """Who comes while a turn is taken leaves at once; its holder looks once more on their behalf.

    A turn is nobody's any more after ``longest`` seconds: a thread that hangs must not keep the others
    from work that is guarded by the database as well. ``clock`` counts seconds and never goes back.
    """

    def __init__(
        self, longest: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._longest = longest
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: dict[Hashable, Turn] = {}

    def take(self, key: Hashable) -> Turn | None:
        """The turn, if it is free."""
        with self._lock:
            if self._is_taken(key):
                return None
            turn = self._taken[key] = Turn(key, self._clock())
            return turn

    def ask(self, key: Hashable) -> bool:
        """Whether the turn is taken, so that its holder looks once more."""
        with self._lock:
            return self._is_taken(key)

    def leave(self, turn: Turn) -> bool:
        """Give the turn back; False keeps it, because somebody came since it was taken or kept."""
        with self._lock:
            if self._taken.get(turn.key) is not turn:
                return True
            if turn.somebody_came:
                turn.somebody_came, turn.began = False, self._clock()
                return False
            del self._taken[turn.key]
            return True

    def drop(self, turn: Turn) -> None:
        """Give the turn back after a failure; whoever came is found by the sweep."""
        with self._lock:
            if self._taken.get(turn.key) is turn:
                del self._taken[turn.key]

    def _is_taken(self, key: Hashable) -> bool:
        """Notes that somebody came."""
        turn = self._taken.get(key)
        if turn is None or self._clock() - turn.began > self._longest:
            return False
        turn.somebody_came = True
        return True
