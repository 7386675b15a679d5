"""Requests are counted by address and by key, together with every other worker's."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
import time_machine
from django.conf import settings

from brokers.errors import HeldBackError
from brokers.exchanges import BINANCE_SPOT, PROFILES, ExchangeProfile
from brokers.limiter import CAUTIOUS, Buckets, Limiter, Limits, Purpose, Rate
from brokers.patience import seconds_asked
from brokers.plugins.alpaca import AlpacaPlugin
from brokers.plugins.ccxt import CcxtPlugin
from brokers.transport import Gate, ThrottledError
from brokers.types import AccountConfig, Environment, Outcome
from tests.brokers.contract import SYMBOL, SYMBOLS, ccxt_plugin, order
from tests.venues.client import RunningVenue
from tests.venues.credentials import ALPACA_KEY, ALPACA_SECRET
from tests.venues.faults import Action, Fault, When

TEN = Rate(10, 1000)
SLOW = Limits(address=Rate(1000, 1000), key=Rate(10, 1000), orders=Rate(10, 1000))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shared() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


def gone() -> redis.Redis:
    return redis.Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.1)


def taken(buckets: Buckets, name: str, rate: Rate, *, reserved: bool = False) -> int:
    count = 0
    while not buckets.take(name, rate, 1, reserved=reserved):
        count += 1
    return count


def test_two_workers_share_a_bucket_and_cancels_have_the_rest(shared: redis.Redis) -> None:
    name, first, second = uuid.uuid4().hex, Buckets(lambda: shared), Buckets(lambda: shared)
    assert [first.take(name, TEN, 1, reserved=False) for _ in range(4)] == [0, 0, 0, 0]
    assert taken(second, name, TEN) == 4
    assert 90 < first.take(name, TEN, 1, reserved=False) <= 100
    assert taken(first, name, TEN, reserved=True) == 2
    assert 90 < second.take(name, TEN, 1, reserved=True) <= 100


def test_a_bucket_fills_up_with_time(shared: redis.Redis) -> None:
    buckets, name = Buckets(lambda: shared), uuid.uuid4().hex
    quick = Rate(10, 0.2)
    assert taken(buckets, name, quick) >= 8
    wait = buckets.take(name, quick, 1, reserved=False)
    assert 0 <= wait <= 0.03


def test_a_clock_that_is_set_back_takes_nothing_from_a_bucket(shared: redis.Redis) -> None:
    buckets, name = Buckets(lambda: shared), uuid.uuid4().hex
    assert taken(buckets, name, TEN) == 8
    key = f"fks:limit:{name}"
    an_hour_ahead = float(shared.hget(key, "at") or 0) + 3600
    shared.hset(key, "at", str(an_hour_ahead))
    assert 90 < buckets.take(name, TEN, 1, reserved=False) <= 100
    assert taken(buckets, name, TEN, reserved=True) == 2
    assert float(shared.hget(key, "at") or 0) < an_hour_ahead - 3500


def test_without_valkey_a_process_counts_alone_in_less_room() -> None:
    clock = Clock()
    buckets, rate = Buckets(gone, clock), Rate(40, 40)
    assert taken(buckets, "a", rate) == 8
    assert taken(buckets, "a", rate, reserved=True) == 2
    assert taken(buckets, "b", rate) == 8
    clock.now += 4
    assert taken(buckets, "a", rate, reserved=True) == 1


def test_it_counts_with_the_others_again_when_valkey_is_back(shared: redis.Redis) -> None:
    clock, answers = Clock(), [gone()]
    buckets, name = Buckets(lambda: answers[-1], clock), uuid.uuid4().hex
    assert buckets.take(name, TEN, 1, reserved=False) == 0
    answers.append(shared)
    clock.now += 6
    assert taken(buckets, name, TEN) == 8


def test_weights_count_and_no_single_request_is_impossible(shared: redis.Redis) -> None:
    buckets, name = Buckets(lambda: shared), uuid.uuid4().hex
    assert buckets.take(name, TEN, 80, reserved=False) == 0
    assert buckets.take(name, TEN, 1, reserved=False) > 0


def limiter(shared: redis.Redis, key: str, naps: list[float]) -> Limiter:
    return Limiter(uuid.uuid4().hex, SLOW, key, Buckets(lambda: shared), naps.append)


def test_an_order_that_would_wait_too_long_is_not_sent_and_a_cancel_still_is(
    shared: redis.Redis,
) -> None:
    naps: list[float] = []
    gate = Gate(BINANCE_SPOT, frozenset({"https://v.example"}), (), limiter(shared, "k", naps))
    url = "https://v.example/api/v3/order"
    for number in range(9):
        with gate.announce(BINANCE_SPOT.order_endpoint, wire={}) as attempt:
            if number < 8:
                gate.inspect(url, "POST", None)
                continue
            with pytest.raises(ThrottledError) as caught:
                gate.inspect(url, "POST", None)
            assert attempt.sent is False
            assert (caught.value.code, caught.value.seconds) == ("RATE_LIMITED", 100)
    with gate.announce(*BINANCE_SPOT.cancel_endpoints) as attempt:
        gate.inspect(url, "DELETE", None)
        assert attempt.sent is True
    assert naps == []


def test_a_short_wait_is_waited(shared: redis.Redis) -> None:
    naps: list[float] = []
    quick = Limits(address=Rate(1000, 1), key=Rate(10, 1), orders=Rate(10, 1))

    def nap(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(seconds)

    asked = Limiter(uuid.uuid4().hex, quick, "k", Buckets(lambda: shared), nap)
    while not naps:  # as many as come before a slow machine's bucket is empty
        assert asked.wait(Purpose.READ, "GET", "/x") == 0
    assert all(0 < nap <= 0.2 for nap in naps)


def test_keys_are_counted_apart_and_never_named(shared: redis.Redis) -> None:
    exchange, buckets = uuid.uuid4().hex, Buckets(lambda: shared)
    for key in ("one-key", "other-key"):
        asked = Limiter(exchange, SLOW, key, buckets, [].append)
        assert [asked.wait(Purpose.ORDER, "POST", "/o") for _ in range(8)] == [0] * 8
    names = [name.decode() for name in shared.keys(f"fks:limit:{exchange}:*")]
    assert len(names) == 3
    assert not [name for name in names if "one-key" in name or "other-key" in name]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.label)
def test_weights_name_endpoints_the_exchange_has(profile: ExchangeProfile) -> None:
    limits = profile.limits
    assert limits is CAUTIOUS or limits.orders.capacity >= 10
    for named in limits.weights:
        method, _, path = named.partition(" ")
        assert profile.reads(method, path)


def test_whoever_is_told_to_wait_waits_with_all_others_of_the_address(shared: redis.Redis) -> None:
    exchange = uuid.uuid4().hex
    naps: list[float] = []
    first, second = (
        Limiter(exchange, SLOW, key, Buckets(lambda: shared), naps.append) for key in ("a", "b")
    )
    assert second.wait(Purpose.READ, "GET", "/x") == 0
    first.told_to_wait(429, 30)
    first.told_to_wait(429, 10)  # a shorter word ends no longer one
    for limiter_of_one in (first, second):
        for purpose in Purpose:
            assert 10 < limiter_of_one.wait(purpose, "GET", "/x") <= 30
    other = Limiter(uuid.uuid4().hex, SLOW, "a", Buckets(lambda: shared), naps.append)
    assert other.wait(Purpose.READ, "GET", "/x") == 0
    assert naps == []


@pytest.mark.parametrize("limits", [SLOW, None], ids=["counted", "not counted"])
def test_a_clock_that_is_set_back_makes_no_rest_longer(
    shared: redis.Redis, limits: Limits | None
) -> None:
    exchange = uuid.uuid4().hex
    told, other = (
        Limiter(exchange, limits, "k", Buckets(lambda: shared), [].append) for _ in range(2)
    )
    told.told_to_wait(429, 30)
    [held] = shared.keys(f"fks:hold:{exchange}:*")
    shared.pexpire(held, 3_600_000)
    assert 29 <= other.wait(Purpose.CANCEL, "DELETE", "/x") <= 30
    assert shared.pttl(held) <= 30_000


def test_a_limit_of_one_key_lets_the_other_keys_of_the_address_work(shared: redis.Redis) -> None:
    exchange = uuid.uuid4().hex
    mine, other, public = (
        Limiter(exchange, SLOW, key, Buckets(lambda: shared), [].append) for key in ("a", "b", "")
    )
    mine.told_to_wait(429, 30, of_key=True)
    again = Limiter(exchange, SLOW, "a", Buckets(lambda: shared), [].append)
    for purpose in Purpose:
        assert 10 < mine.wait(purpose, "GET", "/x") <= 30
        assert 10 < again.wait(purpose, "GET", "/x") <= 30
        assert other.wait(purpose, "GET", "/x") == 0
    assert public.wait(Purpose.READ, "GET", "/x") == 0
    public.told_to_wait(429, 30, of_key=True)  # without a key it can only be the address
    assert 10 < other.wait(Purpose.READ, "GET", "/x") <= 30


def test_on_this_machine_a_key_rests_alone_as_well() -> None:
    url = f"http://127.0.0.1:{uuid.uuid4().int % 10**9}"
    mine, other = (Limiter.of("bybit", SLOW, key, url) for key in ("a", "b"))
    mine.told_to_wait(200, 30, of_key=True)
    assert 1 < mine.wait(Purpose.ORDER, "POST", "/x") <= 30
    assert 1 < mine.wait(Purpose.READ, "GET", "/x") <= 30
    assert other.wait(Purpose.ORDER, "POST", "/x") == 0


def test_a_short_hold_is_waited_out() -> None:
    clock, naps = Clock(), list[float]()

    def nap(seconds: float) -> None:
        naps.append(seconds)
        clock.now += seconds

    asked = Limiter(uuid.uuid4().hex, None, "", Buckets(gone, clock), nap)
    asked.told_to_wait(429, 1)
    assert asked.wait(Purpose.ORDER, "POST", "/x") == 0
    assert naps == [1]
    asked.told_to_wait(429, 2)
    assert asked.wait(Purpose.ORDER, "POST", "/x") == 2
    assert naps == [1]


@pytest.mark.parametrize(("status", "seconds"), [(429, 5), (418, 120)])
def test_a_venue_that_names_no_number_is_left_alone_as_well(status: int, seconds: int) -> None:
    asked = Limiter(uuid.uuid4().hex, SLOW, "k", Buckets(gone, Clock()), [].append)
    asked.told_to_wait(status, None)
    assert asked.wait(Purpose.ORDER, "POST", "/x") == seconds


def test_a_venue_on_this_machine_waits_for_numbers_only(shared: redis.Redis) -> None:
    url = f"http://127.0.0.1:{uuid.uuid4().int % 10**9}"
    asked = Limiter.of("binance", SLOW, "k", url)
    assert [asked.wait(Purpose.ORDER, "POST", "/x") for _ in range(50)] == [0] * 50
    asked.told_to_wait(418, None)
    assert asked.wait(Purpose.ORDER, "POST", "/x") == 0
    asked.told_to_wait(429, 30)
    assert 1 < Limiter.of("binance", SLOW, "other", url).wait(Purpose.ORDER, "POST", "/x") <= 30
    assert Limiter.of("binance", SLOW, "k", f"{url}0").wait(Purpose.ORDER, "POST", "/x") == 0


@pytest.mark.parametrize(
    ("url", "sandbox"),
    [("", True), ("https://proxy.example", False), ("https://proxy.example", True)],
)
def test_what_a_rehearsal_is_told_holds_no_live_account(url: str, sandbox: bool) -> None:
    exchange = uuid.uuid4().hex
    live = Limiter.of(exchange, SLOW, "k", "")
    rehearsal = Limiter.of(exchange, SLOW, "k", url, sandbox=sandbox)
    rehearsal.told_to_wait(418, 600)
    assert rehearsal.wait(Purpose.ORDER, "POST", "/x") > 0
    assert live.wait(Purpose.ORDER, "POST", "/x") == 0
    live.told_to_wait(429, 60)
    assert 1 < Limiter.of(exchange, SLOW, "other", "").wait(Purpose.READ, "GET", "/x") <= 60


def test_a_ccxt_account_is_counted_where_it_goes() -> None:
    names = {
        environment: _limited_as(environment, exchange="binance") for environment in Environment
    }
    assert names == {
        Environment.DRY_RUN: "binance",
        Environment.SANDBOX: "binance sandbox",
        Environment.LIVE: "binance",
    }
    proxy = "https://proxy.example"
    assert _limited_as(Environment.LIVE, exchange="binance", base_url=proxy) == (
        "binance proxy.example"
    )
    assert _limited_as(Environment.SANDBOX, exchange="okx") == "okx sandbox"


def _limited_as(environment: Environment, **options: object) -> str:
    plugin = CcxtPlugin()
    secrets = dict.fromkeys(("api_key", "api_secret", "api_passphrase"), "k")
    plugin.init(AccountConfig("1", "t", environment, options, secrets))
    limiter = plugin._pool._connect(private=True).gate._limiter
    assert limiter is not None
    return limiter._exchange


def test_a_broker_s_practice_host_is_another_place() -> None:
    keys = {"api_key": ALPACA_KEY, "api_secret": ALPACA_SECRET}
    names = set()
    for environment in (Environment.SANDBOX, Environment.LIVE):
        plugin = AlpacaPlugin()
        plugin.init(AccountConfig("1", "a", environment, {}, keys))
        limiter = plugin._http._limiter
        assert limiter is not None
        names.add(limiter._exchange)
        plugin.close()
    assert names == {"alpaca paper-api.alpaca.markets", "alpaca api.alpaca.markets"}


def test_a_hold_outlasts_valkey(shared: redis.Redis) -> None:
    clock = Clock()
    buckets, name = Buckets(gone, clock), uuid.uuid4().hex
    buckets.hold(name, 30)
    assert buckets.take(name, TEN, 1, reserved=True) == 30
    assert buckets.take(name, None, 0, reserved=True) == 30
    clock.now += 30
    assert buckets.take(name, None, 0, reserved=True) == 0


def test_a_hold_told_as_another_one_ends_is_kept() -> None:
    clock, name = Clock(), uuid.uuid4().hex

    def meddling() -> float:
        if clock.now == 1030 and buckets._held_until.get(name) == 1030:
            buckets._held_until[name] = 1060  # what another thread has just been told
        return clock.now

    buckets = Buckets(gone, meddling)
    buckets.hold(name, 30)
    clock.now += 30
    buckets.take(name, None, 0, reserved=True)
    assert buckets.take(name, None, 0, reserved=True) == 30


def test_hosts_behind_one_address_share_an_exchanges_limits(
    shared: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(address: str, host: str) -> int:
        settings.EGRESS_ADDRESS = address
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        return Limiter(exchange, SLOW, "", Buckets(lambda: shared), [].append).wait(
            Purpose.READ, "GET", "/x"
        )

    exchange = uuid.uuid4().hex
    settings.EGRESS_ADDRESS = "192.0.2.1"
    Limiter(exchange, SLOW, "", Buckets(lambda: shared)).told_to_wait(429, 30)
    assert told("192.0.2.1", "one") > 0
    assert told("192.0.2.1", "another") > 0
    assert told("", "one") == 0
    assert shared.exists(f"fks:limit:{exchange}:address:one") == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "99999999"}, 3 * 24 * 3600),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 5000}, 3 * 24 * 3600),
        ({"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"X-RateLimit-Reset": "9" * 5000}, None),
        ({"X-RateLimit-Reset": "1795348842"}, 42),
        ({"X-RateLimit-Reset": "1795348700"}, None),
        ({"X-RateLimit-Reset": "1795348842000"}, None),
        ({"X-RateLimit-Reset": "30"}, None),
        ({"X-Gate-RateLimit-Reset-Timestamp": "1795348803"}, 3),
        ({"X-Bapi-Limit-Reset-Timestamp": "1795348801001"}, 2),
        ({"X-Bapi-Limit-Reset-Timestamp": "1795348800000"}, 0),
        ({"X-Bapi-Limit-Reset-Timestamp": "1795348799000"}, None),
        ({"gw-ratelimit-reset": "14001"}, 15),
        ({"gw-ratelimit-reset": "-1"}, None),
        ({"Retry-After": "3", "gw-ratelimit-reset": "14001"}, 3),
        ({"Retry-After": "3", "X-RateLimit-Reset": "1795348842"}, 3),
        ({}, None),
    ],
)
def test_the_number_is_read_from_what_venues_send(
    headers: dict[str, str], seconds: int | None
) -> None:
    with time_machine.travel(datetime(2026, 11, 22, 12, tzinfo=UTC), tick=False):
        assert seconds_asked(headers) == seconds


def test_a_venue_that_was_asked_too_often_gets_not_one_request_more(venue: RunningVenue) -> None:
    """Binance's answer names a second; every question, order and cancel of any account waits for it."""
    plugin, other = (ccxt_plugin("binance", venue.base_url) for _ in range(2))
    plugin.instrument(SYMBOL)
    other.instrument(SYMBOL)
    venue.control.queue_faults(Fault(Action.CODE, When.BEFORE, code="-1003"))
    started = time.monotonic()
    result = plugin.execute_order(order())
    assert (result.outcome, result.code, result.retry_after) == (Outcome.UNKNOWN, "RATE_LIMITED", 1)
    assert other.fetch_data(SYMBOL).bid > 0
    assert time.monotonic() - started >= 0.99


