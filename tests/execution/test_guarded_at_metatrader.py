"""The stops of a ticket, one after the other, through the real plugin and agent to an imitation of
MetaTrader with a hedging account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from brokers.accounts import create_account
from brokers.models import Account
from execution import reconcile, tasks
from execution.models import Order, Protection, Strategy
from execution.states import OrderState
from tests.brokers.terminals import mt5
from tests.brokers.terminals.rigs import mt5_agent
from tests.factories import RouteFactory, SignalFactory, StrategyFactory, allow_trading

pytestmark = pytest.mark.django_db
SYMBOL = "BTC/USDT"


@dataclass
class HedgingDesk:
    terminal: mt5.Mt5Terminal
    account: Account
    strategy: Strategy

    def send(self, action: str, **alert: Any) -> None:
        fields = {"symbol": SYMBOL, "action": action} | alert
        signal = SignalFactory.create(
            strategy=self.strategy, action=action, symbol=SYMBOL, alert=fields
        )
        tasks.process_signal(str(signal.pk))

    def stops(self) -> list[tuple[str, Decimal]]:
        rows = Order.objects.filter(role=Order.Role.STOP_LOSS).order_by("id")
        return list(rows.values_list("state", "quantity"))

    def levels(self) -> list[float]:
        return [ticket["sl"] for ticket in self.terminal.held.values()]


@pytest.fixture
def desk(eager: None, tmp_path: Path) -> Iterator[HedgingDesk]:
    allow_trading()
    terminal = mt5.Mt5Terminal(margin_mode=2)
    with mt5.running(terminal) as address:
        agent = mt5_agent(tmp_path, terminal, address)
        agent.start()
        account = create_account(
            "hedging",
            broker="bridge",
            environment=Account.Environment.SANDBOX,
            options={"url": f"http://127.0.0.1:{agent.port}", "account": agent.account},
            credentials={"bridge_key": agent.key},
            quote_currency="USDT",
        )
        Account.objects.update(reconciled_at=timezone.now())
        strategy = StrategyFactory.create()
        RouteFactory.create(strategy=strategy, account=account)
        try:
            yield HedgingDesk(terminal, account, strategy)
        finally:
            agent.kill()


def test_a_stop_before_the_working_one_stays_ended_and_the_ticket_keeps_its_level(
    desk: HedgingDesk,
) -> None:
    desk.send("buy", quantity="0.002", stop_loss="55000")
    desk.send("sell", quantity="0.001")
    stops = [(OrderState.CANCELED, Decimal("0.002")), (OrderState.OPEN, Decimal("0.001"))]
    assert (desk.stops(), desk.levels()) == (stops, [55000.0])
    Order.objects.filter(state=OrderState.CANCELED).update(
        finished_at=F("finished_at") - timedelta(minutes=1)
    )
    assert reconcile.reconcile_account(desk.account) == []
    tasks.guard(desk.account.pk, SYMBOL)
    assert (desk.stops(), desk.levels()) == (stops, [55000.0])
    assert Protection.objects.get().naked_since is None
