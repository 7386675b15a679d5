"""The stop of a position, through the real plugin and agent to an imitation of NinjaTrader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from brokers.models import Account
from execution import alarms, tasks
from execution.models import Alarm, Order, Position, Protection, Strategy
from execution.states import OrderState
from tests.brokers.terminals import nt8
from tests.brokers.terminals.rigs import nt8_agent
from tests.execution.bridged import bridged
from tests.factories import SignalFactory

pytestmark = pytest.mark.django_db
SYMBOL = "BTC/USDT"


@dataclass
class NinjaTraderDesk:
    simulator: nt8.Nt8Simulator
    account: Account
    strategy: Strategy

    def send(self, action: str, **alert: Any) -> Order:
        fields = {"symbol": SYMBOL, "action": action, "price": "60000"} | alert
        signal = SignalFactory.create(
            strategy=self.strategy, action=action, symbol=SYMBOL, alert=fields
        )
        tasks.process_signal(str(signal.pk))
        return Order.objects.filter(signal=signal).exclude(role="stop_loss").get()

    def shown(self) -> list[tuple[str, str]]:
        """Kind and state of each order, by the instructions NinjaTrader took."""
        placed = [line.split(";") for line in self.simulator.lines if line.startswith("PLACE")]
        return [(one[5], self.simulator.orders[one[10]]["state"]) for one in placed]

    def commands(self) -> set[str]:
        return {line.partition(";")[0] for line in self.simulator.lines}

    def stop(self) -> Order:
        return Order.objects.filter(role=Order.Role.STOP_LOSS).latest("id")


@pytest.fixture
def desk(eager: None, tmp_path: Path) -> Iterator[NinjaTraderDesk]:
    with (
        nt8.running(nt8.Nt8Simulator(tmp_path)) as simulator,
        bridged(nt8_agent(tmp_path, simulator)) as (account, strategy),
    ):
        yield NinjaTraderDesk(simulator, account, strategy)


def test_the_stop_follows_the_fill_and_ends_with_the_position(desk: NinjaTraderDesk) -> None:
    entry = desk.send("buy", quantity="0.002", stop_loss="58000")
    assert (entry.state, entry.detail) == (OrderState.FILLED, "")
    assert desk.shown() == [("MARKET", "FILLED"), ("STOPMARKET", "WORKING")]
    stop = desk.stop()
    assert (stop.state, stop.quantity) == (OrderState.OPEN, Decimal("0.002"))
    assert Protection.objects.get().naked_since is None

    desk.send("close")
    assert desk.shown() == [
        ("MARKET", "FILLED"),
        ("STOPMARKET", "CANCELLED"),
        ("MARKET", "FILLED"),
    ]
    assert Position.objects.get().quantity == 0
    assert desk.commands() == {"PLACE", "CANCEL"}


def test_a_position_whose_stop_nobody_takes_is_an_alarm(desk: NinjaTraderDesk) -> None:
    entry = desk.send("buy", quantity="0.002", order_type="limit", price="50000", stop_loss="48000")
    desk.simulator.fill(entry.broker_order_id, Decimal(2))
    desk.simulator.asleep = True
    tasks.check_order(str(entry.pk))
    assert desk.shown() == [("LIMIT", "FILLED")]
    assert Protection.objects.get().naked_since is not None
    Protection.objects.update(naked_since=timezone.now() - timedelta(seconds=5))
    alarms.look()
    assert [one.kind for one in Alarm.objects.all()] == ["naked_position"]
