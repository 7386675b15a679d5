"""What to do with a venue that does not take the tokens it gave."""

from __future__ import annotations

import time

from brokers.errors import QueryFailedError

APART = 60.0
"""Seconds. One refusal may be an old token's; two so close are the venue's or the key's trouble."""


class RefusedTokens:
    """A refused token is replaced at once, but not the one that took its place: the venue is left
    alone for a while, and what wants to leave waits.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._rests_until = 0.0

    def note(self) -> None:
        """The venue did not take the newest token."""
        now = time.monotonic()
        if self._last is not None and now - self._last < APART:
            self._rests_until = now + APART
        self._last = now

    def rest(self) -> None:
        """Raise QueryFailedError while no new token is to be asked for."""
        if time.monotonic() < self._rests_until:
            raise QueryFailedError("the venue does not take the tokens it gives: asked later again")
