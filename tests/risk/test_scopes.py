"""What a limit is set for: refused or put right where no order could ever meet it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.models import Account, Instrument, SymbolAlias
from fks_site.doctor import trading
from risk import proposals
from risk.limits import limits_for, set_limit
from risk.models import RiskLimit, RiskPolicy
from risk.proposable import limit_payload
from risk.scopes import symbol_of
from risk.types import LimitMode
from tests.factories import AccountFactory, StrategyFactory

pytestmark = pytest.mark.django_db

ALPACA = {"broker": "alpaca", "options": {}}


def put(rule: str = "max_order_value", value: str = "10", **fields: Any) -> RiskLimit:
    return set_limit(rule, Decimal(value), reason="test", **fields)


def instrument(account: Account, symbol: str) -> None:
    Instrument.objects.create(
        account=account,
        symbol=symbol,
        venue_symbol=symbol,
        base="ES",
        quote="USD",
        quantity_step=1,
        price_tick=1,
        refreshed_at=timezone.now(),
    )


@pytest.mark.parametrize("written", ["BTC/USDT", "BTCUSDT", "btcusdt", "XBTUSDT", "BTC-USDT"])
def test_a_limit_covers_the_orders_of_its_symbol(account: Account, written: str) -> None:
    put(symbol=written)
    (found,) = limits_for(account.pk, "demo", "BTC/USDT")
    assert found.scope == "symbol BTC/USDT"


def test_what_a_lone_ticker_is_depends_on_the_account() -> None:
    shares, coins = AccountFactory.create(**ALPACA), AccountFactory.create()
    assert symbol_of("AAPL", shares) == symbol_of("AAPL") == "AAPL/USD"
    with pytest.raises(ValueError, match="'AAPL' is not a symbol FKS can place"):
        symbol_of("AAPL", coins)


def test_aliases_and_names_only_a_venue_has_are_symbols(account: Account) -> None:
    other = AccountFactory.create()
    SymbolAlias.objects.create(account=account, alias="GOLD", symbol="XAU/USD")
    instrument(account, "ES 12-26")
    for where in (account, None):
        assert symbol_of("gold", where) == "XAU/USD"
        assert symbol_of("ES 12-26", where) == "ES 12-26"
    for text in ("GOLD", "ES 12-26"):
        with pytest.raises(ValueError, match="is not a symbol"):
            symbol_of(text, other)


def test_a_name_that_means_two_things_is_asked_about(account: Account) -> None:
    other = AccountFactory.create(name="other")
    SymbolAlias.objects.create(account=account, alias="BTCUSD", symbol="BTC/USDT")
    with pytest.raises(ValueError, match="'BTCUSD' is BTC/USDT on desk, BTC/USD on other"):
        put(symbol="BTCUSD")
    assert put(symbol="BTCUSD", account=other).policy.symbol == "BTC/USD"


def test_a_continuous_future_is_set_for_its_contract(account: Account) -> None:
    until = datetime.now(UTC).date() + timedelta(days=9)
    SymbolAlias.objects.create(alias="ES1!", symbol="ES 12-26", valid_until=until)
    with pytest.raises(ValueError, match="'ES1!' changes its contract: name the contract"):
        put(symbol="ES1!")
    assert put(symbol="ES 12-26").policy.symbol == "ES 12-26"


@pytest.mark.parametrize(
    ("scope", "sentence"),
    [
        ({"strategy": "tpyo"}, "there is no strategy 'tpyo'"),
        ({"symbol": "no symbol"}, "'no symbol' is not a symbol FKS can place"),
    ],
)
def test_what_no_order_is_in_is_refused(scope: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        put(**scope)
    with pytest.raises(ValueError, match=sentence):
        limit_payload("max_order_value", Decimal(10), **scope)
    assert not RiskPolicy.objects.exists()


def test_a_proposal_whose_strategy_has_gone_can_no_longer_be_made() -> None:
    strategy = StrategyFactory.create(slug="demo")
    payload = limit_payload("max_order_value", Decimal(10), strategy="demo", symbol="BTCUSDT")
    assert payload["symbol"] == "BTC/USDT"
    strategy.delete()
    with pytest.raises(ValueError, match="there is no strategy 'demo'"):
        proposals.submit("limit", payload, reason="test")


def test_the_symbols_of_a_group() -> None:
    told = {"symbols": "eth btc-usdt, BTCUSDT SOL/USDT:USDT"}
    limit = put("max_group_exposure", parameters=told)
    words = limit.parameters["symbols"].split()
    assert sorted(words) == ["BTC/USDT", "BTCUSDT", "ETH", "SOL/USDT:USDT"]
    with pytest.raises(ValueError, match=r"symbols: 'BTC\*' is not a symbol FKS can place"):
        put("max_group_exposure", parameters={"symbols": "ETH BTC*"})


def stale() -> RiskPolicy:
    """As it could be made before scopes were looked at."""
    policy = RiskPolicy.objects.create(strategy="tpyo", symbol="BTCUSDT")
    RiskLimit.objects.create(policy=policy, rule="max_order_value", value=10)
    return policy


def test_a_limit_can_be_switched_off_where_it_is() -> None:
    policy = stale()
    where = {"strategy": "tpyo", "symbol": "BTCUSDT", "mode": LimitMode.OFF}
    payload = limit_payload("max_order_value", Decimal(10), **where)
    proposals.submit("limit", payload, reason="test")
    assert (policy.limits.get().mode, RiskPolicy.objects.count()) == ("off", 1)


def test_the_doctor_names_limits_that_apply_to_nothing(account: Account) -> None:
    StrategyFactory.create(slug="demo")
    for scope in ({}, {"strategy": "demo"}, {"symbol": "BTC/USDT"}, {"account": account}):
        put(**scope)
    put("max_group_exposure", parameters={"symbols": "ETH BTC/USDT"})
    assert list(trading.limited()) == []
    stale()
    other = RiskPolicy.objects.create(account=account, symbol="BTCUSDT")
    RiskLimit.objects.create(policy=other, rule="max_open_orders", value=1)
    RiskLimit.objects.create(policy=other, rule="daily_loss", value=1, mode="off")
    told = {"symbols": "BTC-USDT"}
    RiskLimit.objects.filter(rule="max_group_exposure").update(parameters=told)
    found = list(trading.limited())
    assert sorted(finding.what for finding in found) == [
        "limit max_group_exposure (everything) does not apply: orders carry BTC/USDT, not BTC-USDT",
        "limit max_open_orders (account desk, symbol BTCUSDT) does not apply: orders carry BTC/USDT, "
        "not BTCUSDT",
        "limit max_order_value (strategy tpyo, symbol BTCUSDT) does not apply: there is no strategy "
        "'tpyo'",
    ]
    assert all(finding.is_warning for finding in found)


def form(mode: str = "enforce", *, initial: int = 0, **more: Any) -> dict[str, Any]:
    row = {"rule": "max_order_value", "value": "10", "mode": mode, "parameters": ""}
    counts = {"TOTAL_FORMS": 1, "INITIAL_FORMS": initial, "MIN_NUM_FORMS": 0, "MAX_NUM_FORMS": 1000}
    fields = {f"limits-0-{name}": value for name, value in row.items()}
    fields |= {f"limits-{name}": value for name, value in counts.items()}
    return {"account": "", "strategy": "", "symbol": "", "reason": "why"} | fields | more


def test_the_admin_puts_a_symbol_right_and_refuses_what_nobody_has(admin_client: Client) -> None:
    add = reverse("admin:risk_riskpolicy_add")
    for field, text, said in (
        ("strategy", "tpyo", "there is no strategy &#x27;tpyo&#x27;"),
        ("symbol", "BTC*", "is not a symbol FKS can place"),
    ):
        assert said in admin_client.post(add, form(**{field: text})).content.decode()
    assert not RiskPolicy.objects.exists()
    assert admin_client.post(add, form(symbol="btcusdt")).status_code == 302
    assert RiskPolicy.objects.get().symbol == "BTC/USDT"
    again = admin_client.post(add, form(symbol="BTCUSDT")).content.decode()
    assert "already exists" in again
    assert RiskPolicy.objects.get().limits.get().value == 10


def test_in_the_admin_a_limit_without_a_scope_is_only_switched_off(admin_client: Client) -> None:
    policy = stale()
    page = reverse("admin:risk_riskpolicy_change", args=[policy.pk])
    its_own = {"limits-0-id": policy.limits.get().pk, "limits-0-policy": policy.pk}
    refused = admin_client.post(page, form(initial=1, **its_own, **{"limits-0-value": "20"}))
    assert "there is no strategy &#x27;tpyo&#x27;: switch it off here" in refused.content.decode()
    assert admin_client.post(page, form("off", initial=1, **its_own)).status_code == 302
    assert (policy.limits.get().mode, policy.limits.get().value) == ("off", 10)
    assert RiskPolicy.objects.count() == 1


def test_a_limit_that_is_refused_today_is_not_in_the_way_of_the_others(
    admin_client: Client,
) -> None:
    policy = put().policy
    old = RiskLimit.objects.create(policy=policy, rule="loss_streak", value=150, mode="enforce")
    page = reverse("admin:risk_riskpolicy_change", args=[policy.pk])
    row = {"id": old.pk, "policy": policy.pk, "rule": "loss_streak", "mode": "enforce"}
    more = {f"limits-1-{name}": value for name, value in (row | {"parameters": ""}).items()}
    mine = policy.limits.get(rule="max_order_value")
    more |= {"limits-0-id": mine.pk, "limits-0-policy": policy.pk, "limits-0-value": "5"}
    both = form(initial=2, **more) | {"limits-TOTAL_FORMS": 2}
    assert admin_client.post(page, both | {"limits-1-value": "150"}).status_code == 302
    mine.refresh_from_db()
    assert mine.value == 5
    refused = admin_client.post(page, both | {"limits-1-value": "151"}).content.decode()
    assert "looks back at 100 orders: 151 would never be reached" in refused
