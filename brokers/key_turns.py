"""Whose turn it is with an API key: one request at a time, of all threads of all workers.

Where requests carry numbers that must rise, one that overtakes another is refused. Turns are taken in
Valkey, where the last number lies as well: the workers' clocks need not agree. While Valkey is away
each process takes turns by itself.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import redis

from brokers.errors import QueryFailedError
from brokers.limiter import RETRY_VALKEY, valkey

logger = logging.getLogger(__name__)

HELD = 10.0
"""Seconds after which a turn ends by itself: its process may have died."""
PAUSE = 0.005
"""Seconds between two looks whether a turn of another process has ended."""
REMEMBERED = 24 * 3600

_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if tonumber(ARGV[2]) > last then redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3]) end
"""


@dataclass(slots=True)
class Turn:
    """``last`` is the highest number any request of the key has carried, 0 where none is known."""

    last: int = 0


class KeyTurns:
    """The turns of this process's keys. ``clock`` counts seconds and never goes back."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        held: float = HELD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._held = held
        self._clock = clock
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._last: dict[str, int] = {}
        self._away_until = 0.0

    @contextmanager
    def turn(self, place: str, api_key: str, patience: float) -> Iterator[Turn]:
        """Wait up to ``patience`` seconds for the turn of a key, and keep it for the block.

        ``place`` is the exchange, or the host that stands for it.
        Raises QueryFailedError where it does not come. The key is only kept as a digest.
        """
        name = hashlib.sha256(f"{place}:{api_key}".encode()).hexdigest()[:32]
        until = self._clock() + patience
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        if not lock.acquire(timeout=patience):
            raise _busy(place)
        try:
            token = self._taken(name, until, place)
            turn = Turn(max(self._last.get(name, 0), self._shared_last(name)))
            try:
                yield turn
            finally:
                self._last[name] = turn.last
                self._give_back(name, token, turn.last)
        finally:
            lock.release()

    def _taken(self, name: str, until: float, place: str) -> str:
        token = uuid.uuid4().hex
        try:
            while not self._is_away() and not self._connect().set(
                _turn_key(name), token, nx=True, px=round(self._held * 1000)
            ):
                if self._clock() >= until:
                    raise _busy(place)
                time.sleep(PAUSE)
        except redis.RedisError as error:
            self._alone(error)
        return token

    def _shared_last(self, name: str) -> int:
        if self._is_away():
            return 0
        try:
            return int(cast("bytes | None", self._connect().get(_number_key(name))) or 0)
        except (redis.RedisError, ValueError) as error:
            self._alone(error)
            return 0

    def _give_back(self, name: str, token: str, last: int) -> None:
        if self._is_away():
            return
        try:
            keys = (_turn_key(name), _number_key(name))
            self._connect().eval(_BACK, 2, *keys, token, str(last), str(REMEMBERED))
        except redis.RedisError as error:
            self._alone(error)

    def _is_away(self) -> bool:
        return self._clock() < self._away_until

    def _alone(self, error: Exception) -> None:
        self._away_until = self._clock() + RETRY_VALKEY
        logger.warning("taking turns alone: %s", type(error).__name__)


def _busy(place: str) -> QueryFailedError:
    return QueryFailedError(f"{place}: another request of this key hangs")


def _turn_key(name: str) -> str:
    return f"fks:turn:{name}"


def _number_key(name: str) -> str:
    return f"fks:nonce:{name}"


TURNS = KeyTurns(valkey)
