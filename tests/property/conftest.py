"""Examples are not timed one by one: a busy machine is no counterexample."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fks", deadline=None)
settings.load_profile("fks")
