"""The API keys the venues know from the start. They open nothing outside the loopback venue."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

MAIN_ACCOUNT = "main"

BINANCE_KEY = "loopback" * 8
BINANCE_SECRET = "testonly" * 8
KRAKEN_KEY = "loopback" * 7
KRAKEN_SECRET = base64.b64encode(b"loopback venue, not a secret".ljust(64, b".")).decode()
BYBIT_KEYS = {"spot": "loopbackBybitSpot0", "linear": "loopbackBybitLine0"}
BYBIT_SECRET = "testonly" * 4 + "bybt"
OKX_KEYS = {
    "SPOT": "0badc0de-0000-4000-8000-loopback0000",
    "SWAP": "0badc0de-0000-4000-8000-loopback0001",
}
OKX_SECRET = "TESTONLY" * 4
ALPACA_KEY = "PKLOOPBACKLOOPBACK00"
ALPACA_SECRET = "testonly" * 5
OANDA_TOKEN = "loopback0oanda0token-testonly"
PROJECTX_KEY = "loopbackProjectXKey-testonly="
PROJECTX_USER = "loopback-user"
SCHWAB_KEY = "loopbackSchwabAppKey"
SCHWAB_SECRET = "testonlySchwab00"
SCHWAB_TOKEN = "loopback-access-token-testonly"
OKX_PASSPHRASE = "loopback-Passphrase-1"


@dataclass(slots=True)
class Credential:
    """One API key: its secret, the account it opens and what it may do (venue's own names)."""

    key: str
    secret: str
    account: str = MAIN_ACCOUNT
    permissions: dict[str, bool] = field(default_factory=dict)
    nonce: int = 0
    passphrase: str = ""
