"""The rules that limits can be set for, by name, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from enum import StrEnum

from risk.arithmetic import shown, text
from risk.types import Facts, Intent, Limit, ReasonCode, Size, Verdict

Judge = Callable[[Limit, Intent, Size, Facts], Verdict]


class Unit(StrEnum):
    """What a limit's value counts."""

    MONEY = "account currency"
    FRACTION = "fraction of equity"
    ORDERS = "orders"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``default`` is what a form suggests; a rule without a limit row judges nothing."""

    name: str
    label: str
    unit: Unit
    default: Decimal
    help: str
    judge: Judge


RULES: dict[str, Rule] = {}


def rule(name: str, *, label: str, unit: Unit, default: str, help: str) -> Callable[[Judge], Judge]:
    """Register a rule under ``name``, whose capitals are its reason code.

    The function judges entries only: exits pass every rule. Numbers that cannot be compared fail.
    """
    code = ReasonCode(name.upper())

    def register(function: Judge) -> Judge:
        def judge(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
            if intent.is_exit:
                return Verdict(name, True, "exits pass", mode=limit.mode)
            try:
                return function(limit, intent, size, facts)
            except DecimalException:
                return failed(limit, code, "the numbers cannot be compared")

        RULES[name] = Rule(name, label, unit, Decimal(default), help, judge)
        return judge

    return register


def failed(limit: Limit, code: ReasonCode, detail: str) -> Verdict:
    """The verdict where nothing could be measured: what is not known does not pass."""
    return Verdict(limit.rule, False, detail, code, limit.mode, {"limit": str(limit.value)})


def compared(
    limit: Limit,
    what: str,
    measured: Decimal,
    allowed: Decimal,
    **numbers: Decimal,
) -> Verdict:
    """Pass when ``measured`` is at most ``allowed``; the sentence calls it ``what``."""
    passed = measured <= allowed
    bound = f"{'within' if passed else 'above'} the limit of {text(allowed)}"
    return Verdict(
        rule=limit.rule,
        passed=passed,
        detail=f"{what} {text(measured)} is {bound} ({limit.scope})",
        code=None if passed else ReasonCode(limit.rule.upper()),
        mode=limit.mode,
        numbers={
            "measured": shown(measured),
            "allowed": shown(allowed),
            "limit": limit.value,
            **{name: shown(value) for name, value in numbers.items()},
        },
    )


def known_equity(facts: Facts) -> Decimal | None:
    """Equity as a number; ``None`` when it is not known."""
    return facts.equity if facts.equity is not None and facts.equity.is_finite() else None
