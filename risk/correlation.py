"""Which signal the code that runs now works for: one id from the alert to its fills, in the audit
trail and on every log line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("correlation", default="")


@contextmanager
def concerning(signal_id: object) -> Iterator[None]:
    """Everything recorded or logged inside belongs to the story of this signal."""
    token = _current.set(str(signal_id or ""))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> str:
    """The id of that signal; empty when the code works for none."""
    return _current.get()
