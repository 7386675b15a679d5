"""How fast an exchange may be asked: token buckets shared by all workers through Valkey.

A bucket per (exchange, our address) counts every request by its weight; one per (exchange, key)
counts private questions, another orders. Cancels draw on a share nothing else may touch. With
Valkey away each process counts for itself, in a quarter of the room.

An exchange that answers "too often" is left alone, by every worker of the address, for as long as
it asks: by cancels too, for whoever goes on asking is banned for longer. Where it says that it has
counted the key's requests, only that key rests.
"""

from __future__ import annotations

import hashlib
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from urllib.parse import urlsplit

import redis
from django.conf import settings

from brokers.patience import seconds_untold
from brokers.timing import LOOPBACK

logger = logging.getLogger(__name__)

RESERVED = 0.2
"""The share of each bucket that only cancels may use."""
ALONE = 0.25
"""The share of each bucket a process takes for itself while it cannot count with the others."""
RETRY_VALKEY = 5.0
VALKEY_TIMEOUT = 0.2

_HELD = """
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
    local told = redis.call('GET', KEYS[1]) + 0
    -- a clock that was set back holds nobody for longer
    if left > told then redis.call('PEXPIRE', KEYS[1], told) end
    return math.min(left, told)
end
"""
_TAKE = f"""{_HELD}
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local held = redis.call('HMGET', KEYS[2], 'tokens', 'at')
local capacity, rate, weight, floor = ARGV[1] + 0, ARGV[2] + 0, ARGV[3] + 0, ARGV[4] + 0
local tokens = capacity
-- a clock that was set back takes nothing away
if held[1] then tokens = math.min(capacity, held[1] + math.max(0, now - held[2]) * rate) end
local wait = 0
if tokens - weight >= floor then tokens = tokens - weight
else wait = math.ceil((weight + floor - tokens) / rate * 1000) end
redis.call('HSET', KEYS[2], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[2], math.ceil(capacity / rate * 1000) + 1000)
return wait
"""
_HOLD = """
if redis.call('PTTL', KEYS[1]) < ARGV[1] + 0 then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[1])
end
"""


class Purpose(StrEnum):
    """What a request is for; each waits for its turn so many seconds at most."""

    READ = "read"
    ORDER = "order"
    CANCEL = "cancel"

    @property
    def patience(self) -> float:
        return 1.0 if self is Purpose.ORDER else 5.0


@dataclass(frozen=True, slots=True)
class Rate:
    """``capacity`` units at once, refilled over ``seconds``."""

    capacity: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """An exchange's limits: per address, and per key for questions and for orders."""

    address: Rate
    key: Rate
    orders: Rate
    weights: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, row: Mapping[str, list[int]], weights: Mapping[str, int]) -> Limits:
        return cls(Rate(*row["address"]), Rate(*row["key"]), Rate(*row["orders"]), dict(weights))

    def weight(self, method: str, path: str) -> int:
        return self.weights.get(f"{method} {path}", 1)


CAUTIOUS = Limits(Rate(10, 1), Rate(5, 1), Rate(5, 1))
"""For exchanges whose limits nobody has written down."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """Token buckets by name, in Valkey or, while that is away, in this process."""

    def __init__(
        self, connect: Callable[[], redis.Redis], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._local: dict[str, _Bucket] = {}
        self._held_until: dict[str, float] = {}
        self._away_until = 0.0

    def take(self, name: str, rate: Rate | None, weight: int, *, reserved: bool) -> float:
        """Take ``weight`` from the bucket; the seconds to wait where there is not enough, or where
        it is on hold. Without a ``rate`` only a hold is waited for.
        """
        if left := self._held_here(name):
            return left
        if self._clock() >= self._away_until:
            try:
                if rate is None:
                    return self._held(name)
                return self._shared(name, rate, weight, reserved=reserved)
            except redis.RedisError as error:
                self._is_away(error)
        return 0.0 if rate is None else self._alone(name, rate, weight, reserved=reserved)

    def hold(self, name: str, seconds: int) -> None:
        """Let nobody take from the bucket for so long; a longer hold stays."""
        until = self._clock() + seconds
        with self._lock:
            self._held_until[name] = max(until, self._held_until.get(name, until))
        try:
            self._connect().eval(_HOLD, 1, _hold_key(name), str(seconds * 1000))
        except redis.RedisError as error:
            self._is_away(error)

    def _held_here(self, name: str) -> float:
        """The seconds left of a hold this process has heard of, also while Valkey is away."""
        until = self._held_until.get(name)
        if until is None:
            return 0.0
        left = until - self._clock()
        if left > 0:
            return left
        with self._lock:
            if self._held_until.get(name) == until:  # another thread may have been told anew
                del self._held_until[name]
        return 0.0

    def _held(self, name: str) -> float:
        left = self._connect().eval(f"{_HELD} return 0", 1, _hold_key(name))
        return int(str(left)) / 1000

    def _is_away(self, error: redis.RedisError) -> None:
        self._away_until = self._clock() + RETRY_VALKEY
        logger.warning("counting requests alone: %s", type(error).__name__)

    def _shared(self, name: str, rate: Rate, weight: int, *, reserved: bool) -> float:
        floor = 0 if reserved else rate.capacity * RESERVED
        asked = min(weight, rate.capacity * (1 - RESERVED))
        per_second = rate.capacity / rate.seconds
        wait = self._connect().eval(
            _TAKE,
            2,
            _hold_key(name),
            f"fks:limit:{name}",
            str(rate.capacity),
            str(per_second),
            str(asked),
            str(floor),
        )
        return int(str(wait)) / 1000

    def _alone(self, name: str, rate: Rate, weight: int, *, reserved: bool) -> float:
        capacity = max(1.0, rate.capacity * ALONE)
        per_second = capacity / rate.seconds
        floor = 0.0 if reserved else capacity * RESERVED
        asked = min(weight, capacity - floor)
        with self._lock:
            now = self._clock()
            held = self._local.setdefault(name, _Bucket(capacity, now))
            held.tokens = min(capacity, held.tokens + (now - held.at) * per_second)
            held.at = now
            if held.tokens - asked >= floor:
                held.tokens -= asked
                return 0.0
            return (asked + floor - held.tokens) / per_second


def _hold_key(name: str) -> str:
    return f"fks:hold:{name}"


@cache
def valkey() -> redis.Redis:
    """The process's connections for what workers share; impatient, for an order may wait."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=VALKEY_TIMEOUT,
        socket_connect_timeout=VALKEY_TIMEOUT,
    )


