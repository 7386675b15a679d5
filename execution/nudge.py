"""Wakes the workers without making anyone wait: a thread of this process publishes row ids.

A nudge may be lost (the process dies, Valkey is down): the sweep finds the row within a second or
two.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from kombu.exceptions import OperationalError

from execution import tasks
from execution.handing_out import EXITS

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000
MAX_BATCH = 50
PACE = 0.01
"""Seconds from one message to the next. The first of a burst goes at once; a message for each of
the others would cost as much as accepting them."""


class Nudger:
    """Publishes in the background; drops nudges rather than grow or block.

    What arrives within ``PACE`` of one message goes into the next one together.
    """

    def __init__(self, publish: Callable[[list[str]], None]) -> None:
        self._publish = publish
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def send(self, row_id: str) -> None:
        """Hand over ``row_id``; returns at once."""
        if self._waiting.qsize() >= MAX_WAITING:
            return
        self._waiting.put(row_id)
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="nudge", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            row_ids = [self._waiting.get()]
            while len(row_ids) < MAX_BATCH and not self._waiting.empty():
                row_ids.append(self._waiting.get())
            next_at = time.monotonic() + PACE
            try:
                self._publish(row_ids)
            except (OperationalError, OSError) as error:
                logger.warning("queue unreachable, the sweep will find the rows: %s", error)
            time.sleep(max(0.0, next_at - time.monotonic()))


def _publish(signal_ids: list[str]) -> None:
    tasks.process_signals.apply_async((signal_ids,), retry=False)


_nudger = Nudger(_publish)


def nudge_signal(signal_id: str) -> None:
    """Wake a worker for ``signal_id`` without waiting for the queue."""
    _nudger.send(signal_id)


def _publish_exits(signal_ids: list[str]) -> None:
    for signal_id in signal_ids:
        tasks.process_signal.apply_async((signal_id,), retry=False, queue=EXITS)


_exit_nudger = Nudger(_publish_exits)


def nudge_exit(signal_id: str) -> None:
    """Wake a worker for a signal that closes something: before every entry that waits."""
    _exit_nudger.send(signal_id)
