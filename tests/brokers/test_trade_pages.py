"""All trades of an account, from exchanges that show so many at a time and so many days at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.dialects import trade_pages
from brokers.errors import NotShownError, QueryFailedError
from brokers.exchanges import PROFILES, ExchangeProfile
from tests.brokers.test_wire import BY_REQUESTS, asked, plugin_of, symbol_of

__all__ = ["asked"]

NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
DAY = 24 * 3600 * 1000
SYMBOL = "BTC/USDT"


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@dataclass
class Venue:
    """A client of an exchange that keeps ``trades`` (moment, id, symbol) and shows a page of them.

    ``newest_first``: a page that is full holds the last ones of its window, else the first ones.
    """

    profile: ExchangeProfile
    trades: Sequence[tuple[int, str, str]]
    newest_first: bool = False
    asked: list[tuple[int, int | None]] = field(default_factory=list)

    def ask(
        self, name: str, symbol: str | None, start: int, size: int, until: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        assert name == "fetch_my_trades"
        pages = self.profile.trade_pages
        assert (symbol is None) == bool(pages.get("every_market"))
        end = until.get("until")
        if isinstance(said := until.get("lastFillTime"), str):
            end = milliseconds(datetime.fromisoformat(said))
        stop = milliseconds(NOW) if end is None else int(end)
        assert stop - start <= pages.get("days", 1000) * DAY, "the window is too long"
        self.asked.append((start, end))
        begin = start
        if pages.get("whole_seconds"):
            begin, stop = start // 1000 * 1000, stop if end is None else stop // 1000 * 1000
        here = sorted(t for t in self.trades if begin <= t[0] <= stop and symbol in (None, t[2]))
        page = here[-size:] if self.newest_first else here[:size]
        # ccxt leaves out what is older than it asked for
        page = [one for one in page if one[0] >= start]
        return [{"timestamp": at, "id": name, "symbol": of} for at, name, of in page]


def found(venue: Venue, since: datetime) -> set[str]:
    with time_machine.travel(NOW, tick=False):
        return {one["id"] for one in trade_pages.since(venue, SYMBOL, since)}  # type: ignore[arg-type]


KUCOIN, FUTURES = PROFILES["kucoin", "spot"], PROFILES["krakenfutures", "swap"]
GATE = PROFILES["gate", "spot"]


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("profile", [KUCOIN, FUTURES], ids=lambda p: p.label)
@settings(max_examples=30, deadline=None)
@given(
    moments=st.lists(st.integers(0, 20 * DAY // 1000), max_size=450, unique=True),
    others=st.integers(0, 150),
)
def test_every_trade_is_found_whichever_end_a_page_begins_at(
    profile: ExchangeProfile, newest_first: bool, moments: list[int], others: int
) -> None:
    since = NOW - timedelta(days=15)
    last = milliseconds(NOW)
    trades = [(last - at * 1000, f"T{at}", SYMBOL) for at in moments]
    trades += [(last - at * 7000, f"O{at}", "ETH/USDT") for at in range(others)]
    wanted = {name for at, name, of in trades if of == SYMBOL and at >= milliseconds(since)}
    assert found(Venue(profile, trades, newest_first), since) == wanted


@pytest.mark.parametrize("newest_first", [True, False])
@settings(max_examples=30, deadline=None)
@given(
    first=st.integers(0, 2300),
    count=st.integers(0, 60),
    began=st.integers(590_000, 610_000),
)
def test_nothing_is_lost_at_the_joints_of_an_exchange_that_counts_seconds(
    newest_first: bool, first: int, count: int, began: int
) -> None:
    """Four trades a second and twelve to a page: windows are halved down to seconds."""
    small = replace(GATE, trade_pages=dict(GATE.trade_pages) | {"size": 12})
    last = milliseconds(NOW) - 137
    trades = [(last - n * 250, f"T{n}", SYMBOL) for n in range(first, first + count)]
    since = NOW - timedelta(milliseconds=137 + began)
    wanted = {name for at, name, _ in trades if at >= milliseconds(since)}
    assert found(Venue(small, trades, newest_first), since) >= wanted


def test_where_milliseconds_count_a_busy_second_is_taken_apart() -> None:
    last = milliseconds(NOW) - 500
    trades = [(last - n, f"T{n}", SYMBOL) for n in range(400)]
    since = NOW - timedelta(seconds=2)
    assert found(Venue(KUCOIN, trades), since) == {name for _, name, _ in trades}
    crowded = Venue(GATE, [(last - n // 4, f"T{n}", SYMBOL) for n in range(1500)])
    with pytest.raises(NotShownError, match="does not show all trades"):
        found(crowded, since)


def test_where_one_answer_holds_all_one_question_is_asked() -> None:
    venue = Venue(KUCOIN, [(milliseconds(NOW) - 5, "T", SYMBOL)])
    since = NOW - timedelta(hours=1)
    assert found(venue, since) == {"T"}
    assert venue.asked == [(milliseconds(since), None)]


def test_an_old_order_is_looked_for_week_by_week() -> None:
    """Asked from a moment on, KuCoin and Binance show the week after it and no more."""
    venue = Venue(KUCOIN, [(milliseconds(NOW) - 5, "T", SYMBOL)])
    since = NOW - timedelta(days=15)
    assert found(venue, since) == {"T"}
    begun = milliseconds(since)
    assert venue.asked == [
        (begun, begun + 7 * DAY),
        (begun + 7 * DAY, begun + 14 * DAY),
        (begun + 14 * DAY, None),
    ]


def test_what_cannot_be_had_completely_is_no_answer() -> None:
    moment = milliseconds(NOW) - 500
    venue = Venue(KUCOIN, [(moment, f"T{n}", SYMBOL) for n in range(100)])
    with pytest.raises(NotShownError, match="does not show all trades"):
        found(venue, NOW - timedelta(hours=1))


def test_there_is_an_end_to_asking() -> None:
    last = milliseconds(NOW)
    venue = Venue(KUCOIN, [(last - n * 3000, f"T{n}", SYMBOL) for n in range(10_000)])
    with pytest.raises(NotShownError, match="too many pages"):
        found(venue, NOW - timedelta(days=1))
    assert len(venue.asked) == trade_pages.MOST_QUESTIONS


BEGINS: dict[str, Mapping[str, str]] = {
    "Coinbase spot": {"start_sequence_timestamp": "2026-07-31T11:00:00.000Z", "limit": "100"},
    "KuCoin spot": {"startAt": "1785495600000", "limit": "100"},
    "Gate spot": {"from": "1785495600", "limit": "1000"},
    "Bitget spot": {"startTime": "1785495600000", "limit": "100"},
    "Bitget linear swap": {"startTime": "1785495600000", "limit": "100"},
    "Kraken Futures swap": {},
    "Binance USD-M swap": {"startTime": "1785495600000", "limit": "1000"},
    "HTX spot": {"start-time": "1785495600000", "size": "500"},
}
ENDS = {
    "Coinbase spot": ("end_sequence_timestamp", "2026-07-31T11:30:00.000Z"),
    "KuCoin spot": ("endAt", "1785497400000"),
    "Gate spot": ("to", "1785497400"),
    "Bitget spot": ("endTime", "1785497400000"),
    "Bitget linear swap": ("endTime", "1785497400000"),
    "Kraken Futures swap": ("lastFillTime", "2026-07-31T11:30:00.000Z"),
    "Binance USD-M swap": ("endTime", "1785497400000"),
    "HTX spot": ("end-time", "1785497400000"),
}


@pytest.mark.parametrize("profile", BY_REQUESTS, ids=lambda p: p.label)
def test_a_window_has_the_names_the_exchange_gives_its_ends(
    profile: ExchangeProfile, asked: list[tuple[str, str]]
) -> None:
    plugin = plugin_of(profile)
    start, end = NOW - timedelta(hours=1), NOW - timedelta(minutes=30)
    with time_machine.travel(NOW, tick=False), plugin._pool.private() as client:
        for until in (None, milliseconds(end)):
            asked.clear()
            walk = trade_pages._Windows(client, symbol_of(profile))
            with pytest.raises(QueryFailedError):
                walk._asked(milliseconds(start), until)
            ((_, address),) = asked
            if profile.id == "hyperliquid":
                assert '"type":"userFillsByTime","startTime":1785495600000' in address
                assert ('"endTime":1785497400000' in address) == (until is not None)
                continue
            told = {name: one for name, (one, *_) in parse_qs(urlsplit(address).query).items()}
            assert told.items() >= BEGINS[profile.label].items()
            name, moment = ENDS[profile.label]
            assert told.get(name) == (moment if until else None)