BUCKETS = Buckets(valkey)


class Limiter:
    """The limits of one exchange as one account meets them. ``api_key`` is only kept as a digest."""

    def __init__(
        self,
        exchange: str,
        limits: Limits | None,
        api_key: str,
        buckets: Buckets = BUCKETS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Without ``limits`` nothing is counted: the venue is only left alone when it asks for it."""
        self._exchange = exchange
        self._limits = limits
        self._key = hashlib.sha256(api_key.encode()).hexdigest()[:16] if api_key else ""
        self._buckets = buckets
        self._sleep = sleep

    @classmethod
    def of(
        cls, exchange: str, limits: Limits, api_key: str, url: str, *, sandbox: bool = False
    ) -> Limiter:
        """That of an account whose requests go to ``url``, or where that is empty to the exchange's
        own hosts. Each place is counted and left alone by itself: what a rehearsal is told must not
        hold a live exit. A venue on this machine keeps no limits.
        """
        parts = urlsplit(url)
        place = " ".join(filter(None, [exchange, "sandbox" if sandbox else "", parts.netloc]))
        return cls(place, None if parts.hostname in LOOPBACK else limits, api_key)

    def wait(self, purpose: Purpose, method: str, path: str) -> int:
        """Wait for a turn; 0 when the request may leave, else the seconds to come back after."""
        left = purpose.patience
        for name, rate, weight in self._drawn(purpose, method, path):
            while pause := self._buckets.take(
                name, rate, weight, reserved=purpose is Purpose.CANCEL
            ):
                if pause > left:
                    return max(1, math.ceil(pause))
                self._sleep(pause)
                left -= pause
        return 0

    def told_to_wait(self, status: int, seconds: int | None, *, of_key: bool = False) -> None:
        """The venue answered ``status``, and named so many seconds: before they are over nobody of
        this address asks it, or with ``of_key`` nobody with this key."""
        if seconds is None:
            seconds = 0 if self._limits is None else seconds_untold(status)
        if not seconds:
            return
        of_key = of_key and bool(self._key)
        who = "this key" if of_key else "this address"
        logger.warning("%s answered %s: %s rests for %s s", self._exchange, status, who, seconds)
        names = (self._of_key("orders"), self._of_key("key")) if of_key else (self._address(),)
        for name in names:
            self._buckets.hold(name, seconds)

    def _drawn(
        self, purpose: Purpose, method: str, path: str
    ) -> list[tuple[str, Rate | None, int]]:
        limits = self._limits
        if limits is None:
            names = [self._address(), *([self._of_key("key")] if self._key else [])]
            return [(name, None, 0) for name in names]
        weight = limits.weight(method, path)
        drawn: list[tuple[str, Rate | None, int]] = [(self._address(), limits.address, weight)]
        if purpose is not Purpose.READ:
            drawn.append((self._of_key("orders"), limits.orders, 1))
        elif self._key:
            drawn.append((self._of_key("key"), limits.key, weight))
        return drawn

    def _of_key(self, what: str) -> str:
        """The bucket of the key's orders, or of its questions (``key``)."""
        return f"{self._exchange}:{what}:{self._key}"

    def _address(self) -> str:
        """The bucket of the exchange and the address it sees us at."""
        return f"{self._exchange}:address:{settings.EGRESS_ADDRESS or socket.gethostname()}"
