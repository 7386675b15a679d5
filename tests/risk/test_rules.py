"""Each rule just under, at and over its limit, and where it cannot measure."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from brokers.types import OrderType, Side
from risk.book import Book, Day
from risk.rules import RULES
from risk.rules.strategy import confidence, price_drift, reward_risk
from risk.types import LimitMode, ReasonCode, Size, StrategyRules
from tests.risk.builders import FACTS, book, facts, intent, limit

BUY, SELL = intent(stop_loss=90), intent(Side.SELL, stop_loss=109)


def sized(quantity: str = "1", price: str = "100", rate: str = "1") -> Size:
    value = Decimal(quantity) * Decimal(price) * Decimal(rate)
    return Size(Decimal(quantity), Decimal(price), value, ())


def day(realised: str, unrealised: str | None = "0", best: str = "0") -> Day:
    gained = None if unrealised is None else Decimal(unrealised)
    return Day(Decimal(realised), gained, Decimal(best))


def judge(rule, value, order=BUY, size=None, known=FACTS, mode=LimitMode.ENFORCE):
    return RULES[rule].judge(limit(rule, value, mode), order, size or sized(), known)


@pytest.mark.parametrize(
    ("rule", "at", "order", "size", "known"),
    [
        ("max_order_value", "100", BUY, sized(), FACTS),
        ("max_order_value", "90", BUY, sized(rate="0.9"), facts(to_account_currency="0.9")),
        ("max_capital_share", "0.01", BUY, sized(), FACTS),
        ("max_position_value", "100", BUY, sized(), FACTS),
        ("max_position_value", "600", BUY, sized(), facts(position_quantity=5)),
        (
            "max_position_value",
            "800",
            BUY,
            sized(),
            facts(position_quantity=5, working_buy_quantity=2, working_sell_quantity=9),
        ),
        (
            "max_position_value",
            "792",
            SELL,
            sized(price="99"),
            facts(position_quantity=-5, working_sell_quantity=2, working_buy_quantity=9),
        ),
        ("max_position_value", "400", BUY, sized(), facts(position_quantity=-5)),
        (
            "max_position_value",
            "300",
            BUY,
            sized(rate="0.5"),
            facts(position_quantity=5, to_account_currency="0.5"),
        ),
        ("max_open_orders", "4", BUY, sized(), facts(open_orders=3)),
        ("risk_per_trade", "0.001", BUY, sized(), FACTS),
        ("risk_per_trade", "0.001", SELL, sized(price="99"), FACTS),
        ("risk_per_trade", "0.002", BUY, sized(), facts(to_account_currency=2)),
    ],
)
def test_at_the_limit_passes_and_just_under_it_does_not(rule, at, order, size, known):
    assert judge(rule, at, order, size, known).passed
    denied = judge(rule, Decimal(at) - Decimal("0.0001"), order, size, known)
    assert denied.denies
    assert denied.code is ReasonCode(rule.upper())


@pytest.mark.parametrize(
    ("realised", "passed"),
    [("500", True), ("0", True), ("-99.99", True), ("-100", False), ("-100.01", False)],
)
def test_daily_loss_is_used_up_when_it_is_reached(realised, passed):
    verdict = judge("daily_loss", 100, known=book(day=day(realised)))
    assert verdict.passed is passed
    assert verdict.code is (None if passed else ReasonCode.DAILY_LOSS)


def test_a_resting_limit_far_away_does_not_make_a_position_look_small():
    far = judge("max_position_value", 599, size=sized(price="1"), known=facts(position_quantity=6))
    assert far.denies
    assert far.numbers["measured"] == 601


def test_without_a_stop_there_is_no_risk_to_measure():
    verdict = judge("risk_per_trade", 0, order=intent(), known=facts(equity=None))
    assert verdict.passed
    assert verdict.detail == "no stop, nothing to measure"


@pytest.mark.parametrize(
    ("rule", "order", "known", "code"),
    [
        ("max_capital_share", BUY, facts(equity=None), ReasonCode.EQUITY_UNKNOWN),
        ("max_capital_share", BUY, facts(equity="NaN"), ReasonCode.EQUITY_UNKNOWN),
        ("max_capital_share", BUY, facts(equity=-1), ReasonCode.MAX_CAPITAL_SHARE),
        ("risk_per_trade", BUY, facts(equity=None), ReasonCode.EQUITY_UNKNOWN),
        ("risk_per_trade", intent(stop_loss=101), FACTS, ReasonCode.STOP_LOSS_INVALID),
        ("daily_loss", BUY, book(day=None), ReasonCode.DAILY_LOSS),
        ("daily_loss", BUY, book(day=day("NaN")), ReasonCode.DAILY_LOSS),
        ("max_position_value", BUY, facts(position_quantity="NaN"), ReasonCode.MAX_POSITION_VALUE),
    ],
)
def test_what_cannot_be_measured_does_not_pass(rule, order, known, code):
    verdict = judge(rule, 1, order, known=known)
    assert verdict.denies
    assert verdict.code is code


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_limit_that_is_no_number_does_not_pass(rule):
    assert judge(rule, Decimal("NaN")).code is ReasonCode(rule.upper())


@pytest.mark.parametrize("rule", sorted(RULES))
def test_exits_pass(rule):
    verdict = judge(
        rule,
        0,
        order=intent(Side.SELL, is_exit=True, stop_loss=1),
        known=replace(facts(equity=None), book=Book()),
    )
    assert verdict.passed
    assert verdict.detail == "exits pass"


def test_a_verdict_says_what_was_measured():
    verdict = judge("max_order_value", "99.5", mode=LimitMode.OBSERVE)
    assert verdict.detail == "order value 100 is above the limit of 99.5 (everything)"
    assert verdict.numbers == {
        "measured": Decimal(100),
        "allowed": Decimal("99.5"),
        "limit": Decimal("99.5"),
        "quantity": Decimal(1),
        "price": Decimal(100),
    }
    assert not verdict.passed
    assert not verdict.denies


@pytest.mark.parametrize(
    ("given", "required", "code"),
    [
        ("0.61", True, None),
        ("0.6", False, None),
        ("0.59", False, ReasonCode.LOW_CONFIDENCE),
        ("NaN", False, ReasonCode.LOW_CONFIDENCE),
        (None, False, None),
        (None, True, ReasonCode.CONFIDENCE_MISSING),
    ],
)
def test_confidence(given, required, code):
    rules = StrategyRules(min_confidence=Decimal("0.6"), requires_confidence=required)
    verdict = confidence(rules, intent(confidence=given))
    assert (verdict.code, verdict.passed) == (code, code is None)


@pytest.mark.parametrize(
    ("order", "required", "code"),
    [
        (intent(stop_loss=90, targets=[121]), False, None),
        (intent(stop_loss=90, targets=[120]), True, None),
        (intent(stop_loss=90, targets=["119.99"]), False, ReasonCode.POOR_REWARD_RISK),
        (intent(stop_loss=90, targets=[80]), False, ReasonCode.POOR_REWARD_RISK),
        (intent(stop_loss=90, targets=["NaN"]), False, ReasonCode.POOR_REWARD_RISK),
        (intent(stop_loss=110, targets=[120]), False, ReasonCode.STOP_LOSS_INVALID),
        (intent(Side.SELL, stop_loss=110, targets=[80]), False, None),
        (intent(Side.SELL, stop_loss=110, targets=[81]), False, ReasonCode.POOR_REWARD_RISK),
        (intent(stop_loss=90), False, None),
        (intent(targets=[120]), False, None),
        (intent(stop_loss=90), True, ReasonCode.REWARD_RISK_MISSING),
    ],
)
def test_reward_to_risk(order, required, code):
    rules = StrategyRules(min_reward_risk=Decimal(2), requires_reward_risk=required)
    verdict = reward_risk(rules, order, Decimal(100))
    assert (verdict.code, verdict.passed) == (code, code is None)


@pytest.mark.parametrize(
    ("rules", "order"),
    [
        (StrategyRules(requires_confidence=True, requires_reward_risk=True), intent()),
        (
            StrategyRules(Decimal(1), Decimal(9), requires_confidence=True),
            intent(is_exit=True, confidence=0),
        ),
    ],
)
def test_strategy_rules_that_are_off_and_exits_pass(rules, order):
    assert confidence(rules, order).passed
    assert reward_risk(rules, order, Decimal(100)).passed


@pytest.mark.parametrize(
    ("side", "price", "passed"),
    [
        (Side.BUY, "99.5", True),  # the ask of 100 is 0.5025 % above
        (Side.BUY, "99.4", True),
        (Side.BUY, "99", False),
        (Side.BUY, "101", True),
        (Side.BUY, "101.1", False),
        (Side.SELL, "100", True),  # the bid of 99
        (Side.SELL, "100.1", False),
    ],
)
def test_price_drift(side: Side, price: str, passed: bool) -> None:
    rules = StrategyRules(max_drift=Decimal("0.01"))
    verdict = price_drift(rules, intent(side, price=price), facts().quote)
    assert (verdict.passed, verdict.code) == (passed, None if passed else ReasonCode.PRICE_DRIFT)
    assert verdict.numbers["price"] == Decimal(price)


def test_price_drift_needs_a_price_and_leaves_exits_and_limits_alone() -> None:
    rules, quote = StrategyRules(max_drift=Decimal("0.001")), facts().quote
    assert price_drift(rules, intent(), quote).code is ReasonCode.PRICE_MISSING
    assert price_drift(rules, intent(is_exit=True, price="1"), quote).passed
    assert price_drift(rules, intent(type=OrderType.LIMIT, price="1"), quote).passed
    assert price_drift(StrategyRules(), intent(price="1"), quote).detail == "no threshold set"
