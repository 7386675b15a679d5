"""Where the stop of a position belongs by now: at break-even, or behind the market. Pure.

A stop only ever moves in the position's favour, and only to where the market has not been passed yet:
one that would trigger at once is not moved there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from brokers.types import Side
from risk.arithmetic import ARITHMETIC, shown, text

HUNDRED = Decimal(100)
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a strategy wants of its stops. Percents as 2 for 2 %, ``distance`` in the quote asset;
    ``None`` switches one off. ``step`` is the least move, in percent of the market's price.
    """

    trail_percent: Decimal | None = None
    trail_distance: Decimal | None = None
    step: Decimal = ZERO
    break_even_percent: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A guarded position: the side of its entry, its average price, its stop, and where it could be
    closed now. ``fee_rate`` is what its entry paid in fees, as a share of what it traded.
    """

    side: Side
    average_price: Decimal
    stop: Decimal
    market: Decimal
    fee_rate: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Move:
    """A better place for the stop, and why."""

    stop: Decimal
    why: str


@dataclass(frozen=True, slots=True)
class Paid:
    """One fill of the entry, its fee in the quote asset."""

    quantity: Decimal
    price: Decimal
    fee: Decimal


def fee_rate(fills: Sequence[Paid]) -> Decimal:
    """Fees ÷ what was traded; nothing without fills."""
    with localcontext(ARITHMETIC):
        traded = sum((one.quantity * one.price for one in fills), ZERO)
        fees = sum((one.fee for one in fills), ZERO)
        return shown(max(fees, ZERO) / traded) if traded > 0 else ZERO


def better_stop(held: Held, rules: Rules) -> Move | None:
    """The best place the rules name, if it is better than where the stop is; else ``None``."""
    with localcontext(ARITHMETIC):
        moves = [move for move in (_trailed(held, rules), _at_break_even(held, rules)) if move]
        return max(moves, key=lambda move: move.stop * held.side.sign, default=None)


def _trailed(held: Held, rules: Rules) -> Move | None:
    if rules.trail_percent is not None:
        distance = held.market * rules.trail_percent / HUNDRED
        why = f"trails {text(rules.trail_percent)} % behind {text(held.market)}"
    elif rules.trail_distance is not None:
        distance = rules.trail_distance
        why = f"trails {text(distance)} behind {text(held.market)}"
    else:
        return None
    least = held.market * rules.step / HUNDRED
    return _move(held, held.market - distance * held.side.sign, why, least)


def _at_break_even(held: Held, rules: Rules) -> Move | None:
    if rules.break_even_percent is None:
        return None
    gained = (held.market - held.average_price) * held.side.sign
    if gained < held.average_price * rules.break_even_percent / HUNDRED:
        return None
    # The way out is taken to cost what the way in did.
    stop = held.average_price * (1 + 2 * held.fee_rate * held.side.sign)
    return _move(held, stop, f"break-even: entry {text(held.average_price)} plus fees", ZERO)


def _move(held: Held, stop: Decimal, why: str, least: Decimal) -> Move | None:
    stop = shown(stop)
    gain = (stop - held.stop) * held.side.sign
    is_passed = (held.market - stop) * held.side.sign <= 0
    if stop <= 0 or gain <= 0 or gain < least or is_passed:
        return None
    return Move(stop, why)
