"""What a swap account shall trade with: leverage and margin mode, set and checked before an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brokers.errors import ConfigurationError
from brokers.exchanges import VERIFIED, ExchangeProfile

CROSS, ISOLATED = "cross", "isolated"
MOST = 125
OPTION_FIELDS = {
    "leverage": "Swaps: a whole number, set at the venue and read back before the first order of "
    "each symbol; without it the venue's own stays",
    "margin_mode": "Swaps: cross or isolated, set at the venue where a symbol has its own; without it "
    "a symbol that is not in cross margin is refused",
}


@dataclass(frozen=True, slots=True)
class MarginTerms:
    """``leverage`` is ``None`` where the venue's own stays. ``sets_mode``: the account names its mode,
    so that a market in the other one is brought to it; else it is refused."""

    leverage: int | None = None
    margin_mode: str = CROSS
    sets_mode: bool = False


def margin_terms(options: Mapping[str, Any], profile: ExchangeProfile) -> MarginTerms:
    """The terms an account's options ask for. Raises ConfigurationError."""
    given = [name for name in OPTION_FIELDS if name in options]
    known = profile.tier == VERIFIED or profile.margin
    if given and (profile.market_type == "spot" or not known):
        raise ConfigurationError(f"{profile.label}: {given[0]} is not set by FKS there")
    leverage, mode = options.get("leverage"), options.get("margin_mode", CROSS)
    if leverage is not None and (type(leverage) is not int or not 1 <= leverage <= MOST):
        raise ConfigurationError(f"leverage must be a whole number from 1 to {MOST}")
    if mode not in (CROSS, ISOLATED):
        raise ConfigurationError(f"margin_mode must be {CROSS} or {ISOLATED}")
    if leverage is not None and profile.margin and mode not in profile.margin["leverage"]:
        raise ConfigurationError(f"{profile.label} takes no leverage in {mode} margin")
    return MarginTerms(leverage, mode, "margin_mode" in options)
