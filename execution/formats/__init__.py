"""Senders' formats: one file each, ``parse(document)`` gives the canonical alert."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from execution.alerts import Alert
from execution.formats import fks

PARSERS: dict[str, Callable[[Mapping[str, Any]], Alert]] = {"fks": fks.parse}
