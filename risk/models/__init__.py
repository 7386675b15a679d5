"""Limits, switches, breakers, allowlists, the audit trail: what operators set, and what was done."""

from __future__ import annotations

from risk.channels import Channel, Notice
from risk.models.addresses import (
    AllowedNetwork,
    ClientAddress,
    IPAllowlist,
    RateLimit,
    validate_network,
)
from risk.models.audit import AuditChain, AuditEvent
from risk.models.breakers import BreakerEvent, CircuitBreaker
from risk.models.limits import LimitHit, RiskLimit, RiskPolicy, RiskReport
from risk.models.logins import RecoveryCode, SecondFactor, SignOut
from risk.models.proposals import Proposal, Safeguards
from risk.models.switch import TradingState

__all__ = [
    "AllowedNetwork",
    "AuditChain",
    "AuditEvent",
    "BreakerEvent",
    "Channel",
    "CircuitBreaker",
    "ClientAddress",
    "IPAllowlist",
    "LimitHit",
    "Notice",
    "Proposal",
    "RateLimit",
    "RecoveryCode",
    "RiskLimit",
    "RiskPolicy",
    "RiskReport",
    "Safeguards",
    "SecondFactor",
    "SignOut",
    "TradingState",
    "validate_network",
]
