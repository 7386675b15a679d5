"""Pauses between tries that came to nothing: 2, 4, 8 … 60 s after the last one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.utils import timezone

from execution.models import Order

LONGEST = timedelta(seconds=60)
MANY = 6
"""After so many tries in a row the pause is the longest."""


def is_pausing(failed: Sequence[Order]) -> bool:
    """Whether the next try is not due yet, given those that ``failed`` in a row, the last one first."""
    if not failed or failed[0].finished_at is None:
        return False
    pause = min(timedelta(seconds=2 ** min(len(failed), MANY)), LONGEST)
    # Far ahead counts as long ago: the clock was set back.
    return abs(timezone.now() - failed[0].finished_at) < pause
