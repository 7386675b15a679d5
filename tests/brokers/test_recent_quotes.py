"""One price for whoever asks a venue in the same moment."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from brokers.errors import QueryFailedError
from brokers.recent_quotes import MOST, SHARED_FOR, RecentQuotes
from brokers.types import Quote
from tests.threads import beside

BTC = "BTC/USDT"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Venue:
    """Tells 1, then 2, then 3; ``gate`` holds an answer back."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> Quote:
        self.asked += 1
        price = Decimal(self.asked)
        self.entered.set()
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        return Quote(BTC, price, price, price, datetime.now(UTC))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotes(clock: Clock) -> RecentQuotes:
    return RecentQuotes(clock)


@pytest.fixture
def venue() -> Venue:
    return Venue()


def test_an_answer_is_good_for_half_a_second(
    quotes: RecentQuotes, clock: Clock, venue: Venue
) -> None:
    first = quotes.ask("binance", BTC, venue)
    clock.now += SHARED_FOR
    assert quotes.ask("binance", BTC, venue) is first
    clock.now += 0.001
    assert [quotes.ask("binance", BTC, venue).last for _ in range(2)] == [2, 2]


def test_another_venue_or_symbol_is_another_question(quotes: RecentQuotes, venue: Venue) -> None:
    places = [("binance", BTC), ("binance", "ETH/USDT"), ("binance sandbox", BTC)]
    assert [quotes.ask(*place, venue).last for place in places * 2] == [1, 2, 3, 1, 2, 3]


def test_who_comes_meanwhile_gets_the_same_answer(quotes: RecentQuotes, venue: Venue) -> None:
    venue.gate.clear()
    first = beside(lambda: quotes.ask("binance", BTC, venue))
    assert venue.entered.wait(30)
    others = [beside(lambda: quotes.ask("binance", BTC, venue)) for _ in range(3)]
    venue.gate.set()
    assert [one.result(30).last for one in (first, *others)] == [1, 1, 1, 1]


def test_a_failure_is_ones_own(quotes: RecentQuotes, clock: Clock, venue: Venue) -> None:
    venue.failure = QueryFailedError("timeout")
    with pytest.raises(QueryFailedError):
        quotes.ask("binance", BTC, venue)
    venue.failure = None
    assert quotes.ask("binance", BTC, venue).last == 2
    clock.now += SHARED_FOR + 0.001
    assert [quotes.ask("binance", BTC, venue).last for _ in range(2)] == [3, 3]


def test_nobody_waits_longer_for_another_than_a_price_is_good_for(
    quotes: RecentQuotes, clock: Clock, venue: Venue
) -> None:
    hanging, quick = Venue(), venue
    hanging.gate.clear()
    first = beside(lambda: quotes.ask("binance", BTC, hanging))
    assert hanging.entered.wait(30)
    clock.now += SHARED_FOR
    assert quotes.ask("binance", BTC, quick).last == 1
    hanging.gate.set()
    first.result(30)


def test_what_is_kept_does_not_grow_for_ever(quotes: RecentQuotes, venue: Venue) -> None:
    for number in range(MOST + 1):
        quotes.ask("binance", f"C{number}/USDT", venue)
    assert len(quotes._asked) == 1
