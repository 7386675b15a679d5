"""How the 32 hex digits of an order's identity are written for a venue, always reversibly enough to
compare: the same identity always gives the same text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping

IDENTITY = re.compile(r"[0-9a-f]{32}")


def hex_digits(identity: str) -> str:
    """The identity unchanged, for venues that take 32 hex digits. Raises ValueError."""
    if not IDENTITY.fullmatch(identity):
        raise ValueError("an order identity is 32 lowercase hex digits")
    return identity


def prefixed_hex(identity: str) -> str:
    """A 128-bit number in hex with its prefix, as Hyperliquid's cloid."""
    return f"0x{hex_digits(identity)}"


def short_text(identity: str) -> str:
    """The first 26 digits behind the ``t-`` that Gate demands; ccxt takes 28 characters in all."""
    return f"t-{hex_digits(identity)[:26]}"


def letters_and_digits(identity: str) -> str:
    """``fks`` and all 128 bits in base 32, lower case: 29 characters, the most MetaTrader 5 takes in a
    comment, and a file name everywhere."""
    text = base64.b32encode(bytes.fromhex(hex_digits(identity))).decode()
    return f"fks{text.rstrip('=').lower()}"


CLIENT_ID_FORMS: Mapping[str, Callable[[str], str]] = {
    "hex": hex_digits,
    "0x hex": prefixed_hex,
    "t- and 26 hex": short_text,
}
