"""The pause after tries that came to nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from execution import backoff
from execution.models import Order


@pytest.mark.parametrize(
    ("seconds", "pauses"),
    [(1, True), (3, False), (-3600, False)],
    ids=["just now", "a while ago", "before the clock was set back"],
)
def test_after_one_failure_it_pauses_for_two_seconds(seconds: float, pauses: bool) -> None:
    failed = Order(finished_at=timezone.now() - timedelta(seconds=seconds))
    assert backoff.is_pausing([failed]) is pauses
