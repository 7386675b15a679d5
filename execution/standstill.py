"""Whether this process stood still: the machine slept or was paused, or its clock was set.

What the market did meanwhile is in nobody's book: no account trades before it has been compared with
its venue. Only processes that ``watch`` notice it; a command that has just begun has not slept.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta

from django.db import Error, connection
from django.utils import timezone

from brokers.models import Account

logger = logging.getLogger(__name__)

STANDSTILL = timedelta(seconds=15)
LOOK_EVERY_S = 1

_lock = threading.Lock()
_seen_at: datetime | None = None
_noticed = 0


def watch() -> None:
    """Notice the standstills of this process from now on."""
    look()
    threading.Thread(target=_keep_looking, name="standstill", daemon=True).start()


def _keep_looking() -> None:
    while True:
        time.sleep(LOOK_EVERY_S)
        try:
            look()
        except Error as error:
            logger.warning("a standstill could not be noted: %s", type(error).__name__)
            connection.close()


def noticed() -> int:
    """How many standstills this process has noticed. One that has just ended is among them, whichever
    thread comes first: when this returns, every account waits for its comparison.
    """
    if _seen_at is not None and _is_gap(_seen_at, timezone.now()):
        look()
    return _noticed


def look() -> None:
    """Note that this process runs; after a standstill hold every account first."""
    global _seen_at, _noticed
    now = timezone.now()
    with _lock:
        if _seen_at is not None and _is_gap(_seen_at, now):
            hold_every_account()
            _noticed += 1
            logger.warning("after a standstill accounts are compared before they trade")
        _seen_at = now


def hold_every_account() -> None:
    """No account trades before it has been compared with its venue."""
    Account.objects.update(reconciled_at=None)


def _is_gap(before: datetime, now: datetime) -> bool:
    return abs(now - before) > STANDSTILL
