"""Decimal arithmetic for money: bounded, rounding toward zero, never NaN, never an exponent."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import (
    ROUND_DOWN,
    ROUND_UP,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
)
from itertools import pairwise

from brokers.decimals import decimal_text, plain
from brokers.types import Candle

ARITHMETIC = Context(
    prec=50,
    rounding=ROUND_DOWN,
    Emin=-60,
    Emax=60,
    traps=[InvalidOperation, DivisionByZero, Overflow],
)
"""Entered with ``localcontext(ARITHMETIC)``; what leaves its bounds raises DecimalException."""

_SHOWN = Decimal("1E-18")
_SHOWABLE = Decimal("1E+30")


def shown(value: Decimal) -> Decimal:
    """``value`` for people and records: plain, cut after 18 decimals."""
    with localcontext(ARITHMETIC):
        return plain(value.quantize(_SHOWN))


def noted(value: Decimal) -> Decimal | str:
    """``value`` for the record of a decision: ``shown``, or as text where it is not a number."""
    return shown(value) if value.is_finite() and abs(value) < _SHOWABLE else str(value)


def text(value: Decimal) -> str:
    """``shown`` as fixed-point text."""
    return decimal_text(shown(value))


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of ``step`` that is not above ``value`` (neither may be negative)."""
    with localcontext(ARITHMETIC):
        return plain(value // step * step)


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of ``step`` that is not below ``value`` (neither may be negative)."""
    with localcontext(ARITHMETIC):
        return plain((value / step).to_integral_value(rounding=ROUND_UP) * step)


def is_positive(value: Decimal | None) -> bool:
    """Whether ``value`` is a number above zero: neither missing nor NaN nor infinite."""
    return value is not None and value.is_finite() and value > 0


def average_true_range(candles: Sequence[Candle], period: int) -> Decimal | None:
    """The mean true range of the last ``period`` candles, which need one more before them.

    The true range of a candle is its span, stretched to the close before it. ``None`` for too few
    candles, or numbers that are none.
    """
    used = candles[-period - 1 :]
    if len(used) <= period or not all(
        is_positive(one.low) and is_positive(one.close) and one.high >= one.low for one in used
    ):
        return None
    ranges = [
        max(now.high, before.close) - min(now.low, before.close) for before, now in pairwise(used)
    ]
    with localcontext(ARITHMETIC):
        return sum(ranges, Decimal(0)) / period
