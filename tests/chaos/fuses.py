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
from tests.chaos.points import CELLS, NO_FAULT, SETTLE, STALLS, TIMEOUT, Point

STALL_S = TIMEOUT + 3 + 2 * SETTLE + 3
"""Longer than a lease and the two looks after it, so that another worker sends meanwhile."""
_WHOLE, _BURNED = 0, 1
_NUMBERS = {cell: number for number, cell in enumerate(CELLS)}


class Fuses:
    """Made before the processes are forked. Each step strikes once, and each cell as often as
    its share of all ``strikes``.
    """

    def __init__(self, steps: Sequence[Step], log: Path, strikes: int) -> None:
        self.steps = steps
        self._quota = min(max(1, strikes // len(CELLS)), 255)
        self._state = mmap.mmap(-1, len(steps) + 1)
        self._struck = mmap.mmap(-1, len(CELLS))
        self._log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
        self._read = 0
        self._known: list[Step] = []

    def lift(self) -> None:
        """No more kills."""
        self._state[len(self.steps)] = _BURNED

    def is_set(self, index: int | None, point: Point) -> bool:
        """Whether the step's kill is planned for ``point`` and has not happened."""
        if index is None or self.steps[index].point is not point:
            return False
        if self._struck[self._cell(index)] >= self._quota:
            return False
        return self._state[index] == _WHOLE == self._state[len(self.steps)]

    def fault_of(self, index: int) -> str:
        """What the step's order is to meet: nothing more where others have been through its cell."""
        step = self.steps[index]
        spare = step.point is not None and self._state[index] == _WHOLE
        if spare and self._struck[self._cell(index)] >= self._quota:
            return NO_FAULT
        return step.fault

    def _cell(self, index: int) -> int:
        step = self.steps[index]
        assert step.point is not None
        return _NUMBERS[step.point, step.fault]

    def strike(self, index: int | None, point: Point) -> None:
        """Kill this process, or stall this thread, if that is planned for the step and point.

        The log comes before the cell's count: another thread's kill may strike between the two, and
        a cell counted but not logged would be missed for good.
        """
        if index is None or not self.is_set(index, point):
            return
        self._state[index] = _BURNED
        os.write(self._log, f"{index} {os.getpid()}\n".encode())
        self._struck[self._cell(index)] += 1
        if point in STALLS:
            time.sleep(STALL_S)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def struck(self) -> list[Step]:
        """The steps whose kill or stall has happened."""
        news = os.pread(self._log, os.fstat(self._log).st_size, self._read)
        self._read += len(news)
        self._known += [self.steps[int(line.split()[0])] for line in news.splitlines()]
        return self._known

    def kills(self) -> int:
        return sum(step.point not in STALLS for step in self.struck())

    def cells(self) -> Counter[tuple[Point, str]]:
        """How often each planned cell happened."""
        return Counter((step.point, step.fault) for step in self.struck() if step.point)
