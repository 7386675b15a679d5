"""The shared symbol lists: loaded once, renewed hourly, refused after a day."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from brokers.errors import QueryFailedError
from brokers.markets import FRESH, PAUSE, USABLE, MarketCache
from brokers.venue_client import VenueClient


class Exchange:
    """An exchange whose symbol list is a new object each time it is loaded."""

    def __init__(self) -> None:
        self.loads = 0
        self.down = False

    def load(self) -> VenueClient:
        self.loads += 1
        if self.down:
            raise QueryFailedError("no answer")
        return cast("VenueClient", SimpleNamespace(ccxt=SimpleNamespace(markets={"n": self.loads})))


class Borrower:
    """A client that takes over whatever list it is given."""

    def __init__(self) -> None:
        self.ccxt = self
        self.markets: Any = None

    def set_markets_from_exchange(self, source: Any) -> None:
        self.markets = source.markets


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def seen(cache: MarketCache, exchange: Exchange, *, refresh: bool = True) -> int:
    borrower = Borrower()
    cache.give("binance", cast("VenueClient", borrower), exchange.load, refresh=refresh)
    return int(borrower.markets["n"])


def test_loaded_once_and_shared(clock: Clock, exchange: Exchange) -> None:
    cache = MarketCache(clock)
    assert [seen(cache, exchange) for _ in range(3)] == [1, 1, 1]
    assert exchange.loads == 1


def test_renewed_when_an_hour_old_but_not_for_an_order(clock: Clock, exchange: Exchange) -> None:
    cache = MarketCache(clock)
    seen(cache, exchange)
    clock.now += FRESH
    assert seen(cache, exchange, refresh=False) == 1
    assert seen(cache, exchange) == 2


def test_an_old_list_serves_while_the_exchange_is_down_and_is_refused_after_a_day(
    clock: Clock, exchange: Exchange
) -> None:
    cache = MarketCache(clock)
    seen(cache, exchange)
    exchange.down = True
    clock.now += FRESH
    assert [seen(cache, exchange), seen(cache, exchange)] == [1, 1]
    assert exchange.loads == 2
    clock.now += PAUSE
    assert seen(cache, exchange) == 1
    assert exchange.loads == 3
    clock.now += USABLE
    with pytest.raises(QueryFailedError):
        seen(cache, exchange, refresh=False)
    exchange.down = False
    assert seen(cache, exchange, refresh=False) == 5


def test_many_threads_load_it_once(clock: Clock, exchange: Exchange) -> None:
    cache, results = MarketCache(clock), []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        results.append(seen(cache, exchange))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results, exchange.loads) == ([1] * 8, 1)
