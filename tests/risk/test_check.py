from __future__ import annotations

from decimal import Decimal

import pytest

from brokers.types import OrderType, Quote, Side
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


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (intent(stop_loss="99.99", targets=["100.01", 200]), None),
        (intent(Side.SELL, stop_loss="100.01", targets=["99.99", 1]), None),
        (intent(stop_loss=100), ReasonCode.STOP_LOSS_INVALID),
        (intent(stop_loss=101, targets=[110]), ReasonCode.STOP_LOSS_INVALID),
        (intent(Side.SELL, stop_loss=99), ReasonCode.STOP_LOSS_INVALID),
        (intent(targets=[100]), ReasonCode.TAKE_PROFIT_INVALID),
        (intent(targets=[99]), ReasonCode.TAKE_PROFIT_INVALID),
        (intent(targets=[110, 120, 90]), ReasonCode.TAKE_PROFIT_INVALID),
        (intent(targets=["NaN"]), ReasonCode.TAKE_PROFIT_INVALID),
        (intent(Side.SELL, targets=[90, 101]), ReasonCode.TAKE_PROFIT_INVALID),
        (intent(is_exit=True, stop_loss=101, targets=[99]), None),
    ],
)
def test_stop_and_targets_lie_on_their_sides_of_an_entry_whatever_is_asked_for(order, code):
    denied = denial(judged(*REQUIRED, order=order))
    assert (denied and denied.code) == code


@pytest.mark.parametrize(
    ("market", "order", "code"),
    [
        (97, intent(type=OrderType.LIMIT, price=100, stop_loss=98), ReasonCode.STOP_LOSS_INVALID),
        (97, intent(type=OrderType.LIMIT, price=100, stop_loss=96, targets=[99]), None),
        (120, intent(type=OrderType.LIMIT, price=100, stop_loss=98, targets=[110]), None),
        (120, intent(type=OrderType.LIMIT, price=100, stop_loss=105), ReasonCode.STOP_LOSS_INVALID),
    ],
)
def test_a_purchase_at_a_limit_above_the_market_opens_at_the_market(market, order, code):
    price = Decimal(market)
    known = facts(quote=Quote("BTC/USDT", price, price, price, FACTS.quote.at))
    denied = denial(judged(*REQUIRED, order=order, known=known))
    assert (denied and denied.code) == code


def test_a_misplaced_target_is_told_with_its_numbers():
    denied = denial(judged(*REQUIRED, order=intent(targets=[110, 90])))
    assert denied.detail == "the take profit of a buy must lie above its entry"
    assert denied.numbers == {"entry": Decimal(100), "take_profit": Decimal(90)}


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
