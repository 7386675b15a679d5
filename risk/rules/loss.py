"""How much may be lost."""

from __future__ import annotations

from decimal import Decimal

from risk.arithmetic import shown, text
from risk.prices import stop_distance
from risk.rules.registry import Unit, compared, failed, known_equity, rule
from risk.types import Facts, Intent, Limit, ReasonCode, Refusal, Size, Verdict


@rule(
    "risk_per_trade",
    label="risk per trade",
    unit=Unit.FRACTION,
    default="0.02",
    help="Loss at the stop loss ÷ equity, e.g. 0.02 for 2 %. Orders without a stop loss pass.",
)
def risk_per_trade(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
    if intent.stop_loss is None:
        return Verdict(limit.rule, True, "no stop, nothing to measure", mode=limit.mode)
    equity = known_equity(facts)
    if equity is None:
        return failed(limit, ReasonCode.EQUITY_UNKNOWN, "the account's equity is not known")
    try:
        distance = stop_distance(intent.side, size.reference_price, intent.stop_loss)
    except Refusal as refusal:
        return failed(limit, refusal.code, refusal.detail)
    return compared(
        limit,
        "loss at the stop",
        size.quantity * distance * facts.to_account_currency,
        limit.value * equity,
        distance=distance,
        equity=equity,
    )


@rule(
    "daily_loss",
    label="daily loss",
    unit=Unit.MONEY,
    default="500",
    help="Realised loss of the day at which entries stop.",
)
def daily_loss(limit: Limit, intent: Intent, size: Size, facts: Facts) -> Verdict:
    """Passes while today's loss is below the limit: once it is used up, nothing new starts."""
    if facts.realised_today is None:
        return failed(limit, ReasonCode.DAILY_LOSS, "today's realised result is not known")
    loss = max(-facts.realised_today, Decimal(0))
    passed = loss < limit.value
    relation = "below" if passed else "at or above"
    return Verdict(
        rule=limit.rule,
        passed=passed,
        detail=f"today's loss {text(loss)} is {relation} the limit of {text(limit.value)} "
        f"({limit.scope})",
        code=None if passed else ReasonCode.DAILY_LOSS,
        mode=limit.mode,
        numbers={"measured": shown(loss), "allowed": limit.value, "limit": limit.value},
    )
