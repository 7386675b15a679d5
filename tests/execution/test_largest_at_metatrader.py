"""More than the agent's file allows in one order, through the real plugin and agent to an imitation of
MetaTrader: exits and stops leave in several, nothing stays behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.models import Account
from execution import account_tasks, halting, periodic_tasks, tasks
from execution.halting import Mode
from execution.models import Order, Position, Strategy
from risk.models import TradingState
from tests.brokers.terminals import mt5
from tests.brokers.terminals.mt5 import C
from tests.brokers.terminals.rigs import mt5_agent
from tests.execution.bridged import bridged
from tests.factories import SignalFactory

pytestmark = pytest.mark.django_db
SYMBOL = "BTC/USDT"
LISTED = f'[instruments."{SYMBOL}"]\nsymbol = "BTCUSDT"\nmax_quantity = "0.002"\n'


@dataclass
class NettingDesk:
    terminal: mt5.Mt5Terminal
    account: Account
    strategy: Strategy

    def send(self, action: str, **alert: Any) -> None:
        fields = {"symbol": SYMBOL, "action": action} | alert
        signal = SignalFactory.create(
            strategy=self.strategy, action=action, symbol=SYMBOL, alert=fields
        )
        tasks.process_signal(str(signal.pk))

    def held(self) -> Decimal:
        return Position.objects.get().quantity

    def sold(self) -> list[float]:
        """The lots of each order at the market that sold."""
        return [
            one["volume"]
            for one in self.terminal.sent
            if one["action"] == C["TRADE_ACTION_DEAL"] and one["type"] == C["ORDER_TYPE_SELL"]
        ]

    def stops(self) -> list[tuple[float, float]]:
        """Lots and price of each stop that rests."""
        rows = self.terminal.orders.values()
        return [(one["volume_current"], one["price_open"]) for one in rows]


@pytest.fixture
def large(eager: None, tmp_path: Path) -> Iterator[NettingDesk]:
    """Holds twice what one order may have, and guards it at the second entry's stop."""
    terminal = mt5.Mt5Terminal()
    with (
        mt5.running(terminal) as address,
        bridged(mt5_agent(tmp_path, terminal, address, instruments=LISTED)) as (account, strategy),
    ):
        desk = NettingDesk(terminal, account, strategy)
        for stop in ("54000", "55000"):
            desk.send("buy", quantity="0.002", stop_loss=stop)
        assert desk.held() == Decimal("0.004")
        yield desk


def until(holds: Callable[[], bool], look: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        look()


def test_a_stop_of_twice_the_largest_order_is_two(large: NettingDesk) -> None:
    two = [(0.002, 55000.0), (0.002, 55000.0)]
    until(lambda: large.stops() == two, lambda: tasks.guard(large.account.pk, SYMBOL))
    assert not Order.objects.filter(reason="NOT_SUPPORTED").exists()


def test_a_close_of_twice_the_largest_order_is_two(large: NettingDesk) -> None:
    large.send("close")
    until(lambda: large.held() == 0, periodic_tasks.sweep)
    assert (large.sold(), large.terminal.held) == ([0.002, 0.002], {})


def test_a_flatten_of_twice_the_largest_order_is_two(large: NettingDesk) -> None:
    halting.press(Mode.FLATTEN, scope=TradingState.Scope.GLOBAL, key="", reason="test")

    def wind_down() -> None:
        account_tasks.wind_down(large.account.pk)
        periodic_tasks.sweep()

    until(lambda: large.held() == 0, wind_down)
    assert (large.sold(), large.terminal.held) == ([0.002, 0.002], {})
