"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from uuid import UUID


def uuid7() -> UUID:
    """A UUID version 7 (RFC 9562, method 3: a 12-bit fraction of the millisecond follows the time).

    128 bits, 62 of them random; ids of one process sort in the order they were made to about 250 ns.
    """
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | fraction << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    return UUID(int=value)


def first_id_at(moment: datetime) -> UUID:
    """The smallest UUID version 7 of ``moment``: ids sort by time, so the primary key's index finds
    what is younger.
    """
    return UUID(int=int(moment.timestamp() * 1000) << 80)
