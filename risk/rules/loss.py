"""How much may be lost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from risk.arithmetic import shown, text
from risk.prices import stop_distance
from risk.rules.parameters import Parameter, one_of, seconds
from risk.rules.registry import Start, Unit, compared, failed, known_equity, passed, rule
from risk.types import Facts, Intent, Limit, ReasonCode, Refusal, Size, Verdict


@rule(
    "risk_per_trade",
    label="risk per trade",
    unit=Unit.FRACTION,
    default="0.02",
    help="Loss at the stop loss ÷ equity, e.g. 0.02 for 2 %. Orders without a stop loss pass.",
    start=Start.ENFORCE,
)
def risk_per_trade(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    if intent.stop_loss is None:
        return passed(limit, "no stop, nothing to measure")
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
    help="Loss of the account's day at which entries stop, open positions included.",
    parameters=[
        Parameter("unrealised", one_of("count", "ignore"), "count", "count open positions or not")
    ],
    needs=["day"],
    start=Start.ENFORCE,
)
def daily_loss(
    limit: Limit, intent: Intent, size: Size, facts: Facts, settings: Mapping[str, Any]
) -> Verdict:
    """Passes while the day's loss is below the limit: once it is used up, nothing new starts."""
    day = facts.book.day
    if day is None:
        return failed(limit, ReasonCode.DAILY_LOSS, "the day's result is not known")
    result = day.result if settings["unrealised"] == "count" else day.realised
    if result is None:
        detail = "what open positions are worth now is not known"
        return failed(limit, ReasonCode.DAILY_LOSS, detail)
    return _used_up(limit, "the day's loss", max(-result, Decimal(0)))


@rule(
    "max_drawdown",
    label="largest fall in a day",
    unit=Unit.MONEY,
    default="500",
    help="Fall from the day's best result at which entries stop, open positions included.",
    needs=["day"],
)
def max_drawdown(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    day = facts.book.day
    if day is None or day.result is None:
        return failed(limit, ReasonCode.MAX_DRAWDOWN, "the day's result is not known")
    fallen = max(day.best - day.result, Decimal(0))
    return _used_up(limit, "the fall from the day's best", fallen)


@rule(
    "loss_streak",
    label="losses in a row",
    unit=Unit.TIMES,
    default="5",
    help="Losing exits of the strategy on the account in a row after which it pauses.",
    parameters=[Parameter("cool_down", seconds, "3600", "seconds of pause after the last loss")],
    needs=["losses"],
    least=Decimal(1),
)
def loss_streak(
    limit: Limit, intent: Intent, size: Size, facts: Facts, settings: Mapping[str, Any]
) -> Verdict:
    losses = facts.book.losses
    if losses is None:
        return failed(limit, ReasonCode.LOSS_STREAK, "earlier results are not known")
    if losses.last_at is None or losses.count < limit.value:
        return passed(limit, f"{losses.count} losses in a row", used=losses.count / limit.value)
    left = settings["cool_down"] - int(abs((facts.at - losses.last_at).total_seconds()))
    if left <= 0:
        return passed(limit, "the pause after the losses is over")
    detail = f"{losses.count} losses in a row; the pause ends in {left} s ({limit.scope})"
    return failed(limit, ReasonCode.LOSS_STREAK, detail, measured=Decimal(losses.count))


def _used_up(limit: Limit, what: str, loss: Decimal) -> Verdict:
    """Pass below the limit only."""
    is_below = loss < limit.value
    relation = "below" if is_below else "at or above"
    return Verdict(
        rule=limit.rule,
        passed=is_below,
        detail=f"{what} {text(loss)} is {relation} the limit of {text(limit.value)} "
        f"({limit.scope})",
        code=None if is_below else ReasonCode(limit.rule.upper()),
        mode=limit.mode,
        numbers={"measured": shown(loss), "allowed": limit.value, "limit": limit.value},
        used=loss / limit.value if limit.value > 0 else None,
    )
