"""How decimals are written and kept: exact at any length, whatever the arithmetic context."""

from __future__ import annotations

from decimal import Decimal


def decimal_text(value: Decimal) -> str:
    """``value`` as shown and sent: fixed point, no exponent, no trailing zeros, no minus zero."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def plain(value: Decimal) -> Decimal:
    """``value`` without trailing zeros and without a positive exponent: 100, not 1E+2 nor 100.00.

    No digit is ever rounded away; NaN and infinities come back as they are.
    """
    return Decimal(decimal_text(value))
