"""Turns within a process: what one thread is doing already, another does not do beside it."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Turns:
    """Who comes while a turn is taken leaves at once; its holder looks once more on their behalf."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._somebody_came: dict[Hashable, bool] = {}

    def take(self, key: Hashable) -> bool:
        """Whether the turn is ours now."""
        with self._lock:
            is_free = key not in self._somebody_came
            self._somebody_came[key] = not is_free
            return is_free

    def ask(self, key: Hashable) -> bool:
        """Whether the turn is taken, so that its holder looks once more."""
        with self._lock:
            is_taken = key in self._somebody_came
            if is_taken:
                self._somebody_came[key] = True
            return is_taken

    def leave(self, key: Hashable) -> bool:
        """Give the turn back; False keeps it, because somebody came since it was taken or kept."""
        with self._lock:
            if self._somebody_came[key]:
                self._somebody_came[key] = False
                return False
            del self._somebody_came[key]
            return True

    def drop(self, key: Hashable) -> None:
        """Give the turn back after a failure; whoever came is found by the sweep."""
        with self._lock:
            self._somebody_came.pop(key, None)
