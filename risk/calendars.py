"""Holidays and half days of markets, from the ``holidays`` package (see docs/adr)."""

from __future__ import annotations

from datetime import UTC, date
from functools import lru_cache
from typing import Any

__all__ = ["UTC", "is_half_day", "is_holiday", "market"]


def market(text: str) -> str:
    """The market's code (an ISO 10383 MIC such as XNYS, or a short name). Raises ValueError."""
    import holidays  # half a second: only where a calendar is used

    code = text.strip().upper()
    if code not in holidays.list_supported_financial():
        raise ValueError(f"there is no calendar {code!r}; known are MICs such as XNYS and XCME")
    return code


def is_holiday(code: str, day: date) -> bool:
    """Whether the market is closed all day."""
    return day in _calendar(code, "public", day.year)


def is_half_day(code: str, day: date) -> bool:
    """Whether the market closes early."""
    return day in _calendar(code, "half_day", day.year)


@lru_cache(maxsize=64)
def _calendar(code: str, category: str, year: int) -> frozenset[Any]:
    import holidays

    whole = holidays.financial_holidays(code, years=year)
    if category not in whole.supported_categories:
        return frozenset()
    return frozenset(holidays.financial_holidays(code, years=year, categories=(category,)))
