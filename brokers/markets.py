"""The exchanges' symbol lists, loaded once per process and shared by all clients of one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from brokers.errors import QueryFailedError
from brokers.venue_client import VenueClient

logger = logging.getLogger(__name__)

FRESH = 3600
"""Seconds after which the list is loaded again."""
USABLE = 24 * 3600
"""Seconds after which nothing may be traded by it any more."""
PAUSE = 60
"""Seconds between attempts to refresh a list that is still usable."""

Load = Callable[[], VenueClient]


@dataclass(slots=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    source: VenueClient | None = None
    loaded_at: float = 0.0
    next_attempt: float = 0.0


class MarketCache:
    """Symbol lists by exchange and host. ``clock`` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[object, _Slot] = {}

    def give(self, key: object, client: VenueClient, load: Load, *, refresh: bool = True) -> None:
        """Let ``client`` see the list of ``key``, loading it when there is none young enough.

        With ``refresh`` off a usable list is taken as it is, so that an order never waits for one.
        Raises QueryFailedError when there is no usable list.
        """
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
        source = self._usable(slot)
        if source is None:
            source = self._first(slot, load)
        elif refresh and self._clock() >= slot.next_attempt:
            source = self._renewed(slot, source, load)
        if client.ccxt.markets is not source.ccxt.markets:
            client.ccxt.set_markets_from_exchange(source.ccxt)

    def _usable(self, slot: _Slot) -> VenueClient | None:
        young = self._clock() - slot.loaded_at < USABLE
        return slot.source if young else None

    def _first(self, slot: _Slot, load: Load) -> VenueClient:
        with slot.lock:
            return self._usable(slot) or self._store(slot, load)

    def _renewed(self, slot: _Slot, current: VenueClient, load: Load) -> VenueClient:
        if not slot.lock.acquire(blocking=False):
            return current
        try:
            return self._store(slot, load)
        except QueryFailedError as error:
            slot.next_attempt = self._clock() + PAUSE
            logger.warning("the symbol list stays as it is: %s", error)
            return current
        finally:
            slot.lock.release()

    def _store(self, slot: _Slot, load: Load) -> VenueClient:
        source = load()
        slot.loaded_at = self._clock()
        slot.next_attempt = slot.loaded_at + FRESH
        slot.source = source
        return source


MARKETS = MarketCache()


def load_markets(client: VenueClient) -> VenueClient:
    """``client`` with a freshly loaded symbol list. Raises QueryFailedError."""
    client.fetch_markets()
    client.close()
    return client
