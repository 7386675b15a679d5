from __future__ import annotations

from decimal import Decimal
from threading import Barrier, Thread

import pytest
from django.db import connection

from brokers.models import Account
from risk import audit
from risk.limits import limits_for, set_limit
from risk.models import AuditEvent, RiskLimit, RiskPolicy
from risk.types import Limit, LimitMode
from tests.factories import StrategyFactory


def put(rule: str, value: str, **fields) -> RiskLimit:
    return set_limit(rule, Decimal(value), reason="test", **fields)


def test_the_limits_of_every_scope_that_covers_the_order(account, django_assert_num_queries):
    other = Account.objects.create(name="other", broker="paper")
    for slug in ("demo", "another"):
        StrategyFactory.create(slug=slug)
    put("max_order_value", "1000")
    put("max_order_value", "900", account=account)
    put("max_order_value", "800", strategy="demo", mode=LimitMode.OBSERVE)
    put("max_order_value", "700", account=account, strategy="demo", symbol="BTC/USDT")
    put("max_open_orders", "5", symbol="BTC/USDT", mode=LimitMode.OFF)
    put("max_order_value", "1", account=other)
    put("max_order_value", "2", strategy="another")
    put("max_order_value", "3", account=account, symbol="ETH/USDT")
    with django_assert_num_queries(1):
        found = limits_for(account.pk, "demo", "BTC/USDT")
    assert found == (
        Limit("max_order_value", Decimal(1000), LimitMode.ENFORCE, "everything"),
        Limit("max_order_value", Decimal(900), LimitMode.ENFORCE, "account desk"),
        Limit("max_order_value", Decimal(800), LimitMode.OBSERVE, "strategy demo"),
        Limit(
            "max_order_value",
            Decimal(700),
            LimitMode.ENFORCE,
            "account desk, strategy demo, symbol BTC/USDT",
        ),
    )


def test_a_change_leaves_one_row_and_an_audit_trail(account):
    with audit.acting(audit.Actor("maria", "192.0.2.1")):
        put("risk_per_trade", "0.02", account=account)
        put("risk_per_trade", "0.0100", account=account, mode=LimitMode.OBSERVE)
    assert RiskPolicy.objects.count() == 1
    assert list(RiskLimit.objects.values_list("value", "mode")) == [(Decimal("0.01"), "observe")]
    first, second = AuditEvent.objects.order_by("pk")
    assert (first.kind, first.subject) == ("limit.changed", "limit risk_per_trade (account desk)")
    assert (first.actor, first.address, first.reason) == ("maria", "192.0.2.1", "test")
    assert (first.before, first.after) == (None, {"value": "0.02", "mode": "enforce"})
    assert second.before == {"value": "0.02", "mode": "enforce"}
    assert second.after == {"value": "0.01", "mode": "observe"}


@pytest.mark.parametrize(
    ("rule", "value", "reason", "sentence"),
    [
        ("max_happiness", "3", "why", "there is no rule 'max_happiness'; known: daily_loss, dup"),
        ("max_order_value", "-1", "why", "at least 0"),
        ("max_order_value", "NaN", "why", "at least 0"),
        ("max_order_value", "Infinity", "why", "at least 0"),
        ("max_order_value", "1E+20", "why", "at least 0"),
        ("max_order_value", "1E-19", "why", "at most 18 decimals"),
        ("risk_per_trade", "2", "why", "0.02 means 2 %"),
        ("max_open_orders", "2.5", "why", "not a whole number"),
        ("max_order_value", "1", "  ", "needs a reason"),
        ("duplicate_order", "0", "why", "is at least 1, not 0; mode off"),
        ("self_match", "2", "why", "its value is 1, and mode off"),
        ("max_quote_age", "0.5", "why", "counts seconds: 0.5 is not a whole number"),
        ("duplicate_order", "2678401", "why", "is at most 2678400 seconds, not 2678401"),
        ("trading_hours", "1E+15", "why", "is at most 2678400 minutes"),
        ("reject_streak", "101", "why", "looks back at 100 orders: 101 would never be reached"),
        ("loss_streak", "101", "why", "looks back at 100 orders: 101 would never be reached"),
    ],
)
def test_what_cannot_be_a_limit_is_refused_in_a_sentence(db, rule, value, reason, sentence):
    with pytest.raises(ValueError, match=sentence):
        set_limit(rule, Decimal(value), reason=reason)
    assert not RiskPolicy.objects.exists()
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize(
    ("rule", "value"),
    [("max_capital_share", "1"), ("max_open_orders", "1E+2"), ("daily_loss", "0")],
)
def test_the_edge_of_what_a_unit_allows(db, rule, value):
    assert put(rule, value).value == Decimal(value)


@pytest.mark.django_db(transaction=True)
def test_two_first_changes_of_one_limit_at_once_leave_one_row():
    start = Barrier(2)

    def change(value: str) -> None:
        start.wait(10)
        put("max_order_value", value)
        connection.close()

    threads = [Thread(target=change, args=(value,)) for value in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    first, second = AuditEvent.objects.order_by("pk")
    assert first.before is None
    assert second.before == first.after
    assert RiskLimit.objects.get().value == Decimal(second.after["value"])


@pytest.mark.parametrize(
    ("rule", "parameters", "sentence"),
    [
        ("trading_hours", {"zone": "Mars/Olympus"}, "zone: 'Mars/Olympus' is not a time zone"),
        ("trading_hours", {"opens": "25:00"}, "opens: '25:00' is not a time of day"),
        ("trading_hours", {"opens": "09:30Z"}, "opens: '09:30Z' names an offset"),
        ("trading_hours", {"half_day_closes": "13:00+01:00"}, "'13:00+01:00' names an offset"),
        ("trading_hours", {"days": "mon-someday"}, "days: 'mon-someday' is not a weekday"),
        ("trading_hours", {"holidays": "XXXX"}, "holidays: there is no calendar 'XXXX'"),
        ("repeated_execution", {"window": "0"}, "window: '0' is not a whole number of seconds"),
        ("repeated_execution", {"windows": "60"}, "no parameter 'windows' here; known: window"),
        ("message_rate", {"kept": "1"}, "kept: '1' is not a fraction from 0 to below 1"),
        ("price_collar", {"market_orders": "maybe"}, "'maybe' is none of allow, deny"),
        ("max_order_value", {"window": "60"}, "no parameter 'window' here; known: none"),
    ],
)
def test_a_parameter_a_rule_cannot_read_is_refused(db, rule, parameters, sentence):
    with pytest.raises(ValueError) as refused:
        put(rule, "1", parameters=parameters)
    assert sentence in str(refused.value)
    assert not RiskLimit.objects.exists()


def test_parameters_stay_until_others_are_given(db):
    put("repeated_execution", "5", parameters={"window": "10"})
    put("repeated_execution", "6")
    assert RiskLimit.objects.get().parameters == {"window": "10"}
    put("repeated_execution", "6", parameters={"window": "30"})
    (limit,) = limits_for(1, "demo", "BTC/USDT")
    assert limit.parameters == {"window": "30"}
    assert AuditEvent.objects.first().after == {"value": "6", "mode": "enforce", "window": "30"}
