"""The shared symbol lists: loaded once, renewed hourly, refused after a day."""

from __future__ import annotations

import inspect
import re
import threading
import uuid
from collections.abc import Iterator
from typing import Any, cast

import ccxt
import pytest
import redis
from django.conf import settings

from brokers import client_pool
from brokers.errors import QueryFailedError
from brokers.markets import FRESH, PAUSE, USABLE, MarketCache, SharedLists, list_name
from brokers.plugins.ccxt import DIALECTS, CcxtPlugin
from brokers.symbol_lists import SymbolList
from brokers.types import AccountConfig, Environment
from brokers.venue_client import VenueClient
from tests.brokers.contract import CCXT_VENUES, SYMBOLS, ccxt_plugin
from tests.venues.client import RunningVenue


class Exchange:
    """An exchange whose symbol list is a new object each time it is loaded."""

    def __init__(self) -> None:
        self.loads = 0
        self.down = False

    def load(self) -> SymbolList:
        self.loads += 1
        if self.down:
            raise QueryFailedError("no answer")
        return SymbolList("binance", {"n": {"id": "n", "symbol": "n", "n": self.loads}}, {}, {})


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
    return int(borrower.markets["n"]["n"])


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


# --- shared by processes --------------------------------------------------------------------------


def gone() -> redis.Redis:
    return redis.Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.1)


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


class Host:
    """Processes with a cache each, on one clock and one Valkey; ``name`` is a list of their own."""

    def __init__(self, clock: Clock, valkey: redis.Redis) -> None:
        self.clock, self.valkey = clock, valkey
        self.name = uuid.uuid4().hex

    def process(self) -> MarketCache:
        return MarketCache(self.clock, SharedLists(lambda: self.valkey), now=self.clock)

    def seen(self, cache: MarketCache, exchange: Exchange, *, refresh: bool = True) -> int:
        borrower = Borrower()
        cache.give(self.name, cast("VenueClient", borrower), exchange.load, refresh=refresh)
        return int(borrower.markets["n"]["n"])


@pytest.fixture
def host(clock: Clock, valkey: redis.Redis) -> Host:
    return Host(clock, valkey)


def test_a_process_that_starts_asks_no_exchange(host: Host, exchange: Exchange) -> None:
    assert host.seen(host.process(), exchange) == 1
    exchange.down = True
    assert host.seen(host.process(), exchange, refresh=False) == 1
    assert exchange.loads == 1


def test_one_process_refreshes_for_all(host: Host, clock: Clock, exchange: Exchange) -> None:
    first, second = host.process(), host.process()
    assert [host.seen(one, exchange) for one in (first, second)] == [1, 1]
    clock.now += FRESH
    assert [host.seen(one, exchange) for one in (first, second, first)] == [2, 2, 2]
    assert exchange.loads == 2


def test_while_one_process_refreshes_the_others_do_not(
    host: Host, clock: Clock, exchange: Exchange
) -> None:
    first, second = host.process(), host.process()
    host.seen(first, exchange)
    host.seen(second, exchange)
    clock.now += FRESH
    exchange.down = True
    assert [host.seen(one, exchange) for one in (first, second)] == [1, 1]
    assert exchange.loads == 2


def test_an_age_is_kept_from_process_to_process(
    host: Host, clock: Clock, exchange: Exchange
) -> None:
    """Nothing is traded by a list of a day, whoever loaded it and however young its reader is."""
    host.seen(host.process(), exchange)
    exchange.down = True
    clock.now += USABLE - 1
    heir = host.process()
    assert host.seen(heir, exchange, refresh=False) == 1
    clock.now += 1
    for cache in (heir, host.process()):
        with pytest.raises(QueryFailedError):
            host.seen(cache, exchange, refresh=False)


def test_a_list_from_the_future_is_not_believed(
    host: Host, clock: Clock, exchange: Exchange
) -> None:
    host.seen(host.process(), exchange)
    clock.now -= FRESH
    assert host.seen(host.process(), exchange) == 2


@pytest.mark.parametrize("stored", [b"", b"no list", b"x\x9c", b"[]"])
def test_what_cannot_be_read_is_loaded(
    host: Host, clock: Clock, valkey: redis.Redis, exchange: Exchange, stored: bytes
) -> None:
    at = str(int(clock.now * 1000))
    valkey.hset(f"fks:markets:{host.name}", mapping={"at": at, "list": stored})
    assert host.seen(host.process(), exchange) == 1
    assert exchange.loads == 1


def test_without_valkey_each_process_loads_its_own(clock: Clock, exchange: Exchange) -> None:
    caches = [MarketCache(clock, SharedLists(gone), now=clock) for _ in range(2)]
    assert [seen(cache, exchange) for cache in caches] == [1, 2]
    clock.now += FRESH
    assert seen(caches[0], exchange) == 3


def test_a_symbol_that_is_not_listed_renews_the_list_once_a_minute(
    host: Host, clock: Clock, exchange: Exchange
) -> None:
    cache = host.process()
    host.seen(cache, exchange)
    cache.doubt(host.name)
    clock.now += PAUSE - 1
    assert host.seen(cache, exchange) == 1
    clock.now += 1
    assert host.seen(cache, exchange, refresh=False) == 1
    assert host.seen(cache, exchange) == 2


