"""The rules that limits can be set for, by name, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException
from enum import StrEnum
from typing import Any

from risk.arithmetic import shown, text
from risk.rules.parameters import Parameter, read_all
from risk.types import Facts, Intent, Limit, ReasonCode, Size, Verdict

Judge = Callable[[Limit, Intent, Size, Facts, Mapping[str, Any]], Verdict]
"""The last argument holds the limit's parameters, typed, defaults filled in."""


class Unit(StrEnum):
    """What a limit's value counts."""

    MONEY = "account currency"
    QUANTITY = "base asset"
    FRACTION = "fraction of equity"
    PRICE_FRACTION = "fraction of the price"
    FUNDS_FRACTION = "fraction of free funds"
    TIMES_EQUITY = "times equity"
    ORDERS = "orders"
    TIMES = "times in a row"
    MESSAGES = "messages"
    SECONDS = "seconds"
    MINUTES = "minutes"
    SWITCH = "1 is on"

    @property
    def is_fraction(self) -> bool:
        return self in _FRACTIONS

    @property
    def is_time(self) -> bool:
        return self in (Unit.SECONDS, Unit.MINUTES)

    @property
    def is_whole(self) -> bool:
        return self in _WHOLE


_FRACTIONS = (Unit.FRACTION, Unit.PRICE_FRACTION, Unit.FUNDS_FRACTION)
_WHOLE = (Unit.ORDERS, Unit.TIMES, Unit.MESSAGES, Unit.SECONDS, Unit.MINUTES, Unit.SWITCH)


class Start(StrEnum):
    """What a new installation does with a rule: enforce its default, observe it, or leave it out."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    UNSET = "unset"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``default`` is what a form suggests; a rule without a limit row judges nothing.

    ``needs`` names the fields of ``Book`` it asks for. Where ``more_is_stricter``, a larger value
    refuses more. A rule that ``halts`` switches the strategy off when it denies. A ``portfolio`` rule
    looks beyond the account, so decisions under it are made one at a time.
    """

    name: str
    label: str
    unit: Unit
    default: Decimal
    help: str
    judge: Callable[[Limit, Intent, Size, Facts], Verdict]
    parameters: tuple[Parameter, ...] = ()
    needs: frozenset[str] = frozenset()
    start: Start = Start.UNSET
    more_is_stricter: bool = False
    halts: bool = False
    portfolio: bool = False
    least: Decimal = Decimal(0)

    def settings(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The parameters typed, with their defaults. Raises ValueError."""
        return read_all(self.parameters, given)

    @property
    def has_one_strictest(self) -> bool:
        """Whether of several limits the strictest says it all; else each of them is judged."""
        return not self.parameters


RULES: dict[str, Rule] = {}


def rule(
    name: str,
    *,
    label: str,
    unit: Unit,
    default: str,
    help: str,
    parameters: Sequence[Parameter] = (),
    needs: Sequence[str] = (),
    **traits: Any,
) -> Callable[[Judge], Callable[[Limit, Intent, Size, Facts], Verdict]]:
    """Register a rule under ``name``, whose capitals are its reason code.

    The function judges entries only: exits pass every rule. Numbers that cannot be compared fail.
    """
    code = ReasonCode(name.upper())

    def register(function: Judge) -> Callable[[Limit, Intent, Size, Facts], Verdict]:
        def judge(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
            if intent.is_exit:
                return passed(limit, "exits pass")
            if not limit.value.is_finite():
                return failed(limit, code, "the limit is not a number")
            try:
                verdict = function(
                    limit, intent, size, facts, RULES[name].settings(limit.parameters)
                )
            except (DecimalException, ValueError):
                return failed(limit, code, "the numbers cannot be compared")
            return replace(verdict, scope=limit.scope)

        RULES[name] = Rule(
            name, label, unit, Decimal(default), help, judge, tuple(parameters), frozenset(needs),
            **traits,
        )  # fmt: skip
        return judge

    return register


def passed(limit: Limit, detail: str, *, used: Decimal | None = None) -> Verdict:
    """The verdict where there is nothing to measure, or only how much of the limit is ``used``."""
    return Verdict(limit.rule, True, detail, mode=limit.mode, used=used, scope=limit.scope)


def failed(limit: Limit, code: ReasonCode, detail: str, **numbers: Decimal | str) -> Verdict:
    """The verdict where nothing could be measured: what is not known does not pass."""
    shown_numbers = {"limit": str(limit.value), **numbers}
    return Verdict(limit.rule, False, detail, code, limit.mode, shown_numbers, scope=limit.scope)


def compared(
    limit: Limit,
    what: str,
    measured: Decimal,
    allowed: Decimal,
    **numbers: Decimal,
) -> Verdict:
    """Pass when ``measured`` is at most ``allowed``; the sentence calls it ``what``."""
    is_within = measured <= allowed
    bound = f"{'within' if is_within else 'above'} the limit of {text(allowed)}"
    return Verdict(
        rule=limit.rule,
        passed=is_within,
        detail=f"{what} {text(measured)} is {bound} ({limit.scope})",
        code=None if is_within else ReasonCode(limit.rule.upper()),
        mode=limit.mode,
        numbers={
            "measured": shown(measured),
            "allowed": shown(allowed),
            "limit": limit.value,
            **{name: shown(value) for name, value in numbers.items()},
        },
        used=measured / allowed if allowed > 0 else None,
        scope=limit.scope,
    )


def known_equity(facts: Facts) -> Decimal | None:
    """Equity as a number; ``None`` when it is not known."""
    return facts.equity if facts.equity is not None and facts.equity.is_finite() else None
