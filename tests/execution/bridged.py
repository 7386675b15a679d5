"""A strategy that trades through an agent at a terminal, reached by the real plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.utils import timezone

from brokers.accounts import create_account
from brokers.models import Account
from execution.models import Strategy
from tests.brokers.terminals.agent import RunningAgent
from tests.factories import RouteFactory, StrategyFactory, allow_trading


@contextmanager
def bridged(
    agent: RunningAgent, *, currency: str = "USDT", **options: Any
) -> Iterator[tuple[Account, Strategy]]:
    """``agent`` at work, its account (compared with the terminal already) and a strategy for it."""
    allow_trading()
    agent.start()
    account = create_account(
        agent.driver,
        broker="bridge",
        environment=Account.Environment.SANDBOX,
        options={"url": f"http://127.0.0.1:{agent.port}", "account": agent.account, **options},
        credentials={"bridge_key": agent.key},
        quote_currency=currency,
    )
    Account.objects.update(reconciled_at=timezone.now())
    strategy = StrategyFactory.create()
    RouteFactory.create(strategy=strategy, account=account)
    try:
        yield account, strategy
    finally:
        agent.kill()
