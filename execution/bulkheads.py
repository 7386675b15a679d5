"""Bulkheads: a venue that hangs must not hold every thread of a worker.

Whoever asks a venue first takes one of the few places its account has in this process; exits have
some to themselves. Work that finds none is parked, and taken up as soon as a place is free. What is
parked in a process that dies is found by the sweep, like a lost message.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from django.utils import timezone

PLACES = 8
PLACES_FOR_EXITS = 4
MAX_PARKED = 10_000

Wake = Callable[[], object]


class Crowded(Exception):
    """The account has no place free: park what was to be done."""

    def __init__(self, account_id: int, *, is_exit: bool) -> None:
        super().__init__(f"account {account_id} has no place free")
        self.account_id = account_id
        self.is_exit = is_exit


class Bulkheads:
    """The places of every account in this process, and what waits for them."""

    def __init__(self, places: int = PLACES, for_exits: int = PLACES_FOR_EXITS) -> None:
        self._places = places
        self._for_exits = for_exits
        self._lock = threading.Lock()
        self._taken: Counter[int] = Counter()
        self._parked: dict[tuple[int, bool], dict[str, tuple[Wake, datetime | None]]] = {}

    @contextmanager
    def place(self, account_ids: Collection[int], *, is_exit: bool = False) -> Iterator[None]:
        """Hold a place of each account. Raises Crowded, holding none, where one has none left."""
        wanted = sorted(set(account_ids))
        with self._lock:
            for account_id in wanted:
                if not self._has_room(account_id, is_exit=is_exit):
                    raise Crowded(account_id, is_exit=is_exit)
            self._taken.update(wanted)
        try:
            yield
        finally:
            for wake in self._leave(wanted):
                wake()

    def park(self, crowded: Crowded, name: str, wake: Wake, until: datetime | None = None) -> None:
        """Call ``wake`` once the account has a place, if that is before ``until``; the same ``name`` is
        parked once.
        """
        key = crowded.account_id, crowded.is_exit
        with self._lock:
            if not self._has_room(crowded.account_id, is_exit=crowded.is_exit):
                parked = self._parked.setdefault(key, {})
                if len(parked) < MAX_PARKED:
                    parked[name] = wake, until
                return
        wake()

    def _has_room(self, account_id: int, *, is_exit: bool) -> bool:
        most = self._places + (self._for_exits if is_exit else 0)
        return self._taken[account_id] < most

    def _leave(self, account_ids: Collection[int]) -> list[Wake]:
        with self._lock:
            self._taken.subtract(account_ids)
            self._taken += Counter()  # forgets those with none taken
            found = [self._next(account_id) for account_id in account_ids]
        return [wake for wake in found if wake is not None]

    def _next(self, account_id: int) -> Wake | None:
        """What has waited longest for the account, exits first; nothing if there is still no room."""
        for is_exit in (True, False):
            key = account_id, is_exit
            while (parked := self._parked.get(key)) and self._has_room(account_id, is_exit=is_exit):
                wake, until = parked.pop(next(iter(parked)))
                if not parked:
                    del self._parked[key]
                if until is None or timezone.now() < until:
                    return wake
        return None


_of_this_process = Bulkheads()
place = _of_this_process.place
park = _of_this_process.park
