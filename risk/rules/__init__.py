"""The limits an operator can set, one pure function each, gathered in ``RULES``."""

from __future__ import annotations

from risk.rules import exposure, loss, order
from risk.rules.registry import RULES, Rule, Unit

__all__ = ["RULES", "Rule", "Unit", "exposure", "loss", "order"]
