"""Doing something for a row once at a time, across threads and processes.

PostgreSQL advisory locks of the session: no transaction stays open meanwhile, and the lock of a worker
that dies goes with its connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from django.db import connection


class Work(IntEnum):
    """What is done; together with the row's id it names the lock."""

    WATCH = 0x464B5310
    RECONCILE = 0x464B5311
    WIND_DOWN = 0x464B5312
    NOTIFY = 0x464B5313
    STREAM = 0x464B5314
    RESOLVE = 0x464B5316


@contextmanager
def exclusive(work: Work, row_id: int) -> Iterator[bool]:
    """Whether nobody else does ``work`` for the row now; nobody does until the block ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [work.value, row_id])
        (mine,) = cursor.fetchone()
    try:
        yield mine
    finally:
        if mine:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [work.value, row_id])
