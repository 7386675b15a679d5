"""What a rule can be told beside its value: named texts, each read by one small function.

A reader returns the typed value or raises ValueError with a sentence for the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from decimal import Decimal, DecimalException
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named text. An empty ``default`` means it may be left out."""

    name: str
    read: Callable[[str], Any]
    default: str
    help: str


def read_all(parameters: Sequence[Parameter], given: Mapping[str, str]) -> dict[str, Any]:
    """Every parameter typed, with its default where none was given. Raises ValueError."""
    known = {one.name for one in parameters}
    unknown = sorted(set(given) - known)
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        raise ValueError(f"there is no parameter {unknown[0]!r} here; known: {names}")
    return {one.name: _read(one, given.get(one.name, "") or one.default) for one in parameters}


def _read(parameter: Parameter, text: str) -> Any:
    if not text:
        return None
    try:
        return parameter.read(str(text))
    except ValueError as error:
        raise ValueError(f"{parameter.name}: {error}") from error


def seconds(text: str) -> int:
    """1 second to 31 days."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 31 * 86400:
        raise ValueError(f"{text!r} is not a whole number of seconds from 1 to 2678400")
    return number


def share(text: str) -> Decimal:
    """From 0 to below 1."""
    try:
        number = Decimal(text)
    except DecimalException:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 <= number < 1:
        raise ValueError(f"{text!r} is not a fraction from 0 to below 1")
    return number


def names(text: str) -> frozenset[str]:
    """Words separated by spaces or commas, in capitals."""
    found = frozenset(text.upper().replace(",", " ").split())
    if not found:
        raise ValueError("names nothing")
    return found


def zone(text: str) -> ZoneInfo:
    """An IANA time zone such as America/New_York."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{text!r} is not a time zone such as Europe/Zurich") from error


def clock(text: str) -> time:
    """A time of day, HH:MM."""
    try:
        found = time.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time of day such as 09:30") from error
    if found.tzinfo is not None:
        raise ValueError(f"{text!r} names an offset: write 09:30, and the time zone in `zone`")
    return found


def days(text: str) -> frozenset[int]:
    """Weekdays from 0 for Monday: ``mon-fri``, ``sun-thu`` or ``mon,wed,fri``."""
    found: set[int] = set()
    for part in text.lower().replace(",", " ").split():
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"{part!r} is not a weekday such as mon, or a range such as mon-fri")
        start, end = DAYS.index(first), DAYS.index(last or first)
        found.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    if not found:
        raise ValueError("names no weekday")
    return frozenset(found)


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes one of ``choices``."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return read
