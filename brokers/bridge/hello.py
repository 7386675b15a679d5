"""The handshake of both ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from brokers.capabilities import Capabilities


@dataclass(frozen=True, slots=True)
class Hello:
    """How the agent introduces itself and the terminal it is on."""

    protocol: int
    version: str
    driver: str
    account: str
    is_live: bool
    dry_run: bool
    capabilities: Capabilities
    now: datetime
