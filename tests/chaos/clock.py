"""The machine's clock as the processes of a run see it: it may jump, in all of them at once."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from datetime import timedelta

import time_machine

LOOK_EVERY_S = 0.05


class SharedClock:
    """Made before the processes are forked. Until the first jump nothing of it is in the way."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self._applied = 0
        self._travel: time_machine.travel | None = None
        self._shown: time_machine.Traveller | None = None

    @property
    def ahead(self) -> int:
        """By how many seconds the processes' clock is ahead of the true one."""
        (seconds,) = struct.unpack("q", self._memory[:])
        return int(seconds)

    def jump(self, seconds: int) -> None:
        """Let every process that follows see the clock jump."""
        self._memory[:] = struct.pack("q", self.ahead + seconds)

    def follow(self) -> None:
        """Show this process, and those it forks, the jumping clock."""
        self._keep_up()
        os.register_at_fork(after_in_child=self._keep_up)

    def _keep_up(self) -> None:
        self._apply()
        threading.Thread(target=self._run, name="clock", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_EVERY_S):
            self._apply()

    def _apply(self) -> None:
        ahead = self.ahead
        if ahead == self._applied:
            return
        if self._shown is None:
            self._travel = time_machine.travel(timedelta(seconds=ahead), tick=True)
            self._shown = self._travel.start()
            time.time()  # the first question sets it going: until then it would stand still
        else:
            self._shown.shift(ahead - self._applied)
        self._applied = ahead
