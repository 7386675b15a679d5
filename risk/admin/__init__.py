"""The admin of limits, switches, proposals, allowlists and the audit trail, one file per noun."""

from __future__ import annotations

from risk.admin import (
    accounts,
    addresses,
    allowlists,
    channels,
    events,
    limits,
    proposals,
    reports,
    switches,
)

__all__ = [
    "accounts",
    "addresses",
    "allowlists",
    "channels",
    "events",
    "limits",
    "proposals",
    "reports",
    "switches",
]
