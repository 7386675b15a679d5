"""By a price nobody told a position is closed, and nothing is opened."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import time_machine

from brokers.errors import QueryFailedError
from execution import pipeline
from execution.alerts import Alert
from execution.facts import Leg
from execution.models import Order, Position, Signal, Strategy
from execution.routing import open_legs
from execution.states import OrderState, SignalState
from risk.types import ReasonCode
from tests.execution.guarding import Desk, clock, desk
from tests.execution.slicing import later, quantities

__all__ = ["clock", "desk"]
pytestmark = pytest.mark.django_db
D = Decimal
S = OrderState
LONG: dict[str, Any] = {"market_position": "long"}


def only_order(signal: Signal) -> Order:
    return Order.objects.get(signal=signal, parent=None)


def fall_silent(desk: Desk) -> None:
    desk.script.quote_failure = QueryFailedError("no answer")


def test_a_target_that_is_an_entry_needs_a_price_though_its_sender_sold(desk: Desk) -> None:
    """Less is held than the sender thinks."""
    desk.buy("0.01", stop=None)
    fall_silent(desk)
    signal = desk.send("sell", price="60000", **LONG, market_position_size="0.03")
    assert (signal.state, signal.reason) == (SignalState.DENIED, ReasonCode.VENUE_UNREACHABLE)
    assert desk.held() == D("0.01")


def test_a_target_that_turns_out_to_be_an_entry_needs_a_price(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was an exit when the market was read, and a stop has filled since."""
    desk.buy("0.04", stop=None)
    fall_silent(desk)

    def read_before_it_filled(signal: Signal, alert: Alert) -> list[Leg]:
        legs = open_legs(signal, alert)
        Position.objects.update(quantity=D("0.01"))
        return legs

    monkeypatch.setattr(pipeline, "open_legs", read_before_it_filled)
    signal = desk.send("sell", price="60000", **LONG, market_position_size="0.03")
    assert (signal.state, signal.reason) == (SignalState.DENIED, ReasonCode.REFERENCE_UNAVAILABLE)
    assert desk.held() == D("0.01")


def test_without_a_price_a_sale_of_more_than_is_held_closes(desk: Desk) -> None:
    desk.buy("0.01", stop=None)
    fall_silent(desk)
    order = only_order(desk.send("sell", price="60000", quantity="0.03"))
    assert (order.role, order.quantity, order.state) == ("exit", D("0.01"), S.FILLED)
    assert desk.held() == 0


def test_slices_that_sell_more_than_is_held_wait_for_a_price(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.03", stop=None)
    Strategy.objects.update(execution="twap", slices=4, slicing_seconds=100)
    desk.strategy.refresh_from_db()
    parent = only_order(desk.send("sell", price="60000", quantity="0.04"))
    assert (parent.role, parent.state, quantities()) == ("entry", S.SLICING, ["0.01"])
    fall_silent(desk)
    later(clock, 25)
    parent.plan.refresh_from_db()
    assert quantities() == ["0.01"]
    assert parent.plan.detail.startswith("REFERENCE_UNAVAILABLE: ")
    desk.script.quote_failure = None
    later(clock, 25)
    assert len(quantities()) == 2
