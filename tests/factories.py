"""Rows for tests. Every factory makes a row that could exist in production."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import factory
from django.contrib.auth.models import User
from django.utils import timezone
from factory.django import DjangoModelFactory

from brokers.models import Account
from execution.authentication import new_secret
from execution.ids import uuid7
from execution.models import Fill, Order, Position, Route, Signal, Strategy
from execution.states import OrderState, SignalState
from risk.models import RiskLimit, RiskPolicy

PASSWORD = "correct horse battery staple"


class UserFactory(DjangoModelFactory[User]):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"user{n}")
    password = factory.django.Password(PASSWORD)
    is_staff = True


class AccountFactory(DjangoModelFactory[Account]):
    """A paper account that quotes BTC/USDT at 60000."""

    class Meta:
        model = Account

    name = factory.Sequence(lambda n: f"paper{n}")
    broker = "paper"
    environment = Account.Environment.DRY_RUN
    reconciled_at = factory.LazyFunction(timezone.now)
    options = factory.LazyFunction(
        lambda: {"prices": {"BTC/USDT": "60000", "ETH/USDT": "3000"}, "spread_bps": "0"}
    )


class StrategyFactory(DjangoModelFactory[Strategy]):
    """A strategy without allowlist, confidence or reward rules."""

    class Meta:
        model = Strategy

    slug = factory.Sequence(lambda n: f"strategy{n}")


class RouteFactory(DjangoModelFactory[Route]):
    class Meta:
        model = Route

    strategy = factory.SubFactory(StrategyFactory)
    account = factory.SubFactory(AccountFactory)
    quantity = Decimal("0.01")


class SignalFactory(DjangoModelFactory[Signal]):
    """A received, undecided buy of 0.01 BTC at the market."""

    class Meta:
        model = Signal

    id = factory.LazyFunction(uuid7)
    strategy = factory.SubFactory(StrategyFactory)
    received_at = factory.LazyFunction(timezone.now)
    auth = "token"
    body = "{}"
    symbol = "BTC/USDT"
    action = "buy"
    alert = factory.LazyAttribute(
        lambda row: {"symbol": row.symbol, "action": row.action, "quantity": "0.01"}
    )
    state = SignalState.RECEIVED


class OrderFactory(DjangoModelFactory[Order]):
    """A pending entry: buy 0.01 BTC at the market."""

    class Meta:
        model = Order

    id = factory.LazyFunction(uuid7)
    account = factory.SubFactory(AccountFactory)
    symbol = "BTC/USDT"
    side = "buy"
    type = "market"
    role = Order.Role.ENTRY
    quantity = Decimal("0.01")
    reference_price = Decimal(60000)
    state = OrderState.PENDING
    client_order_id = factory.LazyAttribute(lambda row: row.id.hex)
    created_at = factory.LazyFunction(timezone.now)
    updated_at = factory.LazyFunction(timezone.now)


class FillFactory(DjangoModelFactory[Fill]):
    class Meta:
        model = Fill

    order = factory.SubFactory(OrderFactory)
    account = factory.SelfAttribute("order.account")
    trade_id = factory.Sequence(lambda n: f"trade-{n}")
    symbol = factory.SelfAttribute("order.symbol")
    side = factory.SelfAttribute("order.side")
    quantity = Decimal("0.01")
    price = Decimal(60000)
    fee_currency = "USDT"
    at = factory.LazyFunction(timezone.now)
    recorded_at = factory.LazyFunction(timezone.now)


class PositionFactory(DjangoModelFactory[Position]):
    class Meta:
        model = Position

    account = factory.SubFactory(AccountFactory)
    symbol = "BTC/USDT"
    quantity = Decimal("0.01")
    average_price = Decimal(60000)
    updated_at = factory.LazyFunction(timezone.now)


def allow_trading(**limits: str) -> None:
    """Global limits wide enough for the tests' orders; named ones override."""
    policy, _ = RiskPolicy.objects.get_or_create(account=None, strategy="", symbol="")
    wide = {"max_order_value": "1000000", "max_position_value": "1000000"} | limits
    for rule, value in wide.items():
        RiskLimit.objects.update_or_create(
            policy=policy, rule=rule, defaults={"value": Decimal(value)}
        )


def webhook(*, auth: str = Strategy.Auth.TOKEN, **strategy: Any) -> tuple[Strategy, str]:
    """A strategy with a route to a paper account, trading allowed; returns its secret as well."""
    allow_trading()
    row = StrategyFactory.create(auth=auth, **strategy)
    RouteFactory.create(strategy=row)
    _, secret = new_secret(row, auth)
    return row, secret
