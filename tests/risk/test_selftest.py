"""The self-test finds nothing wrong with sound rules, and finds broken ones."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from risk import selftest
from risk.rules import RULES
from risk.types import LimitMode, Verdict
from tests.risk.builders import limit

TOLD = {"max_group_exposure": {"symbols": "BTC/USDT ETH"}}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_is_tested_at_its_usual_value_and_at_others(rule: str) -> None:
    for value in (RULES[rule].default, max(RULES[rule].default * 7, RULES[rule].least)):
        whole = RULES[rule].unit.is_fraction and value > 1
        one = limit(rule, 1 if whole else value, **TOLD.get(rule, {}))
        result = selftest.test(one)
        assert result.passed, result.detail


@pytest.mark.parametrize(
    "rule", ["max_order_value", "max_open_orders", "daily_loss", "repeated_execution"]
)
def test_a_limit_of_zero_lets_only_exits_through(rule: str) -> None:
    assert selftest.test(limit(rule, 0, LimitMode.OBSERVE)).passed


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"message_rate"}))
@pytest.mark.parametrize(("answer", "complaint"), [(True, "lets through"), (False, "blocks what")])
def test_a_rule_that_always_says_the_same_is_found(
    monkeypatch: pytest.MonkeyPatch, rule: str, answer: bool, complaint: str
) -> None:
    def judge(*_: object) -> Verdict:
        return Verdict(rule, answer, "broken")

    monkeypatch.setitem(RULES, rule, replace(RULES[rule], judge=judge))
    result = selftest.test(limit(rule, RULES[rule].default, **TOLD.get(rule, {})))
    assert not result.passed
    assert result.detail.startswith(complaint)


def test_a_rule_nobody_knows_is_no_control() -> None:
    assert not selftest.test(limit("max_happiness", Decimal(1))).passed
