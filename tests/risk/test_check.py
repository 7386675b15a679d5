from __future__ import annotations

from decimal import Decimal

from brokers.types import Side
from risk.check import check, denial
from risk.types import LimitMode, ReasonCode, Size, StrategyRules
from tests.risk.builders import FACTS, facts, intent, limit

SIZE = Size(Decimal(1), Decimal(100), Decimal(100), ())
REQUIRED = (limit("max_order_value", 1000), limit("max_position_value", 1000))


def judged(*limits, order=None, known=FACTS, rules=None):
    return check(order or intent(), SIZE, known, limits, rules or StrategyRules())


def outcome(verdicts):
    return [(verdict.rule, verdict.passed, verdict.code) for verdict in verdicts]


def test_an_entry_within_its_limits_passes():
    verdicts = judged(*REQUIRED)
    assert denial(verdicts) is None
    assert [verdict.rule for verdict in verdicts] == [
        "max_position_value",
        "max_order_value",
        "max_drift",
        "min_confidence",
        "min_reward_risk",
    ]


def test_without_limits_nothing_trades():
    assert outcome(judged())[:2] == [
        ("max_order_value", False, ReasonCode.NO_LIMIT_SET),
        ("max_position_value", False, ReasonCode.NO_LIMIT_SET),
    ]
    assert denial(judged()).denies


def test_observing_and_off_limits_do_not_count_as_set():
    for mode in (LimitMode.OBSERVE, LimitMode.OFF):
        verdicts = judged(REQUIRED[0], limit("max_position_value", 1000, mode))
        assert denial(verdicts).code is ReasonCode.NO_LIMIT_SET
        assert denial(verdicts).rule == "max_position_value"


def test_every_rule_is_judged_although_one_denies():
    verdicts = judged(
        limit("max_order_value", 1),
        limit("max_position_value", 1),
        limit("max_open_orders", 1),
        known=facts(open_orders=1),
        rules=StrategyRules(min_confidence=Decimal("0.6"), requires_confidence=True),
    )
    assert {verdict.code for verdict in verdicts if verdict.denies} == {
        ReasonCode.MAX_ORDER_VALUE,
        ReasonCode.MAX_POSITION_VALUE,
        ReasonCode.MAX_OPEN_ORDERS,
        ReasonCode.CONFIDENCE_MISSING,
    }


def test_the_strictest_limit_of_each_mode_is_judged():
    verdicts = judged(
        *REQUIRED,
        limit("max_order_value", 99),
        limit("max_order_value", 500),
        limit("max_order_value", 98, LimitMode.OBSERVE),
        limit("max_order_value", 50, LimitMode.OFF),
    )
    values = {
        verdict.mode: verdict.numbers["limit"]
        for verdict in verdicts
        if verdict.rule == "max_order_value"
    }
    assert values == {LimitMode.ENFORCE: 99, LimitMode.OBSERVE: 98}
    assert denial(verdicts).code is ReasonCode.MAX_ORDER_VALUE


def test_a_limit_that_is_no_number_is_the_strictest():
    verdicts = judged(*REQUIRED, limit("max_order_value", "NaN"))
    assert denial(verdicts).code is ReasonCode.MAX_ORDER_VALUE


def test_an_observed_limit_fails_without_denying():
    verdicts = judged(*REQUIRED, limit("max_open_orders", 0, LimitMode.OBSERVE))
    assert ("max_open_orders", False, ReasonCode.MAX_OPEN_ORDERS) in outcome(verdicts)
    assert denial(verdicts) is None


def test_a_limit_of_an_unknown_rule_denies_entries_only():
    unknown = limit("max_happiness", 3)
    assert denial(judged(*REQUIRED, unknown)).code is ReasonCode.NO_LIMIT_SET
    leaving = intent(Side.SELL, is_exit=True)
    assert denial(judged(*REQUIRED, unknown, order=leaving)) is None


def test_exits_need_no_limit_and_pass_all_of_them():
    leaving = intent(Side.SELL, is_exit=True)
    rules = StrategyRules(min_confidence=Decimal(1), requires_confidence=True)
    assert denial(judged(order=leaving, rules=rules)) is None
    strict = (limit("max_order_value", 0), limit("daily_loss", 0))
    assert all(verdict.passed for verdict in judged(*strict, order=leaving, rules=rules))
