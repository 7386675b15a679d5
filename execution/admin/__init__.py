"""The admin of strategies and of what happened, one file per noun."""

from __future__ import annotations

from execution.admin import fills, orders, positions, quarantine, signals, strategies

__all__ = ["fills", "orders", "positions", "quarantine", "signals", "strategies"]
