"""All trades since a moment, from exchanges that show so many at a time and so many days at once.

A window of time is asked for, and one that comes back full is halved: that holds whichever end an
exchange begins at. Its row in the matrix says under ``trade_pages`` how many trades an answer holds
(``size``), how long a window may be (``days``), whether the answer is about every market
(``every_market``), how the end of a window is named where ccxt does not know it (``until``), and
whether windows are counted in ``whole_seconds``: then each begins and ends on one, for ccxt and the
exchange would not cut a second at the same place. All others count milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from brokers.dialects import unified_rows as rows
from brokers.errors import NotShownError
from brokers.venue_client import VenueClient

Trade = Mapping[str, Any]

MOST_QUESTIONS = 100
QUESTION = "fetch_my_trades"


def since(client: VenueClient, symbol: str, began: datetime) -> list[Trade]:
    """The account's trades in ``symbol`` at or after ``began``, possibly some twice or a second older.

    Raises QueryFailedError, also where not all of them can be had.
    """
    start = _milliseconds(began)
    if not client.profile.trade_pages:
        return rows.mappings(client.ask(QUESTION, symbol, start))
    return [one for one in _Windows(client, symbol).all(start) if one.get("symbol") == symbol]


class _Windows:
    """One walk through time; the last window has no end, so that no clock cuts off the newest."""

    def __init__(self, client: VenueClient, symbol: str) -> None:
        self._client = client
        self._pages = client.profile.trade_pages
        self._symbol = None if self._pages.get("every_market") else symbol
        self._now = _milliseconds(datetime.now(UTC))
        self._left = MOST_QUESTIONS
        self._unit = 1000 if self._pages.get("whole_seconds") else 1

    def all(self, start: int) -> Iterator[Trade]:
        start = self._whole(start)
        days = self._pages.get("days")
        span = int(timedelta(days=days).total_seconds() * 1000) if days else None
        while span and self._now - start > span:
            yield from self._window(start, start + span)
            start += span
        yield from self._window(start, None)

    def _window(self, start: int, end: int | None) -> Iterator[Trade]:
        found = self._asked(start, end)
        if len(found) < self._pages["size"]:
            yield from found
            return
        stop = self._now if end is None else end
        if stop - start < 2 * self._unit:
            raise NotShownError(f"{self._client.profile.label} does not show all trades")
        middle = self._whole((start + stop) // 2)
        yield from self._window(start, middle)
        yield from self._window(middle, end)

    def _whole(self, moment: int) -> int:
        """The last moment the exchange can be asked about that is not after this one."""
        return moment - moment % self._unit

    def _asked(self, start: int, end: int | None) -> list[Trade]:
        if not self._left:
            raise NotShownError(f"{self._client.profile.label}: too many pages of trades")
        self._left -= 1
        until: dict[str, object] = {}
        if end is not None and "until" in self._pages:
            at = datetime.fromtimestamp(end / 1000, UTC)
            until[self._pages["until"]] = at.isoformat(timespec="milliseconds").replace(
                "+00:00", "Z"
            )
        elif end is not None:
            until["until"] = end
        size = self._pages["size"]
        return rows.mappings(self._client.ask(QUESTION, self._symbol, start, size, until))


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
