"""May this order be placed? Every limit is judged, so that an operator sees all of the reasons.

Pure, and fail-closed: an entry needs an enforced limit for the size of orders and of positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext

from risk.arithmetic import ARITHMETIC
from risk.prices import opening_price, refuse_misplaced
from risk.rules import RULES
from risk.rules.strategy import confidence, price_drift, reward_risk
from risk.types import (
    Facts,
    Intent,
    Limit,
    LimitMode,
    ReasonCode,
    Refusal,
    Size,
    StrategyRules,
    Verdict,
)

REQUIRED = ("max_order_value", "max_position_value")


def check(
    intent: Intent,
    size: Size,
    facts: Facts,
    limits: Sequence[Limit],
    strategy_rules: StrategyRules,
) -> tuple[Verdict, ...]:
    """Everything that was judged: missing limits, the limits in force, where stop and targets lie, the
    strategy's thresholds.

    Of several limits of one rule the strictest of each mode is judged. An observed limit may fail
    without denying.
    """
    in_force = _strictest(limits)
    with localcontext(ARITHMETIC):
        return (
            *(() if intent.is_exit else _missing(in_force)),
            *(_judged(limit, intent, size, facts) for limit in in_force),
            *_misplaced(intent, opening_price(intent, size.reference_price, facts.quote)),
            price_drift(strategy_rules, intent, facts.quote),
            confidence(strategy_rules, intent),
            reward_risk(strategy_rules, intent, size.reference_price),
        )


def denial(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The first verdict that denies the order, ``None`` when it may be placed."""
    return next((verdict for verdict in verdicts if verdict.denies), None)


def _strictest(limits: Sequence[Limit]) -> list[Limit]:
    """The limits to judge, in the order of ``RULES``: one per rule and mode where its value says it
    all, every one where parameters make them differ in kind.
    """
    kept: dict[object, Limit] = {}
    for limit in sorted(limits, key=_strictness, reverse=True):
        if limit.mode is not LimitMode.OFF:
            rule = RULES.get(limit.rule)
            one = rule is None or rule.has_one_strictest
            kept[(limit.rule, limit.mode) if one else id(limit)] = limit
    order = list(RULES)
    return sorted(
        kept.values(),
        key=lambda limit: order.index(limit.rule) if limit.rule in RULES else len(order),
    )


def _strictness(limit: Limit) -> Decimal:
    """Small is strict; what is no number is the strictest."""
    if not limit.value.is_finite():
        return Decimal("-Infinity")
    rule = RULES.get(limit.rule)
    return -limit.value if rule is not None and rule.more_is_stricter else limit.value


def _missing(in_force: Sequence[Limit]) -> list[Verdict]:
    enforced = {limit.rule for limit in in_force if limit.mode is LimitMode.ENFORCE}
    return [
        Verdict(
            rule,
            False,
            f"no limit {rule} is enforced here; set one with `manage.py set_limit {rule} …`",
            ReasonCode.NO_LIMIT_SET,
        )
        for rule in REQUIRED
        if rule not in enforced
    ]


def _misplaced(intent: Intent, entry: Decimal) -> list[Verdict]:
    """No limit has to ask for it."""
    if intent.is_exit:
        return []
    try:
        refuse_misplaced(intent.side, entry, intent.stop_loss, intent.targets)
    except Refusal as refusal:
        return [Verdict("protection", False, refusal.detail, refusal.code, numbers=refusal.numbers)]
    return []


def _judged(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
    rule = RULES.get(limit.rule)
    if rule is not None:
        return rule.judge(limit, intent, size, facts)
    if intent.is_exit:
        return Verdict(limit.rule, True, "exits pass", mode=limit.mode)
    return Verdict(
        limit.rule,
        False,
        f"the limit {limit.rule} ({limit.scope}) names no known rule",
        ReasonCode.NO_LIMIT_SET,
        limit.mode,
    )
