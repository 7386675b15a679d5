"""A strategy's page says what keeps it from trading, and nothing when nothing does."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from execution import readiness
from execution.models import Route, Strategy, WebhookSecret
from risk import breakers, switch
from risk.models import AllowedNetwork, IPAllowlist, RiskLimit, TradingState
from tests.factories import AccountFactory, RouteFactory, StrategyFactory, allow_trading, webhook

pytestmark = pytest.mark.django_db


@pytest.fixture
def strategy() -> Strategy:
    """One that nothing keeps from trading."""
    allow_trading()
    made, _ = webhook()
    if not made.routes.exists():
        RouteFactory.create(strategy=made)
    return made


def of(strategy: Strategy) -> list[str]:
    return readiness.missing(Strategy.objects.get(pk=strategy.pk))


def test_nothing_is_missing(strategy: Strategy, admin_client: Client) -> None:
    assert of(strategy) == []
    page = reverse("admin:execution_strategy_change", args=[strategy.pk])
    assert "Nothing is in the way of its alerts" in admin_client.get(page).content.decode()


def _empty_allowlist(strategy: Strategy) -> None:
    Strategy.objects.filter(pk=strategy.pk).update(
        allowlist=IPAllowlist.objects.create(name="office")
    )


def _at(strategy: Strategy, **columns: Any) -> None:
    account = strategy.routes.get().account
    type(account).objects.filter(pk=account.pk).update(**columns)


OBSTACLES = {
    "It is switched off": lambda s: Strategy.objects.filter(pk=s.pk).update(is_enabled=False),
    "secret: nobody can post": lambda s: WebhookSecret.objects.all().delete(),
    "Nobody may post": lambda s: Strategy.objects.filter(pk=s.pk).update(auth="jwt"),
    "“office” is empty": _empty_allowlist,
    "No limit max_order_value": lambda s: RiskLimit.objects.filter(rule="max_order_value").delete(),
    "no enabled route": lambda s: Route.objects.update(is_enabled=False),
    "is switched off.": lambda s: _at(s, is_active=False),
    "has not been compared": lambda s: _at(s, reconciled_at=None),
    "FKS_LIVE_TRADING is off": lambda s: _at(s, environment="live"),
    "A breaker of": lambda s: breakers.trip(
        breakers.of_account(s.routes.get().account_id), "maintenance"
    ),
    "Trading is halted for everything: “a drill”": lambda s: switch.change(
        TradingState.State.HALTED, reason="a drill"
    ),
}


@pytest.mark.parametrize("sentence", OBSTACLES)
def test_each_obstacle_is_told_in_a_sentence(strategy: Strategy, sentence: str) -> None:
    OBSTACLES[sentence](strategy)
    (told,) = of(strategy)
    assert sentence in told


def test_an_allowlist_with_networks_is_no_obstacle(strategy: Strategy) -> None:
    _empty_allowlist(strategy)
    AllowedNetwork.objects.create(allowlist=IPAllowlist.objects.get(), cidr="10.0.0.0/8")
    assert of(strategy) == []


def test_orders_by_hand_need_neither_secret_nor_route(admin_client: Client) -> None:
    allow_trading()
    strategy = StrategyFactory.create(slug="manual")
    assert readiness.missing(strategy) == []

    strategy.is_enabled = False
    assert readiness.missing(strategy) == ["It is switched off: alerts are stored and not traded."]
    strategy.is_enabled = True
    strategy.full_clean()
    rotate = reverse("admin:execution_strategy_rotate", args=[strategy.pk])
    admin_client.post(rotate, {"old": "now", "reason": "x"})
    assert not strategy.secrets.exists()


def test_the_page_lists_them_and_saving_says_them(admin_client: Client) -> None:
    cache.clear()
    account = AccountFactory.create(name="<b>desk</b>", is_active=False)
    strategy = StrategyFactory.create()
    RouteFactory.create(strategy=strategy, account=account)
    page = reverse("admin:execution_strategy_change", args=[strategy.pk])
    shown = admin_client.get(page).content.decode()
    assert "4 things keep it from trading" in shown
    assert "The account &lt;b&gt;desk&lt;/b&gt; is switched off." in shown
    assert "<b>desk" not in shown
