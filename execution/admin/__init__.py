"""The admin of strategies and of what happened, one file per noun."""

from __future__ import annotations

from execution.admin import (
    accounts,
    alarms,
    differences,
    fills,
    orders,
    positions,
    protections,
    quarantine,
    signals,
    spreads,
    strategies,
)

__all__ = [
    "accounts",
    "alarms",
    "differences",
    "fills",
    "orders",
    "positions",
    "protections",
    "quarantine",
    "signals",
    "spreads",
    "strategies",
]
