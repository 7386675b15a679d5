"""Reading raw answers strictly: what has not the promised shape is no answer at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from brokers.decimals import plain
from brokers.errors import QueryFailedError
from brokers.types import FillReport, FundingReport

Row = Mapping[str, Any]


def at(answer: Any, path: str) -> Any:
    """The member at a dotted path, ``None`` where there is none."""
    for name in path.split(".") if path else ():
        if isinstance(answer, list) and name.isdigit() and int(name) < len(answer):
            answer = answer[int(name)]
        elif isinstance(answer, Mapping):
            answer = answer.get(name)
        else:
            return None
    return answer if path else None


def row(value: object, name: str = "") -> Row:
    """``value`` (or its member ``name``) as a mapping. Raises QueryFailedError."""
    found = member(row(value), name) if name else value
    if not isinstance(found, Mapping):
        raise QueryFailedError(f"unreadable answer: {name or 'no object'}")
    return found


def rows(value: object) -> list[Row]:
    """``value`` as a list of mappings. Raises QueryFailedError."""
    if not isinstance(value, list):
        raise QueryFailedError("unreadable answer: no list")
    return [row(item) for item in value]


def member(value: Row, name: str) -> Any:
    if name not in value:
        raise QueryFailedError(f"unreadable answer: {name} is missing")
    return value[name]


def text(value: Row, name: str) -> str:
    """A non-empty text or an integer id, as text. Raises QueryFailedError."""
    found = member(value, name)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise QueryFailedError(f"unreadable answer: {name} is no text")
    return str(found)


def number(value: Row, name: str) -> Decimal:
    """An exact number; one that came through a float is refused. Raises QueryFailedError."""
    try:
        found = Decimal(text(value, name))
    except InvalidOperation:
        raise QueryFailedError(f"unreadable answer: {name} is no number") from None
    if not found.is_finite():
        raise QueryFailedError(f"unreadable answer: {name} is no number")
    return found


def number_if_told(value: Row, name: str) -> Decimal | None:
    """As ``number``; ``None`` where it is missing or empty. Raises QueryFailedError."""
    return None if value.get(name) in (None, "") else number(value, name)


def smallest(*limits: Decimal | None) -> Decimal | None:
    """The tightest of a venue's limits; ``None`` and zero are none."""
    known = [limit for limit in limits if limit]
    return plain(min(known)) if known else None


def moment(value: Row, name: str, *, per_second: int = 1) -> datetime:
    """A UTC time from a Unix time in 1/``per_second`` seconds. Raises QueryFailedError."""
    try:
        seconds = Decimal(str(member(value, name))) / per_second
        return datetime.fromtimestamp(float(seconds), UTC)
    except (InvalidOperation, ValueError, OverflowError):
        raise QueryFailedError(f"unreadable answer: {name} is no time") from None


def iso_moment(value: Row, name: str) -> datetime:
    """A UTC time from ISO 8601 text with its zone; digits beyond microseconds are cut off.

    Raises QueryFailedError.
    """
    said = re.sub(r"(\.\d{6})\d+", r"\1", text(value, name))
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise QueryFailedError(f"unreadable answer: {name} is no time") from None
    if at.tzinfo is None:
        raise QueryFailedError(f"unreadable answer: {name} has no time zone")
    return at.astimezone(UTC)


def once(payments: Iterable[FundingReport]) -> tuple[FundingReport, ...]:
    """``payments`` oldest first, each once: pages may overlap."""
    known = {one.payment_id: one for one in payments}
    return tuple(sorted(known.values(), key=lambda one: one.at))


def distinct(fills: Iterable[FillReport]) -> tuple[FillReport, ...]:
    """``fills`` oldest first, each trade once: a venue may list one twice."""
    known = {fill.trade_id: fill for fill in fills}
    return tuple(sorted(known.values(), key=lambda fill: fill.at))
