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

from brokers.models import Account, Instrument
from execution import protect, reconcile, tasks
from execution.models import Order, Position, Protection, Strategy
from execution.states import OrderState
from tests.brokers.terminals import mt5
from tests.brokers.terminals.mt5 import C
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

    def asked(self) -> list[float]:
        """The stops of the requests that changed a ticket's levels."""
        changes = [one for one in self.terminal.sent if one["action"] == C["TRADE_ACTION_SLTP"]]
        return [one["sl"] for one in changes]

    def fills(self, entry: Order, volume: float) -> None:
        """So much more of ``entry`` trades, and FKS hears of it."""
        self.terminal.fill(int(entry.broker_order_id), volume)
        tasks.check_order(str(entry.pk))

    def waits(self) -> Order:
        """An entry with a stop loss, of which nothing has traded."""
        limit = {"order_type": "limit", "price": "59000", "stop_loss": "55000"}
        self.send("buy", quantity="0.004", **limit)
        return Order.objects.get(role=Order.Role.ENTRY)


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


def test_the_stop_of_an_entry_that_fills_in_parts_is_of_the_tickets_size(desk: HedgingDesk) -> None:
    entry = desk.waits()
    for part in (0.001, 0.001, 0.002):
        desk.fills(entry, part)
        assert desk.levels() == [55000.0]
        assert Protection.objects.get().naked_since is None
    assert desk.stops() == [
        (OrderState.CANCELED, Decimal("0.001")),
        (OrderState.CANCELED, Decimal("0.002")),
        (OrderState.OPEN, Decimal("0.004")),
    ]
    assert desk.asked() == [55000.0]
    assert reconcile.reconcile_account(desk.account) == []

    [ticket] = desk.terminal.held
    desk.terminal.stop_out(ticket)
    tasks.check_order(str(Order.objects.filter(role=Order.Role.STOP_LOSS).latest("id").pk))
    assert desk.stops()[-1] == (OrderState.FILLED, Decimal("0.004"))
    assert Position.objects.get().quantity == 0


def test_a_ticket_that_grows_is_guarded_before_its_stop_is_of_its_size(
    desk: HedgingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its level closes all of it: nothing else has to."""
    entry = desk.waits()
    desk.fills(entry, 0.001)
    monkeypatch.setattr(tasks, "_guard", lambda *_: None)
    desk.fills(entry, 0.003)
    protect.align(desk.account, SYMBOL)
    plan = Protection.objects.get()
    assert (plan.naked_since, plan.detail) == (None, "0.004 guarded at 55000")


def test_a_ticket_that_gets_smaller_keeps_its_level(desk: HedgingDesk) -> None:
    desk.send("buy", quantity="0.002", stop_loss="55000")
    desk.send("sell", quantity="0.001")
    assert desk.stops() == [
        (OrderState.CANCELED, Decimal("0.002")),
        (OrderState.OPEN, Decimal("0.001")),
    ]
    assert desk.asked() == [55000.0]


def test_a_stop_that_fills_on_a_smaller_ticket_than_its_own_leaves_nothing_at_work(
    desk: HedgingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send("buy", quantity="0.002", stop_loss="55000")
    with monkeypatch.context() as slow:
        slow.setattr(tasks, "_guard", lambda *_: None)
        desk.send("sell", quantity="0.001")
    [ticket] = desk.terminal.held
    desk.terminal.stop_out(ticket)
    stop = Order.objects.get(role=Order.Role.STOP_LOSS)
    tasks.check_order(str(stop.pk))
    stop.refresh_from_db()
    assert (stop.state, stop.filled_quantity) == (OrderState.CANCELED, Decimal("0.001"))
    assert Position.objects.get().quantity == 0


def test_another_logins_larger_lots_take_no_stop_off(desk: HedgingDesk) -> None:
    """The rules are old as somebody logs the terminal in elsewhere; they stay, and so does the stop."""
    desk.send("buy", quantity="0.002", stop_loss="55000")
    rules, own = desk.account.instruments.get(symbol=SYMBOL).rules(), desk.terminal.login
    Instrument.objects.update(refreshed_at=F("refreshed_at") - timedelta(days=1))
    symbol = desk.terminal.symbols["BTCUSDT"]
    desk.terminal.login, contract, symbol.contract = 1, symbol.contract, 1000.0
    tasks.guard(desk.account.pk, SYMBOL)
    plan = Protection.objects.get()
    assert (plan.is_active, plan.detail) == (True, "0.002 guarded at 55000")
    assert Instrument.objects.get(symbol=SYMBOL).rules() == rules

    desk.terminal.login, symbol.contract = own, contract
    tasks.guard(desk.account.pk, SYMBOL)
    assert desk.stops() == [(OrderState.OPEN, Decimal("0.002"))]
    assert (desk.levels(), desk.asked()) == ([55000.0], [55000.0])
