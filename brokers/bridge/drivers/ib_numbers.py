"""Numbers of ib_async: floats, with the largest one for "not set"."""

from __future__ import annotations

import sys
from decimal import Decimal

from brokers.decimals import plain

NOT_SET = sys.float_info.max


def decimal(number: object) -> Decimal:
    """A number of TWS by its shortest writing; what is not set, or no number, is nothing."""
    if number is None or number == NOT_SET or number != number:
        return Decimal(0)
    return plain(Decimal(str(number)))
