"""Options of an account, read and checked: what is not understood is refused, never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, DecimalException
from typing import Any

from brokers.errors import ConfigurationError


def choice(options: Mapping[str, Any], name: str, default: str, known: Sequence[str]) -> str:
    """One of ``known``. Raises ConfigurationError."""
    value = options.get(name, default)
    if value not in known:
        raise ConfigurationError(f"option {name} is one of {', '.join(known)}")
    return str(value)


def flag(options: Mapping[str, Any], name: str) -> bool:
    """True or false, false unless given. Raises ConfigurationError."""
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"option {name} is true or false")
    return value


def basis_points(options: Mapping[str, Any], name: str, default: str) -> Decimal:
    """A share of a trade's value, from 0 to 1000 hundredths of a percent. Raises ConfigurationError."""
    given = options.get(name, default)
    try:
        number = Decimal(str(given))
    except DecimalException:
        number = Decimal("NaN")
    if isinstance(given, bool) or not number.is_finite() or not 0 <= number <= 1000:
        raise ConfigurationError(f"option {name} must lie from 0 to 1000 basis points")
    return number
