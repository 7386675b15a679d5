"""A stop that leaves with its entry, through the real plugin and agent to an imitation of TWS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.models import Account
from execution import attached, reconcile, tasks
from execution.models import Difference, Order, Position, Strategy
from execution.states import OrderState
from tests.brokers.terminals import ib
from tests.brokers.terminals.rigs import ib_agent
from tests.execution.bridged import bridged
from tests.factories import SignalFactory

pytestmark = pytest.mark.django_db
SYMBOL = "NYSE:BRK.A"


@dataclass
class TwsDesk:
    tws: ib.Tws
    account: Account
    strategy: Strategy

    def send(self, action: str, **alert: Any) -> Order:
        fields = {"symbol": SYMBOL, "action": action} | alert
        signal = SignalFactory.create(
            strategy=self.strategy, action=action, symbol=SYMBOL, alert=fields
        )
        tasks.process_signal(str(signal.pk))
        return Order.objects.filter(signal=signal).exclude(role="stop_loss").get()

    def buy(self) -> Order:
        """An entry that rests at 50000 with a stop at 48000."""
        limit = {"order_type": "limit", "price": "50000", "stop_loss": "48000"}
        return self.send("buy", quantity="2", **limit)

    def shown(self) -> list[tuple[str, str]]:
        return [(row["orderType"], row["status"]) for row in self.tws.orders.values()]


@pytest.fixture
def desk(eager: None, tmp_path: Path) -> Iterator[TwsDesk]:
    tws = ib.Tws()
    with (
        ib.running(tws) as port,
        bridged(ib_agent(tmp_path, tws, port), currency="USD", shares=True) as (account, strategy),
    ):
        yield TwsDesk(tws, account, strategy)


def test_what_fills_while_fks_is_away_is_guarded_and_taken_over(desk: TwsDesk) -> None:
    entry = desk.buy()
    assert (entry.state, entry.detail) == (OrderState.OPEN, "")
    desk.tws.fill(int(entry.broker_order_id), Decimal(2))
    assert desk.shown() == [("LMT", "Filled"), ("STP", "PreSubmitted")]

    for order in (entry.pk, attached.stop_id(entry)):
        tasks.check_order(str(order))
    (stop,) = Order.objects.filter(role=Order.Role.STOP_LOSS)
    assert (stop.state, stop.quantity, stop.stop_price) == (
        OrderState.OPEN,
        Decimal(2),
        Decimal(48000),
    )
    reconcile.reconcile_account(desk.account)
    assert Difference.objects.count() == 0

    desk.send("close")
    assert desk.shown() == [("LMT", "Filled"), ("STP", "Cancelled"), ("MKT", "Filled")]
    assert Position.objects.get().quantity == 0


def test_an_entry_that_lost_its_stop_on_the_way_ends(desk: TwsDesk) -> None:
    desk.tws.faults.extend([None, "before"])
    entry = desk.buy()
    tasks.check_order(str(entry.pk))
    entry.refresh_from_db()
    assert entry.journal.filter(to_state=OrderState.UNKNOWN).count() == 1
    assert (entry.state, entry.filled_quantity) == (OrderState.CANCELED, Decimal(0))
    assert desk.shown() == [("LMT", "Cancelled")]
