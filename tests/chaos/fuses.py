"""Which steps have had their kill: memory shared by all processes of a run, and a log of kills."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.plan import Step
from tests.chaos.points import SETTLE, STALLS, TIMEOUT, Point

STALL_S = TIMEOUT + 3 + 2 * SETTLE + 3
"""Longer than a lease and the two looks after it, so that another worker sends meanwhile."""
_WHOLE, _BURNED = 0, 1


class Fuses:
    """Made before the processes are forked; each planned kill strikes once."""

    def __init__(self, steps: Sequence[Step], log: Path) -> None:
        self.steps = steps
        self._state = mmap.mmap(-1, len(steps) + 1)
        self._log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
        self._path = log

    def lift(self) -> None:
        """No more kills."""
        self._state[len(self.steps)] = _BURNED

    def is_set(self, index: int | None, point: Point) -> bool:
        """Whether the step's kill is planned for ``point`` and has not happened."""
        if index is None or self.steps[index].point is not point:
            return False
        return self._state[index] == _WHOLE == self._state[len(self.steps)]

    def strike(self, index: int | None, point: Point) -> None:
        """Kill this process, or stall this thread, if that is planned for the step and point."""
        if index is None or not self.is_set(index, point):
            return
        self._state[index] = _BURNED
        os.write(self._log, f"{index} {os.getpid()}\n".encode())
        if point in STALLS:
            time.sleep(STALL_S)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def struck(self) -> list[Step]:
        """The steps whose kill or stall has happened."""
        lines = self._path.read_text().splitlines()
        return [self.steps[int(line.split()[0])] for line in lines]

    def kills(self) -> int:
        return sum(step.point not in STALLS for step in self.struck())

    def cells(self) -> Counter[tuple[Point, str]]:
        """How often each planned cell happened."""
        return Counter((step.point, step.fault) for step in self.struck() if step.point)
