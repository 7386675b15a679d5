"""The admin of limits, switches, allowlists and the audit trail, one file per noun."""

from __future__ import annotations

from risk.admin import accounts, allowlists, events, limits, switches

__all__ = ["accounts", "allowlists", "events", "limits", "switches"]