def test_a_doubt_does_not_ask_an_exchange_that_failed_within_the_minute(
    host: Host, clock: Clock, exchange: Exchange
) -> None:
    cache = host.process()
    host.seen(cache, exchange)
    clock.now += PAUSE
    exchange.down = True
    cache.doubt(host.name)
    assert (host.seen(cache, exchange), exchange.loads) == (1, 2)
    for _ in range(3):
        cache.doubt(host.name)
        host.valkey.delete(f"fks:markets:{host.name}:refresh")
        assert (host.seen(cache, exchange), exchange.loads) == (1, 2)
    clock.now += PAUSE
    assert (host.seen(cache, exchange), exchange.loads) == (1, 3)


def test_lists_of_other_hosts_libraries_facts_and_sandboxes_are_other_lists() -> None:
    some = frozenset({"a"})
    names = {
        list_name("okx", "spot", ["https://a"], some, sandbox=False),
        list_name("okx", "spot", ["https://a"], some, sandbox=True),
        list_name("okx", "swap", ["https://a"], some, sandbox=False),
        list_name("okx", "spot", ["https://b"], some, sandbox=False),
        list_name("okx", "spot", ["https://a"], None, sandbox=False),
    }
    assert len(names) == 5
    one, same = (
        list_name("okx", "spot", hosts, some, sandbox=True) for hosts in (["b", "a"], ["a", "b"])
    )
    assert one == same


def test_a_sandbox_on_the_real_host_has_a_list_of_its_own() -> None:
    secrets = dict.fromkeys(("api_key", "api_secret", "api_passphrase"), "k")
    names, origins = set(), set()
    for environment in Environment:
        plugin = CcxtPlugin()
        plugin.init(AccountConfig("1", "t", environment, {"exchange": "okx"}, secrets))
        client = plugin._pool._connect(private=False)
        names.add(plugin._pool._list_name(client))
        origins.add(client.gate.origins)
    assert (len(names), len(origins)) == (2, 1)


# --- what a list holds ----------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_a_worker_with_a_warm_valkey_asks_the_venue_nothing(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch, valkey: redis.Redis, exchange: str
) -> None:
    """And knows of each symbol what a worker that asked knows."""
    known = []
    for _ in range(2):
        cache = MarketCache(shared=SharedLists(lambda: valkey))
        monkeypatch.setattr(client_pool, "MARKETS", cache)
        plugin = ccxt_plugin(exchange, venue.base_url)
        with plugin._pool.public() as client:
            kept = {name: client.ccxt.options.get(name) for name in ("marketsByAltname",)}
            known.append((client.ccxt.markets, client.ccxt.currencies, client.ccxt.ids, kept))
            venue_symbol = client.market(SYMBOLS[exchange])["id"]
            assert client.symbol_of(venue_symbol) == SYMBOLS[exchange]
        rules = plugin.instrument(SYMBOLS[exchange])
        assert rules.quantity_step > 0
        monkeypatch.setattr(client_pool, "load_markets", _asks_nothing)
        plugin.close()
    assert known[0] == known[1]
    assert list(known[0][0]) == list(known[1][0])


def _asks_nothing(*_: object) -> SymbolList:
    raise AssertionError("the venue was asked for its symbols")


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.__name__)
def test_the_library_reads_nothing_of_a_market_that_is_not_kept(dialect: Any) -> None:
    """An upgrade that reads another member of a market's raw answer fails here."""
    source = inspect.getsource(getattr(ccxt, dialect.profile.id))
    reads = re.findall(
        r"(?:market\['info'\]|marketInfo|market_info)(?:, |\[)'(\w+)'", source, re.IGNORECASE
    )
    assert set(reads) <= dialect.market_facts
    assert len(re.findall(r"market(?:\[|, )'info'", source)) <= len(reads)


def test_a_list_survives_its_storing() -> None:
    spot = {"id": "BTCUSDT", "symbol": "BTC/USDT", "spot": True, "base": "BTC", "quote": "USDT"}
    spot |= {
        "info": {"kept": "1.10", "dropped": ["x"]},
        "precision": {"price": 1e-08, "base": None},
    }
    swap = spot | {"symbol": "BTC/USDT:USDT", "spot": False}
    client = ccxt.kraken()
    client.markets = {one["symbol"]: one for one in (swap, spot)}
    client.currencies = {
        "BTC": {"id": "XXBT", "code": "BTC"},
        "USDT": {"id": "USDT", "code": "USDT"},
    }
    client.options["marketsByAltname"] = {"XBT": spot | {"altname": "XBT"}, "OLD": {"id": "OLD"}}
    made = SymbolList.of(client, frozenset({"kept"}))
    read = SymbolList.unpacked(made.packed())
    assert read == made
    assert read.markets["BTC/USDT"]["info"] == {"kept": "1.10"}
    assert [one["symbol"] for one in read.markets_by_id["BTCUSDT"]] == ["BTC/USDT", "BTC/USDT:USDT"]
    by_altname = read.options["marketsByAltname"]
    assert by_altname["XBT"] is read.markets["BTC/USDT"]
    assert by_altname["OLD"] == {"id": "OLD"}
    assert (read.ids, read.codes) == (["BTCUSDT"], ["BTC", "USDT"])
    taking = ccxt.kraken()
    taking.set_markets_from_exchange(read)
    assert taking.market("BTC/USDT")["id"] == "BTCUSDT"
    assert taking.safe_currency_code("XXBT") == "BTC"
    assert taking.options["marketsByAltname"] is by_altname
