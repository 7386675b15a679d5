"""Bridge agents and the terminals beside them, for the contract suite."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from brokers.base import ExecutionPlugin
from brokers.bridge.drivers.mt5_terms import magic_of
from brokers.types import OrderRequest
from tests.brokers.contract import Rig
from tests.brokers.terminals.agent import RunningAgent
from tests.brokers.terminals.mt5 import Mt5Terminal

BTC = '[instruments."BTC/USDT"]\nsymbol = "BTCUSDT"\nmax_quantity = "1000"\n'


def mt5_agent(folder: Path, terminal: Mt5Terminal, address: str, **more: str) -> RunningAgent:
    return RunningAgent(
        folder,
        "mt5",
        str(terminal.login),
        more.pop("instruments", BTC),
        variables={"FKS_TEST_TERMINAL": address},
        **more,
    )


class Mt5Rig(Rig):
    def __init__(self, terminal: Mt5Terminal, agent: RunningAgent) -> None:
        self.terminal = terminal
        self.agent = agent
        self.plugin = self.connect()

    def connect(self) -> ExecutionPlugin:
        return self.agent.plugin()

    def placed(self, request: OrderRequest) -> int:
        return self.terminal.placed(magic_of(request.identity))

    def lose_the_answer(self) -> None:
        self.terminal.faults.append("after")

    def lose_the_request(self) -> None:
        self.terminal.faults.append("before")

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        half = request.quantity / Decimal(2)
        self.terminal.fill(int(broker_order_id), float(half))
