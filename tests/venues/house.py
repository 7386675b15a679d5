"""How one venue sets up its ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tests.venues.market import Instrument

FEE_QUANTUM = Decimal("0.00000001")


class IdRule(StrEnum):
    """Among which orders a client id must be unique."""

    FOREVER = "forever"
    OPEN = "open"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class House:
    """What one venue starts with: its instruments and prices, fees, ids and opening balances."""

    prices: Mapping[Instrument, Decimal]
    balances: Mapping[str, Decimal]
    maker_fee: Decimal
    taker_fee: Decimal
    order_id: Callable[[int], str]
    trade_id: Callable[[int], str]
    refuses_reached_triggers: bool
