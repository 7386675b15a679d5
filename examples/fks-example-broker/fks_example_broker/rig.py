"""A hand on the venue, for the contract suite of a checkout of FKS (``--rig``)."""

from __future__ import annotations

from pathlib import Path

from brokers.base import ExecutionPlugin
from brokers.types import AccountConfig, Environment, OrderRequest
from fks_example_broker.plugin import PRICES, ExamplePlugin
from fks_example_broker.venue import Venue
from tests.brokers.contract import Rig


class ExampleRig(Rig):
    """Made anew for each test, with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "venue.db")
        self.venue = Venue(self.path, PRICES)
        self.plugin = self.connect()

    def connect(self) -> ExecutionPlugin:
        plugin = ExamplePlugin()
        options = {"path": self.path}
        plugin.init(AccountConfig("1", "example", Environment.SANDBOX, options))
        return plugin

    def placed(self, request: OrderRequest) -> int:
        return len([one for one in self.venue.orders() if one.client_id == request.identity])

    def lose_the_answer(self) -> None:
        self.venue.break_next("answer")

    def lose_the_request(self) -> None:
        self.venue.break_next("request")

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        self.venue.fill(int(broker_order_id), request.quantity / 2)

    def fill_as_a_cancel_arrives(self, request: OrderRequest, broker_order_id: str) -> None:
        """The plugin looks at nothing before it cancels: for it the fill comes with the cancel."""
        self.venue.fill(int(broker_order_id), request.quantity)
