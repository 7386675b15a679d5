"""The rules of instruments as a venue told them, kept for an hour, and longer where it tells none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from brokers.errors import QueryFailedError, UnknownSymbolError

AGE = 3600.0
"""Seconds rules are kept before they are asked for again."""
ASKED_AGAIN = 60.0
"""Seconds older rules serve after a question that nobody answered."""
_Rules = TypeVar("_Rules")


class KnownRules(Generic[_Rules]):
    """By symbol or the venue's id. No order waits for rules that are known already."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, _Rules]] = {}

    def get(self, key: str, ask: Callable[[], _Rules]) -> _Rules:
        """Raises what ``ask`` does; QueryFailedError only where nothing is known."""
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        try:
            rules, lasts = ask(), AGE
        except QueryFailedError:
            if known is None:
                raise
            rules, lasts = known[1], ASKED_AGAIN
        self._known[key] = (time.monotonic() + lasts, rules)
        return rules

    def of_order(self, key: str, ask: Callable[[], _Rules]) -> _Rules:
        """As ``get``, for an order that has been judged: what is no longer listed keeps its rules, and
        the venue says whether it still trades."""
        try:
            return self.get(key, ask)
        except UnknownSymbolError:
            if key not in self._known:
                raise
            return self._known[key][1]
