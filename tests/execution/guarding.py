"""A venue with one market, and a strategy that trades there with stops and targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.models import Account
from brokers.types import ExecutionResult, FillReport, OrderRequest, OrderType, VenueStatus
from execution import tasks
from execution.models import Order, Position, Protection, Signal, Strategy
from execution.states import TERMINAL
from tests.brokers import scripted as venue
from tests.brokers.scripted import Script, report_of, rest, script_of, trade
from tests.factories import RouteFactory, SignalFactory, StrategyFactory, allow_trading

SYMBOL = "BTC/USDT"
fill_whole = venue.fill_whole


def stops_rest(request: OrderRequest) -> ExecutionResult:
    """A market that does not move: orders fill, stops and limits wait."""
    waits = request.type in (OrderType.STOP, OrderType.LIMIT)
    return rest(request) if waits else fill_whole(request)


@dataclass
class Desk:
    """One account and its strategy; every message is worked off at once."""

    account: Account
    strategy: Strategy
    script: Script

    def send(self, action: str = "buy", symbol: str = SYMBOL, **alert: Any) -> Signal:
        """An alert of the strategy, decided and worked off."""
        fields = {"symbol": symbol, "action": action} | alert
        signal = SignalFactory.create(
            strategy=self.strategy, action=action, symbol=symbol, alert=fields
        )
        tasks.process_signal(str(signal.pk))
        signal.refresh_from_db()
        return signal

    def buy(self, quantity: str = "0.01", *, stop: str | None = "58000", **alert: Any) -> Order:
        """A filled entry; returns it."""
        if stop is not None:
            alert["stop_loss"] = stop
        signal = self.send("buy", quantity=quantity, **alert)
        return Order.objects.get(signal=signal, role=Order.Role.ENTRY)

    def fills(self, order: Order, *fills: FillReport) -> Order:
        """The venue reports ``fills`` as all that ``order`` has traded so far."""
        total = sum((one.quantity for one in fills), Decimal(0))
        status = VenueStatus.FILLED if total == order.quantity else VenueStatus.PARTIALLY_FILLED
        self.script.reports[order.identity] = report_of(order, status, *fills)
        tasks.check_order(str(order.pk))
        order.refresh_from_db()
        return order

    def ends(self, order: Order, status: VenueStatus) -> Order:
        """The venue reports that ``order`` has ended without another fill."""
        self.script.reports[order.identity] = report_of(order, status)
        tasks.check_order(str(order.pk))
        order.refresh_from_db()
        return order

    def live(self) -> list[Order]:
        """Stops that may be at the venue, oldest first."""
        stops = Order.objects.filter(role=Order.Role.STOP_LOSS).exclude(state__in=TERMINAL)
        return list(stops.order_by("id"))

    def guarded(self) -> list[tuple[str, str]]:
        """Quantity and stop price of each live stop."""
        return [(f"{one.remaining:f}", f"{one.stop_price:f}") for one in self.live()]

    def plan(self) -> Protection:
        return Protection.objects.get(account=self.account)

    def held(self) -> Decimal:
        return Position.objects.get(account=self.account, symbol=SYMBOL).quantity

    def guard(self) -> None:
        tasks.guard(self.account.pk, SYMBOL)


def part(number: int, quantity: str, **fields: Any) -> FillReport:
    return trade(f"part {number}", quantity, **fields)


@pytest.fixture
def desk(scripted: Any, eager: None, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Stops rest at the venue, everything else fills at once at 60000."""
    monkeypatch.setattr(venue, "fill_whole", stops_rest)
    allow_trading()
    account = scripted()
    strategy = StrategyFactory.create()
    RouteFactory.create(strategy=strategy, account=account)
    return Desk(account, strategy, script_of(account))


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Time goes on, and ``shift`` moves it."""
    with time_machine.travel(timezone.now(), tick=True) as moved:
        yield moved
