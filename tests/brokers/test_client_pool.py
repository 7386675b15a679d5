"""Clients are handed on from one thread to the next, and never used by two at once."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

import pytest

from brokers import client_pool
from brokers.plugins.ccxt import CcxtPlugin
from brokers.venue_client import VenueClient
from tests.brokers.contract import ccxt_plugin


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[VenueClient]:
    """The clients that were made."""
    found: list[VenueClient] = []
    connect = client_pool.connect

    def noted(*args: Any, **kwargs: Any) -> VenueClient:
        found.append(connect(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(client_pool, "connect", noted)
    return found


@pytest.fixture
def plugin(made: list[VenueClient]) -> CcxtPlugin:
    return ccxt_plugin("binance", "http://127.0.0.1:9")


def test_many_threads_after_one_another_need_one_client(
    plugin: CcxtPlugin, made: list[VenueClient]
) -> None:
    def use() -> None:
        with plugin._pool.public(markets=False) as client:
            assert client is made[-1]

    for _ in range(5):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert len(made) == 1


def test_two_at_once_have_one_each_and_the_last_used_goes_first(
    plugin: CcxtPlugin, made: list[VenueClient]
) -> None:
    pool = plugin._pool
    with pool.public(markets=False) as first:
        with pool.public(markets=False) as second:
            assert second is not first
        with pool.public(markets=False) as third:
            assert third is second
    with pool.public(markets=False) as again:
        assert again is first
    assert len(made) == 2


def test_one_that_is_lent_while_the_pool_closes_is_closed_when_it_comes_back(
    plugin: CcxtPlugin, made: list[VenueClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[VenueClient] = []
    monkeypatch.setattr(VenueClient, "close", lambda client: closed.append(client))
    with plugin._pool.public(markets=False) as lent:
        plugin._pool.close()
        assert lent not in closed
    assert closed == made


def test_one_that_comes_back_just_as_the_pool_closes_is_closed(
    plugin: CcxtPlugin, made: list[VenueClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[VenueClient] = []
    monkeypatch.setattr(VenueClient, "close", lambda client: closed.append(client))

    class Overtaken(deque[tuple[float, VenueClient]]):
        def append(self, idle: tuple[float, VenueClient]) -> None:
            plugin._pool.close()
            super().append(idle)

    idle = plugin._pool._idle
    idle[os.getpid(), False] = Overtaken(idle[os.getpid(), False])
    with plugin._pool.public(markets=False):
        pass
    assert closed == made


@pytest.mark.parametrize(("kept", "closed_in_the_end"), [(60.0, 0), (-1.0, 2)])
def test_what_was_needed_at_one_moment_is_not_kept_for_ever(
    kept: float,
    closed_in_the_end: int,
    plugin: CcxtPlugin,
    made: list[VenueClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[VenueClient] = []
    monkeypatch.setattr(VenueClient, "close", lambda client: closed.append(client))
    monkeypatch.setattr(client_pool, "KEPT", kept)
    pool = plugin._pool
    with (
        pool.public(markets=False) as first,
        pool.public(markets=False),
        pool.public(markets=False),
    ):
        pass
    assert len(closed) == closed_in_the_end
    with pool.public(markets=False) as again:
        assert again is first
    assert len(made) == 3
