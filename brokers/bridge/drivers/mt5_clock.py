"""The trade server's clock: MetaTrader gives its local time as if it were UTC, and never its zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

GRID = timedelta(minutes=15)
"""No zone is off by anything finer."""
CLOSE = timedelta(seconds=60)
FARTHEST = timedelta(hours=14)


class ServerClock:
    """Learns how far the server's clock is from UTC, by things that just happened there."""

    def __init__(self) -> None:
        self.offset: timedelta | None = None

    def learn(self, server_ms: int, happened_at: datetime) -> None:
        """Something the server dated ``server_ms`` happened at ``happened_at``, give or take a
        minute; what is no whole number of quarter hours away is not believed."""
        apart = self._naive(server_ms) - happened_at
        offset = round(apart / GRID) * GRID
        if abs(apart - offset) <= CLOSE and abs(offset) <= FARTHEST:
            self.offset = offset

    def utc(self, server_ms: int) -> datetime:
        """A server time as the time it was; as told while the offset is not known."""
        return self._naive(server_ms) - (self.offset or timedelta(0))

    @staticmethod
    def _naive(server_ms: int) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=server_ms)
