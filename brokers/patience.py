"""How long a venue asks to be left alone, read from the headers of an answer that says "too often"."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST = 3 * 24 * 3600
"""Seconds. The longest ban a venue writes of: Binance, "Limits", from 2 minutes to 3 days."""
DIGITS = 12
"""A longer number says no more than that it is far off; Python refuses to read one of thousands."""
BANNED = 418
SHORTEST_BAN = 120
UNTOLD = 5
"""Seconds to wait where a venue names no number."""


def seconds_asked(headers: Mapping[str, str]) -> int | None:
    """The seconds of ``Retry-After`` (a number or a date), else those until ``X-RateLimit-Reset``
    (seconds since 1970: Alpaca, "Rate limits"); ``None`` where neither can be read.
    """
    told = headers.get("Retry-After") or ""
    if told.isdecimal():
        return min(int(told[:DIGITS]), LONGEST)
    until = _moment(told) or headers.get("X-RateLimit-Reset") or ""
    if not until.isdecimal():
        return None
    left = int(until[:DIGITS]) - int(time.time())
    return left if 0 <= left <= LONGEST else None


def seconds_untold(status: int) -> int:
    """How long to wait after such a status without a number."""
    return SHORTEST_BAN if status == BANNED else UNTOLD


def _moment(text: str) -> str:
    """An HTTP date as seconds since 1970; empty where it is none."""
    try:
        return f"{parsedate_to_datetime(text).timestamp():.0f}" if text else ""
    except (ValueError, OverflowError):
        return ""
