"""The API keys both venues know from the start. They open nothing outside the loopback venue."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

MAIN_ACCOUNT = "main"

BINANCE_KEY = "loopback" * 8
BINANCE_SECRET = "testonly" * 8
KRAKEN_KEY = "loopback" * 7
KRAKEN_SECRET = base64.b64encode(b"loopback venue, not a secret".ljust(64, b".")).decode()


@dataclass(slots=True)
class Credential:
    """One API key: its secret, the account it opens and what it may do (venue's own names)."""

    key: str
    secret: str
    account: str = MAIN_ACCOUNT
    permissions: dict[str, bool] = field(default_factory=dict)
    nonce: int = 0
