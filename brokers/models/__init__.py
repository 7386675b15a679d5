"""Accounts at venues, their credentials, and what is known of their symbols."""

from __future__ import annotations

from brokers.models.accounts import (
    Account,
    AccountLogin,
    AccountRestriction,
    ExchangeCredential,
    broker_choices,
    validate_name,
    validate_zone,
)
from brokers.models.instruments import Instrument, SymbolAlias
from brokers.models.paper import PaperBalance, PaperFill, PaperOrder, PaperPrice, PaperScript

__all__ = [
    "Account",
    "AccountLogin",
    "AccountRestriction",
    "ExchangeCredential",
    "Instrument",
    "PaperBalance",
    "PaperFill",
    "PaperOrder",
    "PaperPrice",
    "PaperScript",
    "SymbolAlias",
    "broker_choices",
    "validate_name",
    "validate_zone",
]
