"""How long a placement may take and how late an order may turn up, per account.

The profile of an exchange says what was proven. An account may be more patient (its gateway is
slow), never less: a shorter settle window would call an order absent that is only late. A venue on
this machine keeps no such promises and may be given any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from brokers.capabilities import Capabilities
from brokers.errors import ConfigurationError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
LONGEST = 3600
"""Seconds; beyond this an order would be without a word for hours."""
OPTION_FIELDS = {
    "submit_timeout": "Whole seconds after which a placement is given up and looked for; more than "
    "the exchange's own value, or anything with a base_url on this machine",
    "settle_window": "Whole seconds within which a placed order may still turn up at the venue; "
    "more than the exchange's own value, or anything with a base_url on this machine",
}


def timed(capabilities: Capabilities, options: Mapping[str, Any]) -> Capabilities:
    """``capabilities`` with the account's own seconds. Raises ConfigurationError."""
    rehearsal = parts_of("base_url", str(options.get("base_url", ""))).hostname in LOOPBACK
    return replace(
        capabilities,
        submit_timeout=_seconds(options, "submit_timeout", capabilities.submit_timeout, rehearsal),
        settle_window=_seconds(options, "settle_window", capabilities.settle_window, rehearsal),
    )


def parts_of(option: str, url: str) -> SplitResult:
    """The address an account's ``option`` names, taken apart. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read, and refused, when it is asked for
    except ValueError as error:
        raise ConfigurationError(f"{option} is no address: {error}") from error
    return parts


def _seconds(options: Mapping[str, Any], name: str, proven: int, rehearsal: bool) -> int:
    value = options.get(name, proven)
    least = 1 if rehearsal else proven
    if type(value) is not int or not least <= value <= LONGEST:
        raise ConfigurationError(f"{name} must be whole seconds from {least} to {LONGEST}")
    return value
