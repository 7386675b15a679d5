"""How long a venue asks to be left alone, read from the headers of an answer that says "too often",
or from what its row in the matrix says of a ban.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

LONGEST = 3 * 24 * 3600
"""Seconds. The longest ban a venue writes of: Binance, "Limits", from 2 minutes to 3 days."""
DIGITS = 15
"""A longer number says no more than that it is far off; Python refuses to read one of thousands."""
BANNED = 418
SHORTEST_BAN = 120
UNTOLD = 5
"""Seconds to wait where a venue names no number."""
MOMENTS = {
    "X-RateLimit-Reset": 1,
    "X-Gate-RateLimit-Reset-Timestamp": 1,
    "X-Bapi-Limit-Reset-Timestamp": 1000,
}
"""Headers that name the moment from which on one may ask again, in so many parts of a second since
1970: Alpaca, "Rate limits"; Gate, "Rate limit rule"; Bybit, "Rate Limit Rules".
"""
COUNTDOWN = "gw-ratelimit-reset"
"""Milliseconds left: KuCoin, "Rate limit"."""


@dataclass(frozen=True, slots=True)
class Ban:
    """An answer that says that the address is banned, where 418 does not: its status, words that are
    in its body, and the seconds to stay away.
    """

    status: int
    says: str
    seconds: int

    def is_told(self, status: int, body: str) -> bool:
        return status == self.status and self.says in body.lower()


def seconds_asked(headers: Mapping[str, str]) -> int | None:
    """The seconds of ``Retry-After`` (a number or a date), else those until the moment or of the
    countdown that another header names; ``None`` where none can be read.
    """
    told = headers.get("Retry-After") or ""
    if told.isdecimal():
        return min(int(told[:DIGITS]), LONGEST)
    if until := _moment(told):
        return _left(int(until[:DIGITS]))
    for name, parts in MOMENTS.items():
        if (said := headers.get(name) or "").isdecimal():
            return _left(int(said[:DIGITS]) / parts)
    if (said := headers.get(COUNTDOWN) or "").isdecimal():
        return min(math.ceil(int(said[:DIGITS]) / 1000), LONGEST)
    return None


def _left(until: float) -> int | None:
    """Whole seconds until a moment since 1970; ``None`` for one that is over, or too far away."""
    left = math.ceil(until - time.time())
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
