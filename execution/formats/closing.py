"""How much of a position an exit asks for, where a sender counts in shares of it."""

from __future__ import annotations

from decimal import Decimal

from execution.formats.brackets import HUNDRED
from risk.types import QuantityType


def share_of_position(percent: Decimal | None) -> tuple[Decimal | None, QuantityType]:
    """``percent`` of the position as an alert's quantity. All of it is no quantity: what closes
    everything overtakes what it makes void.
    """
    if percent is None or percent == HUNDRED:
        return None, QuantityType.BASE
    return percent, QuantityType.PERCENT_OF_POSITION
