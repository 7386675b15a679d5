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

from brokers.models import Account
from execution import reconcile, tasks
from execution.models import Order, Protection, Strategy
from execution.states import OrderState
from tests.brokers.terminals import mt5
from tests.brokers.terminals.rigs import mt5_agent
from tests.execution.bridged import bridged
from tests.factories import SignalFactory

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
    terminal = mt5.Mt5Terminal(margin_mode=2)
    with (
        mt5.running(terminal) as address,
        bridged(mt5_agent(tmp_path, terminal, address)) as (account, strategy),
    ):
        yield HedgingDesk(terminal, account, strategy)


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
