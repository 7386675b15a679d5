"""What others offer: the quoted price and the depth of each instrument."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from enum import StrEnum

UNLIMITED = Decimal(1_000_000)
"""Quantity shown for a level that is never used up."""


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


@dataclass(frozen=True, slots=True)
class Instrument:
    """Trading rules of one pair. `step`, `minimum`, `maximum` in base units, the rest in quote."""

    base: str
    quote: str
    tick: Decimal
    step: Decimal
    minimum: Decimal
    maximum: Decimal
    minimum_cost: Decimal

    @property
    def symbol(self) -> str:
        return f"{self.base}/{self.quote}"


@dataclass(slots=True)
class Level:
    """One price of the book; `left` is None when the level is never used up."""

    price: Decimal
    left: Decimal | None = None

    @property
    def shown(self) -> Decimal:
        return UNLIMITED if self.left is None else self.left


@dataclass(frozen=True, slots=True)
class Take:
    """A quantity taken from one level of the book."""

    level: Level
    quantity: Decimal

    @property
    def cost(self) -> Decimal:
        return self.level.price * self.quantity


def round_down(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value(ROUND_DOWN) * step


class Market:
    """The book of one instrument as set from outside; our own orders never appear in it."""

    def __init__(self, instrument: Instrument, last: Decimal) -> None:
        self.instrument = instrument
        self.opening = last
        self.quote(last)

    def quote(self, last: Decimal, spread: Decimal | None = None) -> None:
        """Set the last price and an inexhaustible bid and ask around it (default: two ticks)."""
        tick = self.instrument.tick
        half = (tick * 2 if spread is None else spread) / 2
        bid = round_down(last - half, tick)
        ask = ((last + half) / tick).to_integral_value(ROUND_UP) * tick
        self.last = last
        self.bids = [Level(bid)]
        self.asks = [Level(ask)]

    def levels(self, side: Side) -> list[Level]:
        """The levels an order of `side` would take, best first."""
        return self.asks if side is Side.BUY else self.bids

    def best(self, side: Side) -> Decimal | None:
        levels = self.levels(side)
        return levels[0].price if levels else None

    def crosses(self, side: Side, limit: Decimal) -> bool:
        best = self.best(side)
        return best is not None and reaches(side, best, limit)

    def sweep(self, side: Side, quantity: Decimal, limit: Decimal | None) -> list[Take]:
        """What an order for `quantity` base units would take now, without taking it."""
        takes: list[Take] = []
        for level in self.levels(side):
            if quantity <= 0 or (limit is not None and not reaches(side, level.price, limit)):
                break
            part = quantity if level.left is None else min(quantity, level.left)
            takes.append(Take(level, part))
            quantity -= part
        return takes

    def affordable(self, side: Side, budget: Decimal) -> Decimal:
        """Base units, in whole steps, worth `budget` in quote units at the present book."""
        total = Decimal(0)
        for level in self.levels(side):
            part = round_down(budget / level.price, self.instrument.step)
            if level.left is not None:
                part = min(part, level.left)
            total += part
            budget -= part * level.price
        return total

    def consume(self, take: Take) -> None:
        if take.level.left is not None:
            take.level.left -= take.quantity
        self.bids = [level for level in self.bids if level.left is None or level.left > 0]
        self.asks = [level for level in self.asks if level.left is None or level.left > 0]
        self.last = take.level.price


def reaches(side: Side, price: Decimal, limit: Decimal) -> bool:
    """True when `price` is no worse than `limit` for an order of `side`."""
    return price <= limit if side is Side.BUY else price >= limit
