"""The exchanges' symbol lists: asked for once by whoever needs one first, and shared by everybody.

They lie in Valkey, so that a worker that starts asks no exchange, and one list is refreshed by one
worker. In a process all clients of an exchange use the same list. With Valkey away each process
loads its own.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import cast

import redis

from brokers.errors import QueryFailedError
from brokers.limiter import valkey
from brokers.symbol_lists import SymbolList
from brokers.venue_client import VenueClient

logger = logging.getLogger(__name__)

FRESH = 3600
"""Seconds after which the list is loaded again."""
USABLE = 24 * 3600
"""Seconds after which nothing may be traded by it any more."""
PAUSE = 60
"""Seconds between attempts to refresh a list that is still usable."""
AHEAD = 300
"""Seconds another host's clock may be ahead of ours: a list from further ahead is not believed."""

Load = Callable[[], SymbolList]


def list_name(
    exchange: str,
    market_type: str,
    origins: Iterable[str],
    facts: frozenset[str] | None,
    *,
    sandbox: bool,
) -> str:
    """What a list is shared under: one of another library or with other facts is another list, and so
    is a sandbox's, which some exchanges serve from their real host."""
    place = "sandbox" if sandbox else "exchange"
    parts = [_library(), place, *sorted(origins), "facts", *sorted(facts or ())]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return f"{exchange}:{market_type}:{digest}"


@cache
def _library() -> str:
    """Looking it up reads a file: once a process is enough."""
    return version("ccxt")


class SharedLists:
    """Symbol lists in Valkey, with the moment each was loaded. Never raises for Valkey."""

    def __init__(self, connect: Callable[[], redis.Redis]) -> None:
        self._connect = connect

    def loaded_at(self, name: str) -> float | None:
        """When the list was loaded, in seconds since 1970; ``None`` where there is none."""
        try:
            at = cast("bytes | None", self._connect().hget(_key(name), "at"))
            return None if at is None else int(at) / 1000
        except (redis.RedisError, ValueError):
            return None

    def read(self, name: str) -> SymbolList | None:
        try:
            packed = cast("bytes | None", self._connect().hget(_key(name), "list"))
            return None if packed is None else SymbolList.unpacked(packed)
        except (redis.RedisError, ValueError):
            return None

    def write(self, name: str, listed: SymbolList, at: float) -> None:
        try:
            pipe = self._connect().pipeline()
            pipe.hset(_key(name), mapping={"at": str(int(at * 1000)), "list": listed.packed()})
            pipe.expire(_key(name), USABLE)
            pipe.execute()
        except (redis.RedisError, TypeError) as error:  # not all of ccxt's values need be JSON's
            logger.warning("a symbol list is not shared: %s", type(error).__name__)

    def may_refresh(self, name: str) -> bool:
        """Whether this process is the one to ask the exchange now; without Valkey each is."""
        try:
            return bool(self._connect().set(f"{_key(name)}:refresh", "1", nx=True, ex=PAUSE))
        except redis.RedisError:
            return True


def _key(name: str) -> str:
    return f"fks:markets:{name}"


@dataclass(slots=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    source: SymbolList | None = None
    loaded_at: float = 0.0
    last_attempt: float = 0.0
    next_attempt: float = 0.0


class MarketCache:
    """Symbol lists by name (see ``list_name``). ``clock`` counts seconds and never goes back,
    ``now`` are those since 1970."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        shared: SharedLists | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._shared = shared
        self._now = now
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}

    def give(self, name: str, client: VenueClient, load: Load, *, refresh: bool = True) -> None:
        """Let ``client`` see the list of ``name``, loading it when there is none young enough.

        With ``refresh`` off a usable list is taken as it is, so that an order never waits for one.
        Raises QueryFailedError when there is no usable list.
        """
        slot = self._slot(name)
        source = self._usable(slot)
        if source is None:
            source = self._first(slot, name, load)
        elif refresh and self._clock() >= slot.next_attempt:
            source = self._renewed(slot, name, source, load)
        if client.ccxt.markets is not source.markets:
            client.ccxt.set_markets_from_exchange(source)

    def doubt(self, name: str) -> None:
        """A symbol is not on the list: the next question refreshes it, unless it is of this minute or
        the exchange was asked in vain within it."""
        slot = self._slot(name)
        rested = max(slot.loaded_at, slot.last_attempt) + PAUSE
        slot.next_attempt = min(slot.next_attempt, rested)

    def _slot(self, name: str) -> _Slot:
        with self._lock:
            return self._slots.setdefault(name, _Slot())

    def _usable(self, slot: _Slot) -> SymbolList | None:
        young = self._clock() - slot.loaded_at < USABLE
        return slot.source if young else None

    def _first(self, slot: _Slot, name: str, load: Load) -> SymbolList:
        with slot.lock:
            return self._usable(slot) or self._taken(slot, name) or self._store(slot, name, load)

    def _renewed(self, slot: _Slot, name: str, current: SymbolList, load: Load) -> SymbolList:
        if not slot.lock.acquire(blocking=False):
            return current
        try:
            if newer := self._taken(slot, name):
                return newer
            slot.last_attempt = self._clock()
            slot.next_attempt = slot.last_attempt + PAUSE
            if self._shared is not None and not self._shared.may_refresh(name):
                return current
            return self._store(slot, name, load)
        except QueryFailedError as error:
            logger.warning("the symbol list stays as it is: %s", error)
            return current
        finally:
            slot.lock.release()

    def _taken(self, slot: _Slot, name: str) -> SymbolList | None:
        """The list another process has loaded, if it is usable and newer than the slot's."""
        at = None if self._shared is None else self._shared.loaded_at(name)
        if at is None or self._shared is None:
            return None
        age = self._now() - at
        loaded_at = self._clock() - max(age, 0.0)
        is_newer = slot.source is None or loaded_at > slot.loaded_at + 1
        if not -AHEAD < age < USABLE or not is_newer:
            return None
        found = self._shared.read(name)
        if found is not None:
            slot.source, slot.loaded_at, slot.next_attempt = found, loaded_at, loaded_at + FRESH
        return found

    def _store(self, slot: _Slot, name: str, load: Load) -> SymbolList:
        source = load()
        slot.loaded_at = self._clock()
        slot.next_attempt = slot.loaded_at + FRESH
        slot.source = source
        if self._shared is not None:
            self._shared.write(name, source, self._now())
        return source


MARKETS = MarketCache(shared=SharedLists(valkey))


def load_markets(client: VenueClient, facts: frozenset[str] | None) -> SymbolList:
    """The exchange's list as it is now, with these facts of each market. Raises QueryFailedError."""
    client.fetch_markets()
    client.close()
    return SymbolList.of(client.ccxt, facts)
