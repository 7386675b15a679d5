"""Calls that really happen at the same time, each on a database connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from django.db import connection, connections

Result = TypeVar("Result")


def together(*calls: Callable[[], Result]) -> list[Result]:
    """The results of ``calls``, all started at one moment; raises what the first failed one raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Result]) -> Result:
        barrier.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(_closing, run, call) for call in calls]
        return [future.result(60) for future in futures]


def beside(call: Callable[[], Result]) -> Future[Result]:
    """``call``, begun in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(_closing, lambda inner: inner(), call)
    finally:
        pool.shutdown(wait=False)


def wait_for_a_blocked_backend(count: int = 1) -> None:
    """Return once ``count`` connections wait for locks others hold."""
    for _ in range(1000):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
            (blocked,) = cursor.fetchone()
            if blocked >= count:
                return
            cursor.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(f"not {count} wait")


def _closing(run: Callable[[Callable[[], Result]], Result], call: Callable[[], Result]) -> Result:
    try:
        return run(call)
    finally:
        connections.close_all()
