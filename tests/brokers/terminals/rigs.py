"""Bridge agents and the terminals beside them, for the contract suite."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.base import ExecutionPlugin
from brokers.bridge.client import BridgeClient, BridgeError
from brokers.bridge.drivers.ib_orderbook import tells_of
from brokers.bridge.drivers.mt5_terms import magic_of
from brokers.types import OrderRequest, VenueStatus
from tests.brokers.contract import Rig, ref
from tests.brokers.terminals import ib_wire
from tests.brokers.terminals.agent import RunningAgent
from tests.brokers.terminals.ib import Tws
from tests.brokers.terminals.mt5 import Mt5Terminal
from tests.brokers.terminals.nt8 import Nt8Simulator

SHARE = (
    '[instruments."BRK.A/USD"]\nsymbol = "BRK A"\nmax_quantity = "1000"\ntype = "STK"\n'
    'exchange = "SMART"\ncurrency = "USD"\nprimary_exchange = "NYSE"\n'
)
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


class TerminalRig(Rig):
    """A plugin, its agent and a terminal that outlives both."""

    agent: RunningAgent

    def restart(self) -> None:
        """The agent is killed, too."""
        self.agent.kill()
        self.agent.start()
        super().restart()


class Mt5Rig(TerminalRig):
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

    def fill_as_a_cancel_arrives(self, request: OrderRequest, broker_order_id: str) -> None:
        self.terminal.fills_first = True


class LossyClient(BridgeClient):
    """Loses the next placement, on its way there or on its way back."""

    arrives: bool | None = None

    def ask(self, call: str, told: dict[str, Any], seconds: float) -> Any:
        arrives, lossy = LossyClient.arrives, call == "execute_order"
        if not lossy or arrives is None:
            return BridgeClient.ask(self, call, told, seconds)
        LossyClient.arrives = None
        if arrives:
            BridgeClient.ask(self, call, told, seconds)
        raise BridgeError("lost", sent=True)


def nt8_agent(folder: Path, simulator: Nt8Simulator, **more: str) -> RunningAgent:
    folders = "".join(
        f'{name} = "{simulator.root / name}"\n' for name in ("incoming", "outgoing", "log")
    )
    table = more.pop(
        "table",
        'demo_accounts = ["Sim101"]\nbalance = "50000"\ncurrency = "USDT"\ncommission = "1.5"\n'
        'connection = "Feed"\ntimes_in_force = ["gtc"]\ntrust_alert_prices = true\n'
        "take_seconds = 1\nsettle_seconds = 1\nanswer_seconds = 2\n",
    )
    terms = 'tick = "0.01"\nmultiplier = "0.001"\n'
    return RunningAgent(
        folder, "nt8", simulator.account, BTC + terms, table=folders + table, **more
    )


class Nt8Rig(TerminalRig):
    """A contract is a thousandth of a coin here: 2 of them are the suite's 0.002."""

    def __init__(self, simulator: Nt8Simulator, agent: RunningAgent) -> None:
        self.simulator = simulator
        self.agent = agent
        self.plugin = self.connect()

    def connect(self) -> ExecutionPlugin:
        plugin = self.agent.plugin()
        client = plugin._client
        plugin._client = LossyClient(client.url, client.key)
        plugin.fetch_data(self.symbol, Decimal(60000))
        return plugin

    def placed(self, request: OrderRequest) -> int:
        name = f";{self.plugin.client_order_id(request.identity)};"
        rejected = self.simulator.orders.get(name.strip(";"), {}).get("state") == "REJECTED"
        taken = [line for line in self.simulator.lines if line.startswith("PLACE") and name in line]
        return 0 if rejected else len(taken)

    def lose_the_answer(self) -> None:
        LossyClient.arrives = True

    def lose_the_request(self) -> None:
        LossyClient.arrives = False

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        self.simulator.fill(broker_order_id, request.quantity * 500)

    def fill_as_a_cancel_arrives(self, request: OrderRequest, broker_order_id: str) -> None:
        self.simulator.fills_first = True


def ib_agent(folder: Path, tws: Tws, port: int, **more: str) -> RunningAgent:
    instruments, account = more.pop("instruments", SHARE), more.pop("account", tws.accounts[0])
    table = f"port = {port}\nclient_id = 7\nanswer_seconds = 2\n{more.pop('table', '')}"
    return RunningAgent(folder, "ib", account, instruments, table=table, **more)


LONGEST_TEST = timedelta(minutes=1)


class IbRig(TerminalRig):
    """A share at 60000, traded whole."""

    symbol = "BRK.A/USD"
    lot = Decimal(2)

    def __init__(self, tws: Tws, agent: RunningAgent) -> None:
        now = datetime.now(UTC)
        if not tells_of(now, now + LONGEST_TEST, ""):
            pytest.skip("in the first minute of a day TWS's lists of today prove nothing absent")
        self.tws = tws
        self.agent = agent
        self.plugin = self.connect()

    def connect(self) -> ExecutionPlugin:
        return self.agent.plugin()

    def placed(self, request: OrderRequest) -> int:
        return self.tws.placed(self.plugin.client_order_id(request.identity))

    def lose_the_answer(self) -> None:
        self.tws.faults.append("after")

    def lose_the_request(self) -> None:
        self.tws.faults.append("before")

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        self.tws.fill(int(broker_order_id), request.quantity / 2)

    def fill_as_a_cancel_arrives(self, request: OrderRequest, broker_order_id: str) -> None:
        self.tws.fills_first = True

    def cut(self) -> None:
        """The connection breaks, and the agent has noticed and made another one."""
        self.tws.cut()
        end = time.monotonic() + 10
        while not self.plugin.health_check().ok:
            assert time.monotonic() < end
            time.sleep(0.02)

    def sent(self) -> list[dict[str, str]]:
        """The placements TWS read, by the names of their fields."""
        orders = [one for one in self.tws.requests if one[0] == "3"]
        return [ib_wire.named(ib_wire.PLACE_ORDER, one) for one in orders]

    def status_of(self, request: OrderRequest) -> VenueStatus | None:
        report = self.plugin.fetch_order(ref(request))
        return None if report is None else report.status
