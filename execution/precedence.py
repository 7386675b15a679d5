"""Exits are decided before entries, in every process: an entry begins only while no exit of its
accounts is being decided or waits to be.

The row locks of the accounts keep the numbers right; this only says who stands first in their queue.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from django.db import connection

EXIT_LOCK = 0x464B5306
PATIENCE = 3.0
"""Seconds an entry steps back for; then it takes its place in the queue."""
LOOK_AGAIN = 0.02


def announce_exit(account_ids: Collection[int]) -> None:
    """Hold entries back until the caller's transaction ends. Before any row is locked."""
    with connection.cursor() as cursor:
        for account_id in sorted(account_ids):
            cursor.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", _key(account_id))


def let_exits_pass(account_ids: Collection[int]) -> None:
    """Wait while exits of the accounts are being decided, but not for ever. Outside any transaction:
    the question takes the lock for its own moment only.
    """
    deadline = time.monotonic() + PATIENCE
    while not all(map(_is_free, account_ids)) and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN)


def _is_free(account_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", _key(account_id))
        return bool(cursor.fetchone()[0])


def _key(account_id: int) -> list[int]:
    return [EXIT_LOCK, account_id % 2**31]
