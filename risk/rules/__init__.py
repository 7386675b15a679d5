"""The limits an operator can set, one pure function each, gathered in ``RULES``."""

from __future__ import annotations

from risk.rules import conduct, exposure, hours, loss, market, order
from risk.rules.registry import RULES, Rule, Start, Unit

__all__ = [
    "RULES",
    "Rule",
    "Start",
    "Unit",
    "conduct",
    "exposure",
    "hours",
    "loss",
    "market",
    "order",
]
