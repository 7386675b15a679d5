"""Handing work to other threads by message; while the queue server is away, doing it here and now.

A message is a nudge, and the sweep that makes up for lost ones comes by message too: without the server
nothing would send the stop of a position that has just been opened. A thread that cannot hand out its
work does it itself, one piece after the other, up to a bound; the rest is the sweep's to find.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from celery import Task

logger = logging.getLogger(__name__)

EXITS, ORDERS, SWEEPS = "exits", "orders", "sweeps"
"""Queues of messages. A worker takes from those it was given first while anything is in them."""
MOST = 50
"""Pieces one thread does by itself before it leaves the rest to the sweep."""


class _Here(threading.local):
    """What this thread has yet to do by itself; ``None`` while it hands its work out."""

    waiting: deque[tuple[Task[..., None], tuple[object, ...]]] | None = None


_here = _Here()


def hand_out(
    task: Task[..., None], *arguments: object, countdown: float = 0, queue: str | None = None
) -> None:
    """Have ``task`` done by another thread, in ``countdown`` seconds, by way of ``queue`` or else its
    usual one; where no message can be sent, by this one and at once.
    """
    if _here.waiting is not None:
        if (task, arguments) not in _here.waiting:
            _here.waiting.append((task, arguments))
        return
    way: dict[str, Any] = {} if queue is None else {"queue": queue}
    try:
        task.apply_async(arguments, retry=False, countdown=countdown, **way)
    except (OperationalError, OSError) as error:
        logger.warning("queue unreachable, the work is done here: %s", error)
        _do_here(task, arguments)


def _do_here(task: Task[..., None], arguments: tuple[object, ...]) -> None:
    waiting = _here.waiting = deque([(task, arguments)])
    try:
        for _ in range(MOST):
            if not waiting:
                return
            _do_one(*waiting.popleft())
        logger.warning("%d pieces of work are left to the sweep", len(waiting))
    finally:
        _here.waiting = None


def _do_one(task: Task[..., None], arguments: tuple[object, ...]) -> None:
    try:
        task(*arguments)
    except Exception:
        # A task boundary: one that fails must not take the others with it.
        logger.exception("%s failed", task.name)