class Told(Limiter):
    """Lets everything through and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("venue", None, "")
        self.heard: list[tuple[int, bool]] = []

    def wait(self, *_: object) -> int:
        return 0

    def told_to_wait(self, status: int, seconds: int | None, *, of_key: bool = False) -> None:
        self.heard.append((status, of_key))


@pytest.mark.parametrize(
    ("exchange", "code", "heard"),
    [
        ("binance", "-1003", (429, False)),
        ("binance", "-1015", (429, True)),
        ("kraken", "EAPI:Rate limit exceeded", (200, True)),
        ("kraken", "EGeneral:Too many requests", (200, False)),
        ("bybit", "10006", (200, True)),
        ("bybit", "10018", (200, False)),
        ("bybit-linear", "10006", (200, True)),
        ("okx", "50011", (429, True)),
        ("okx-swap", "50061", (200, True)),
        ("okx", "51000", None),
    ],
)
def test_whose_requests_were_too_many_is_read_from_the_answer(
    venue: RunningVenue,
    monkeypatch: pytest.MonkeyPatch,
    exchange: str,
    code: str,
    heard: tuple[int, bool] | None,
) -> None:
    plugin, told = ccxt_plugin(exchange, venue.base_url), Told()
    plugin.instrument(SYMBOLS[exchange])
    with plugin._pool.private() as client:
        monkeypatch.setattr(client.gate, "_limiter", told)
    venue.control.queue_faults(Fault(Action.CODE, When.BEFORE, code=code))
    result = plugin.execute_order(order(symbol=SYMBOLS[exchange]))
    assert told.heard == ([] if heard is None else [heard])
    assert result.code == ("VENUE_REJECTED" if heard is None else "RATE_LIMITED")


@pytest.mark.parametrize(
    ("status", "body", "heard"),
    [
        (403, "403, Access too frequent!", [600]),
        (403, "The Amazon CloudFront distribution is configured to block access", []),
        (200, "access too frequent", []),
    ],
)
def test_bybits_ban_of_an_address_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, heard: list[int]
) -> None:
    told = Told()
    gate = Gate(PROFILES["bybit", "spot"], frozenset(), (), told)
    waits: list[int | None] = []
    monkeypatch.setattr(told, "told_to_wait", lambda _, seconds: waits.append(seconds))
    gate.answered("https://v.example/v5/order/create", "POST", status, {}, body)
    assert waits == heard


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.label)
def test_what_is_counted_by_key_is_a_limit(profile: ExchangeProfile) -> None:
    assert profile.throttled_key <= profile.throttled


class Full(Limiter):
    """Without room for anything."""

    def wait(self, *_: object) -> int:
        return 9


def test_a_plugin_says_that_a_wait_is_our_own(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = ccxt_plugin("okx", venue.base_url)
    plugin.fetch_data(SYMBOL)
    with plugin._pool.public() as asking, plugin._pool.private() as sending:
        for client in (asking, sending):
            full = Full("okx", SLOW, "")
            monkeypatch.setattr(client.gate, "_limiter", full)
    with pytest.raises(HeldBackError):
        plugin.fetch_data(SYMBOL)
    with pytest.raises(HeldBackError):
        plugin.balances()
    result = plugin.execute_order(order())
    assert (result.outcome, result.code, result.retry_after, result.held_back) == (
        Outcome.NOT_SENT,
        "RATE_LIMITED",
        9,
        True,
    )
    assert result.evidence["sent"] is False
