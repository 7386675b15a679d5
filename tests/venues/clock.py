"""The venue's own clock, which may be set wrong on purpose."""

from __future__ import annotations

import time


class Clock:
    """Milliseconds since the epoch, shifted by `offset_ms`."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.offset_ms
