"""How a position is guarded, as a word with an icon."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from execution.models import Protection
from fks_site.templatetags.fks import guard_pill


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, ("guarded", "success", "check_circle")),
        ({"watched_at": timezone.now()}, ("watched", "warning", "visibility")),
        (
            {"watched_at": timezone.now(), "naked_since": timezone.now()},
            ("unguarded", "danger", "error"),
        ),
        ({"is_active": False}, ("ended", "default", "remove_circle_outline")),
    ],
    ids=["guarded", "watched", "unguarded", "ended"],
)
def test_a_guard_is_a_word_with_its_colour_and_icon(
    fields: dict[str, Any], shown: tuple[str, str, str]
) -> None:
    pill = guard_pill(Protection(**fields))
    assert (pill["text"], pill["color"], pill["icon"]) == shown
