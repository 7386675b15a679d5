"""How often each network of an allowlist let somebody in: counted in the process, written now and then.

What a process has counted since its last writing is lost when it ends. The counts tell an operator
which entries are used, and nothing is decided by them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from django.db import Error
from django.db.models import F
from django.utils import timezone

from risk.allowlist import Network
from risk.models import AllowedNetwork

logger = logging.getLogger(__name__)

WRITE_EVERY = 30.0  # seconds

_counts: Counter[tuple[int, str]] = Counter()
_lock = threading.Lock()
_written_at = time.monotonic()


def count(allowlist_id: int, network: Network) -> None:
    """One more request from ``network``. Asks nothing of the database."""
    with _lock:
        _counts[allowlist_id, str(network)] += 1


def write_if_due() -> None:
    """Write what was counted, at most every 30 s; no request fails over it."""
    global _written_at
    with _lock:
        if not _counts or time.monotonic() - _written_at < WRITE_EVERY:
            return
        counted = dict(_counts)
        _counts.clear()
        _written_at = time.monotonic()
    now = timezone.now()
    try:
        for (allowlist_id, cidr), hits in counted.items():
            rows = AllowedNetwork.objects.filter(allowlist_id=allowlist_id, cidr=cidr)
            rows.update(hits=F("hits") + hits, last_hit_at=now)
    except Error:
        logger.warning("the use of allowlists could not be written", exc_info=True)
