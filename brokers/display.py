"""How numbers, times and environments look on pages, on all floors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from django.db import models
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers.decimals import decimal_text
from brokers.types import Environment

EMPTY = "–"
MOST_DIGITS = 10
"""Of a price that was divided, which leaves eighteen behind the point."""
_CENT = Decimal("0.01")
ENVIRONMENT_COLORS = {
    Environment.DRY_RUN.value: "info",
    Environment.SANDBOX.value: "warning",
    Environment.LIVE.value: "danger",
}
Column = Callable[[Any], SafeString | str]


def number(value: Decimal | None, *, signed: bool = False) -> SafeString | str:
    """Fixed point without trailing zeros; ``signed`` marks gains and losses."""
    return EMPTY if value is None else _number(value, decimal_text(value), signed=signed)


def money(value: Decimal | None, *, signed: bool = True) -> SafeString | str:
    """An amount to the cent; hovering shows it exactly. Less than a cent is shown exactly."""
    if value is None:
        return EMPTY
    cents = value.quantize(_CENT, rounding=ROUND_HALF_EVEN)
    if not cents:
        return number(value, signed=signed)
    return _number(value, format(cents, "f"), signed=signed)


def average(value: Decimal | None) -> SafeString | str:
    """A computed price to ten digits, to the cent at least; hovering shows it exactly."""
    if value is None:
        return EMPTY
    places = max(MOST_DIGITS - 1 - value.adjusted(), 2)
    short = round(value, places)
    return _number(value, decimal_text(short), signed=False)


def _number(value: Decimal, text: str, *, signed: bool) -> SafeString:
    tone = ""
    if signed and value:
        tone = " fks-gain" if value > 0 else " fks-loss"
        text = f"+{text}" if value > 0 else text
    exact = decimal_text(value)
    return format_html('<span class="fks-number{}" title="{}">{}</span>', tone, exact, text)


def clock(value: datetime | None, now: datetime) -> SafeString | str:
    """The time of day in UTC, with milliseconds; the date as well when it is not ``now``'s."""
    if value is None:
        return EMPTY
    utc = value.astimezone(UTC)
    day = "" if utc.date() == now.astimezone(UTC).date() else f"{utc:%Y-%m-%d} "
    return _time(utc, f"{day}{utc:%H:%M:%S}.{utc.microsecond // 1000:03}")


def moment(value: datetime | None) -> SafeString | str:
    """UTC to the second; hovering shows the microseconds."""
    if value is None:
        return EMPTY
    utc = value.astimezone(UTC)
    return _time(utc, f"{utc:%Y-%m-%d %H:%M:%S}")


def _time(utc: datetime, text: str) -> SafeString:
    return format_html(
        '<time class="fks-time" datetime="{}" title="{} UTC">{}</time>',
        utc.isoformat(),
        f"{utc:%Y-%m-%d %H:%M:%S.%f}",
        text,
    )


def number_column(field: str, label: str = "", *, signed: bool = False) -> Any:
    """A list column of one money field."""

    def column(row: models.Model) -> SafeString | str:
        return number(getattr(row, field), signed=signed)

    return _named(column, field, label)


def average_column(field: str, label: str = "") -> Any:
    """A list column of one computed price."""

    def column(row: models.Model) -> SafeString | str:
        return average(getattr(row, field))

    return _named(column, field, label)


def moment_column(field: str, label: str = "") -> Any:
    """A list column of one time."""

    def column(row: models.Model) -> SafeString | str:
        return moment(getattr(row, field))

    return _named(column, field, label)


def _named(column: Column, field: str, label: str) -> Any:
    """The name becomes the CSS class of the cells, the description the heading."""
    column.__name__ = field
    column.short_description = label or field.replace("_", " ")  # type: ignore[attr-defined]
    return column
