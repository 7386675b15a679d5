"""One request of a key at a time, of all workers, with numbers that only rise."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import redis
from django.conf import settings

from brokers.errors import QueryFailedError
from brokers.key_turns import KeyTurns
from brokers.plugins.ccxt import CcxtPlugin
from brokers.streams import StreamLostError
from brokers.types import Outcome
from tests.brokers.contract import ccxt_plugin, limit
from tests.threads import together
from tests.venues.client import RunningVenue


@pytest.fixture
def shared() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


def gone() -> redis.Redis:
    return redis.Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.1)


def work(turns: KeyTurns, key: str, numbers: list[int], inside: list[int]) -> Callable[[], None]:
    """Takes a few turns; each takes the number after the last, while nobody else is inside."""

    def run() -> None:
        for _ in range(10):
            with turns.turn("kraken", key, 20) as turn:
                inside.append(1)
                assert len(inside) == 1
                turn.last += 1
                numbers.append(turn.last)
                inside.pop()

    return run


def test_threads_and_workers_take_turns_and_never_go_back(shared: redis.Redis) -> None:
    key, numbers, inside = uuid.uuid4().hex, list[int](), list[int]()
    workers = [KeyTurns(lambda: shared) for _ in range(2)]
    together(*(work(one, key, numbers, inside) for one in workers for _ in range(2)))
    assert numbers == list(range(1, 41))
    assert not [name for name in shared.keys("fks:*") if key.encode() in name]
    with KeyTurns(lambda: shared).turn("kraken", key, 0) as turn:
        assert turn.last == 40


def test_without_valkey_the_threads_of_a_process_still_take_turns() -> None:
    numbers, inside, turns = list[int](), list[int](), KeyTurns(gone)
    together(*(work(turns, "k", numbers, inside) for _ in range(3)))
    assert numbers == list(range(1, 31))


def test_other_keys_and_exchanges_do_not_wait(shared: redis.Redis) -> None:
    key, turns, other = uuid.uuid4().hex, KeyTurns(lambda: shared), KeyTurns(lambda: shared)
    with (
        turns.turn("kraken", key, 0),
        other.turn("kraken", f"{key}2", 0),
        other.turn("mexc", key, 0),
    ):
        pass


@pytest.mark.parametrize("same_process", [True, False])
def test_a_turn_that_does_not_come_is_no_answer(shared: redis.Redis, same_process: bool) -> None:
    key, turns = uuid.uuid4().hex, KeyTurns(lambda: shared)
    other = turns if same_process else KeyTurns(lambda: shared)
    with (
        turns.turn("kraken", key, 0),
        pytest.raises(QueryFailedError, match="another request of this key hangs"),
        other.turn("kraken", key, 0.02),
    ):
        raise AssertionError("two at once")
    with other.turn("kraken", key, 0):
        pass


def test_the_turn_of_a_worker_that_died_ends(shared: redis.Redis) -> None:
    key, dead, next_one = uuid.uuid4().hex, KeyTurns(lambda: shared, held=0.05), KeyTurns(gone)
    turn = dead.turn("kraken", key, 0)
    turn.__enter__()
    late = KeyTurns(lambda: shared)
    with late.turn("kraken", key, 20):
        # who comes back after his turn has ended takes nobody else's
        turn.__exit__(None, None, None)
        with pytest.raises(QueryFailedError), dead.turn("kraken", key, 0):
            raise AssertionError("two at once")
    with next_one.turn("kraken", key, 0):
        pass


def test_two_workers_with_one_kraken_key_have_no_nonce_refused(venue: RunningVenue) -> None:
    plugins = [ccxt_plugin("kraken", venue.base_url) for _ in range(2)]
    for plugin in plugins:
        plugin._pool._turns = KeyTurns(plugin._pool._turns._connect)
        plugin.instrument("BTC/USDT")

    def asking(plugin: CcxtPlugin) -> Callable[[], None]:
        return lambda: [plugin.balances() for _ in range(8)] and None

    def trade() -> None:
        for plugin in plugins:
            assert plugin.execute_order(limit()).outcome is Outcome.ACCEPTED

    together(asking(plugins[0]), asking(plugins[1]), asking(plugins[1]), trade)
    refused = [one for one in venue.control.requests() if "nonce" in one.error]
    assert refused == []


def an_hour_apart(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> tuple[CcxtPlugin, CcxtPlugin]:
    """Two workers with one key: the first has asked already, and the clock of now is an hour behind."""
    ahead, behind = (ccxt_plugin("kraken", venue.base_url) for _ in range(2))
    behind._pool._turns = KeyTurns(behind._pool._turns._connect)
    for plugin in (ahead, behind):
        plugin.instrument("BTC/USDT")
    ahead.balances()
    now = time.time_ns()
    monkeypatch.setattr("brokers.guarded_client.time.time_ns", lambda: now - 3_600_000_000_000)
    return ahead, behind


def test_a_stream_takes_its_turn_and_goes_on_from_the_last_number(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, behind = an_hour_apart(venue, monkeypatch)

    async def ask() -> None:
        stream = behind.order_stream()
        try:
            # the venue here gives tokens out, and has no stream
            with pytest.raises(StreamLostError):
                await stream.connect()
        finally:
            await stream.close()

    asyncio.run(ask())
    asked = [one for one in venue.control.requests() if one.path.endswith("/GetWebSocketsToken")]
    assert [one.error for one in asked] == [""]
    assert ahead.execute_order(limit()).outcome is Outcome.ACCEPTED


def test_a_worker_whose_clock_is_behind_goes_on_from_the_last_number(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, behind = an_hour_apart(venue, monkeypatch)
    behind.balances()
    assert behind.execute_order(limit()).outcome is Outcome.ACCEPTED
    assert not [one for one in venue.control.requests() if "nonce" in one.error]
