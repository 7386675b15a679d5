"""The admin of accounts and symbols, one file per noun."""

from __future__ import annotations

from brokers.admin import accounts, symbols

__all__ = ["accounts", "symbols"]
