"""Whether a market is open, as its venue tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from brokers.venue_http import RefusedError

UNTOLD = timedelta(minutes=1)
"""How long a market counts as open whose venue answers without telling: it judges the order itself."""


class MarketHours:
    """Asked once for each change; several threads may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open, self.until = False, datetime.min.replace(tzinfo=UTC)

    def is_open(self, ask: Callable[[datetime], tuple[bool, datetime]]) -> bool:
        """``ask`` says for a moment whether the market is open, and until when that holds. Raises
        QueryFailedError where the venue does not answer.
        """
        with self._lock:
            now = datetime.now(UTC)
            if now >= self.until:
                try:
                    self._is_open, self.until = ask(now)
                except RefusedError as refused:
                    if not refused.is_answer:
                        raise
                    self._is_open, self.until = True, now + UNTOLD
            return self._is_open
