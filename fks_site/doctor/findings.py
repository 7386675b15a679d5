"""What the doctor says: a thing that is wrong, or soon may be, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of what is, one of what to do. A warning leaves the exit status at 0."""

    what: str
    then: str
    is_warning: bool = False


Findings = Iterator[Finding]
Check = Callable[[], Findings]


def ago(age: timedelta) -> str:
    """An age as people say it: ``12 s``, ``7 min``, ``3 h``, ``2 days``."""
    seconds = max(int(age.total_seconds()), 0)
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
