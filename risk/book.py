"""What our own book says beyond the traded symbol, as frozen values for the rules that ask.

Values are in the account's currency. What was not gathered, or is not known, is ``None``: a rule that
needs it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.types import Side


LOOKED_BACK = 100
"""A streak is counted over no more orders."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is at stake in one symbol of one account: the position (negative for a short) at the last
    known price, and what working orders may still buy and sell. ``None``: no price is known.
    """

    account_id: int
    symbol: str
    held: Decimal | None
    buying: Decimal
    selling: Decimal


@dataclass(frozen=True, slots=True)
class Resting:
    """The limit price of an own order that rests at the venue, in any account there."""

    side: Side
    price: Decimal


@dataclass(frozen=True, slots=True)
class Recent:
    """An entry decided lately in the same lane, with what it was asked as."""

    side: Side
    quantity: Decimal
    price: Decimal | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Streak:
    """How many ended badly in a row, and when the last one did."""

    count: int
    last_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """The account's own day so far. ``unrealised`` is the change of open positions since it began;
    ``best`` is the best result (both together) seen in it, at least zero.
    """

    realised: Decimal
    unrealised: Decimal | None
    best: Decimal

    @property
    def result(self) -> Decimal | None:
        return None if self.unrealised is None else self.realised + self.unrealised


@dataclass(frozen=True, slots=True)
class Seen:
    """A price that was seen earlier."""

    price: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class Book:
    """Gathered on demand; each field is named by the rules that need it.

    ``entries_within`` maps a window in seconds to the number of the strategy's entries in it, since it
    was last released by an operator. ``free_funds`` is what the venue calls free, less what was
    reserved since it said so.
    """

    account_id: int = 0
    previous: Seen | None = None
    exposures: tuple[Exposure, ...] | None = None
    strategy_exposures: tuple[Exposure, ...] | None = None
    symbol_orders: int | None = None
    resting: tuple[Resting, ...] | None = None
    recent: tuple[Recent, ...] | None = None
    entries_within: Mapping[int, int] | None = None
    rejects: Streak | None = None
    losses: Streak | None = None
    day: Day | None = None
    free_funds: Decimal | None = None
    leverage: Decimal = Decimal(1)
