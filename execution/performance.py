"""What trading brought: round trips and their figures. Pure arithmetic on Decimals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

ZERO = Decimal(0)
DUST = Decimal("0.005")
"""What may be left of a position that counts as closed, as a share of its peak: fees in the coin."""

Lane = tuple[str, ...]
"""Whose position: an account's in a symbol, or one strategy's part of it."""


@dataclass(frozen=True, slots=True)
class Traded:
    """One fill. ``quantity`` is signed (+ bought), less a fee taken in the coin; ``realised`` is in
    the quote asset, fees taken off.
    """

    lane: Lane
    at: datetime
    quantity: Decimal
    realised: Decimal


@dataclass(frozen=True, slots=True)
class Trip:
    """A position from flat to flat, and what it brought in the quote asset."""

    lane: Lane
    closed_at: datetime
    result: Decimal


@dataclass(frozen=True, slots=True)
class Figures:
    """What round trips add up to. ``None`` where there is nothing to divide by."""

    trips: int
    wins: int
    result: Decimal
    expectancy: Decimal | None
    profit_factor: Decimal | None

    @property
    def win_rate(self) -> Decimal | None:
        """From 0 to 1."""
        return Decimal(self.wins) / self.trips if self.trips else None


@dataclass(frozen=True, slots=True)
class Point:
    """The result so far, after the trades up to ``at``."""

    at: datetime
    total: Decimal


def trips(trades: Iterable[Traded], held: Mapping[Lane, Decimal] | None = None) -> list[Trip]:
    """The round trips that ended, in the order they did. ``trades`` come in the order they happened;
    ``held`` is what each lane held before the first, nothing unless named.

    A position turned over in one trade ends one trip and begins the next; the trade's result belongs
    to the one it ends.
    """
    lanes, ended = _Lanes(held or {}), []
    for trade in trades:
        result = lanes.book(trade.lane, trade)
        if result is not None:
            ended.append(Trip(trade.lane, trade.at, result))
    return ended


def trips_of_parts(
    trades: Iterable[Traded], held: Mapping[Lane, Decimal] | None = None
) -> list[Trip]:
    """As ``trips``, of parts of positions: the last of a lane's names says whose part it is. A part
    ends by its own trades, and with the whole position, whoever closed that.
    """
    parts = _parts_of_open(held or {})
    wholes = _Lanes({place: _total(lanes.values()) for place, lanes in parts.items()})
    under_way = defaultdict(_Lanes, {place: _Lanes(lanes) for place, lanes in parts.items()})
    ended = []
    for trade in trades:
        place = trade.lane[:-1]
        mine = under_way[place]
        result = mine.book(trade.lane, trade)
        if result is not None:
            ended.append(Trip(trade.lane, trade.at, result))
        if wholes.book(place, trade) is None:
            continue
        if result is not None:
            mine.pop(trade.lane, None)  # what it turned over is the whole's, below
        ended += [Trip(lane, trade.at, part.result) for lane, part in mine.items()]
        turned_over = {trade.lane: wholes[place].held} if place in wholes else {}
        under_way[place] = _Lanes(turned_over)
    return ended


def _parts_of_open(held: Mapping[Lane, Decimal]) -> dict[Lane, dict[Lane, Decimal]]:
    """The parts of each position. Those that add up to nothing are left out: it was closed before."""
    parts: defaultdict[Lane, dict[Lane, Decimal]] = defaultdict(dict)
    for lane, quantity in held.items():
        parts[lane[:-1]][lane] = quantity
    return {
        place: lanes
        for place, lanes in parts.items()
        if abs(_total(lanes.values())) > DUST * max(map(abs, lanes.values()))
    }


def _total(quantities: Iterable[Decimal]) -> Decimal:
    return sum(quantities, ZERO)


class _Lanes(dict[Lane, "_UnderWay"]):
    """The trips under way, by lane."""

    def __init__(self, held: Mapping[Lane, Decimal] = MappingProxyType({})) -> None:
        super().__init__({lane: _UnderWay(quantity) for lane, quantity in held.items() if quantity})

    def book(self, lane: Lane, trade: Traded) -> Decimal | None:
        """What the trip brought that ``trade`` ends, if it ends one; a rest begins the next."""
        trip = self.setdefault(lane, _UnderWay())
        if not trip.ends_with(trade):
            return None
        del self[lane]
        if abs(trip.held) > DUST * trip.peak:
            self[lane] = _UnderWay(trip.held)
        return trip.result


class _UnderWay:
    """A trip that has not ended."""

    def __init__(self, held: Decimal = ZERO) -> None:
        self.held = held
        self.peak = abs(held)
        self.result = ZERO

    def ends_with(self, trade: Traded) -> bool:
        """Book ``trade``; whether that closes the position or turns it over."""
        before = self.held
        self.held += trade.quantity
        self.result += trade.realised
        turned_over = before * self.held < 0
        if not turned_over:
            self.peak = max(self.peak, abs(self.held))
        return turned_over or (before != 0 and abs(self.held) <= DUST * self.peak)


def figures(ended: Sequence[Trip]) -> Figures:
    """Of round trips that are all counted in one currency."""
    gains = sum((trip.result for trip in ended if trip.result > 0), ZERO)
    losses = sum((trip.result for trip in ended if trip.result < 0), ZERO)
    total = gains + losses
    return Figures(
        trips=len(ended),
        wins=sum(trip.result > 0 for trip in ended),
        result=total,
        expectancy=total / len(ended) if ended else None,
        profit_factor=gains / -losses if losses else None,
    )


def curve(trades: Iterable[Traded]) -> list[Point]:
    """The realised result after each trade, fees taken off."""
    points, total = [], ZERO
    for trade in trades:
        total += trade.realised
        points.append(Point(trade.at, total))
    return points


def deepest_drawdown(points: Sequence[Point]) -> Decimal:
    """The most the result fell below its highest before, which is at least zero."""
    deepest = peak = ZERO
    for point in points:
        peak = max(peak, point.total)
        deepest = max(deepest, peak - point.total)
    return deepest
