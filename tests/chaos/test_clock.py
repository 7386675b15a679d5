from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from tests.chaos.clock import SharedClock


def test_a_clock_that_jumped_goes_on_though_nobody_asks_for_the_time() -> None:
    clock = SharedClock()
    clock.jump(3600)
    before = time.monotonic()
    true = datetime.now(UTC)
    clock._apply()
    try:
        time.sleep(0.3)
        shown = datetime.now(UTC)
    finally:
        assert clock._travel is not None
        clock._travel.stop()
    passed = timedelta(seconds=time.monotonic() - before)
    assert timedelta(hours=1, seconds=0.3) <= shown - true <= timedelta(hours=1) + passed
