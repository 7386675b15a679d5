"""Whether this process was told to stop.

What goes from one piece of work to the next then ends with the piece it is at. The rest stays on its
rows, for another worker or the next start: a queue that never empties must not hold up the end.
"""

from __future__ import annotations

_has_begun = False


def begin() -> None:
    """From now on nothing new is taken up. Safe in a signal handler."""
    global _has_begun
    _has_begun = True


def has_begun() -> bool:
    return _has_begun
