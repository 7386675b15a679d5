"""The admin of limits, switches, allowlists and the audit trail, one file per noun."""

from __future__ import annotations

from risk.admin import accounts, addresses, allowlists, events, limits, switches

__all__ = ["accounts", "addresses", "allowlists", "events", "limits", "switches"]
