"""What a strategy asks of its own signals. Exits skip both rules."""

from __future__ import annotations

from decimal import Decimal

from brokers.types import OrderType, Quote
from risk.arithmetic import noted, text
from risk.prices import stop_distance
from risk.types import Intent, ReasonCode, Refusal, StrategyRules, Verdict


def confidence(rules: StrategyRules, intent: Intent) -> Verdict:
    """LOW_CONFIDENCE below the threshold; a missing one fails only where it is required."""
    name, least = "min_confidence", rules.min_confidence
    if intent.is_exit:
        return Verdict(name, True, "exits pass")
    if least is None:
        return Verdict(name, True, "no threshold set")
    given = intent.confidence
    if given is None:
        return _not_given(
            name, "no confidence given", ReasonCode.CONFIDENCE_MISSING, rules.requires_confidence
        )
    passed = given.is_finite() and given >= least
    return Verdict(
        rule=name,
        passed=passed,
        detail=f"confidence {given:f} {_against(passed)} {text(least)}",
        code=None if passed else ReasonCode.LOW_CONFIDENCE,
        numbers={"confidence": noted(given), "min_confidence": least},
    )


def reward_risk(rules: StrategyRules, intent: Intent, entry: Decimal) -> Verdict:
    """POOR_REWARD_RISK when (first target − entry) ÷ (entry − stop loss) is below the threshold.

    A stop loss on the wrong side fails as STOP_LOSS_INVALID; a missing price fails only where the
    ratio is required.
    """
    name, least = "min_reward_risk", rules.min_reward_risk
    if intent.is_exit:
        return Verdict(name, True, "exits pass")
    if least is None:
        return Verdict(name, True, "no threshold set")
    if not intent.targets or intent.stop_loss is None:
        return _not_given(
            name,
            "no take profit and stop loss given",
            ReasonCode.REWARD_RISK_MISSING,
            rules.requires_reward_risk,
        )
    try:
        risk = stop_distance(intent.side, entry, intent.stop_loss)
    except Refusal as refusal:
        return Verdict(name, False, refusal.detail, refusal.code)
    return _ratio(name, (intent.targets[0] - entry) * intent.side.sign, risk, least)


def price_drift(
    rules: StrategyRules, intent: Intent, quote: Quote, *, whose: str = "the alert's"
) -> Verdict:
    """PRICE_DRIFT when the market an entry would trade at is further from the alert's price than the
    strategy allows (a fraction of that price). A limit or a stop names its own price and passes.
    ``whose`` price it is, the sentence says.
    """
    name, most = "max_drift", rules.max_drift
    if intent.is_exit or most is None:
        return Verdict(name, True, "exits pass" if intent.is_exit else "no threshold set")
    if intent.type is not OrderType.MARKET:
        return Verdict(name, True, "the order names its own price")
    price, market = intent.price, quote.worst(intent.side)
    if price is None:
        detail = "the alert names no price to compare the market with"
        return Verdict(name, False, detail, ReasonCode.PRICE_MISSING)
    away = abs(market - price)
    passed = away <= most * price
    verb = "is within" if passed else "is beyond"
    return Verdict(
        rule=name,
        passed=passed,
        detail=f"the market at {market:f} {verb} {text(most * 100)} % of {whose} {price:f}",
        code=None if passed else ReasonCode.PRICE_DRIFT,
        numbers={"price": noted(price), "market": noted(market), "max_drift": most},
    )


def _ratio(name: str, reward: Decimal, risk: Decimal, least: Decimal) -> Verdict:
    passed = reward.is_finite() and reward >= least * risk
    return Verdict(
        rule=name,
        passed=passed,
        detail=f"reward {reward:f} to risk {risk:f} {_against(passed)} {text(least)}",
        code=None if passed else ReasonCode.POOR_REWARD_RISK,
        numbers={"reward": noted(reward), "risk": noted(risk), "min_reward_risk": least},
    )


def _not_given(name: str, detail: str, code: ReasonCode, required: bool) -> Verdict:
    if required:
        return Verdict(name, False, detail, code)
    return Verdict(name, True, "not given")


def _against(passed: bool) -> str:
    return "reaches the threshold of" if passed else "is below the threshold of"
