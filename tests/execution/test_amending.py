"""Amending a limit order: cancelled, seen cancelled, and only then placed anew."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brokers.types import CancelResult, Outcome, VenueStatus
from execution import commands, tasks
from execution.models import Order, Signal
from execution.states import OrderState, SignalState
from tests.brokers.scripted import report_of
from tests.execution.guarding import Desk, desk, part

__all__ = ["desk"]

pytestmark = pytest.mark.django_db
S = OrderState


@pytest.fixture
def resting(desk: Desk, worked_off: None) -> Order:
    """0.01 BTC wanted at 50000, open at the venue."""
    return desk.buy(stop=None, order_type="limit", price="50000")


def amend(order: Order, **change: Decimal | None) -> Signal:
    whole = {"price": None, "quantity": None} | change
    signal = commands.amend(order, **whole, key="", reason="test")
    order.refresh_from_db()
    signal.refresh_from_db()
    return signal


def live(desk: Desk) -> list[Order]:
    return list(Order.objects.filter(account=desk.account, state__in=(S.OPEN, S.PARTIALLY_FILLED)))


def test_the_old_order_is_canceled_and_a_new_one_rests(desk: Desk, resting: Order) -> None:
    signal = amend(resting, price=Decimal(51000))
    (new,) = live(desk)
    assert resting.state == S.CANCELED
    assert (new.signal, new.price, new.quantity) == (signal, Decimal(51000), Decimal("0.01"))
    assert new.identity != resting.identity
    assert desk.script.canceled[0].identity == resting.identity


def test_what_traded_comes_off_the_new_quantity(desk: Desk, resting: Order) -> None:
    desk.fills(resting, part(1, "0.004"))
    amend(resting, quantity=Decimal("0.02"))
    (new,) = live(desk)
    assert (new.price, new.quantity) == (Decimal(50000), Decimal("0.016"))


def test_nothing_is_placed_before_the_cancel_is_seen(desk: Desk, resting: Order) -> None:
    desk.script.cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 3)
    signal = amend(resting, price=Decimal(51000))
    assert (resting.state, signal.state) == (S.CANCELING, SignalState.RECEIVED)
    assert len(desk.script.sent) == 1
    desk.script.reports[resting.identity] = report_of(resting, VenueStatus.CANCELED)
    tasks.check_order(str(resting.pk))
    tasks.process_signal(str(signal.pk))
    assert [order.price for order in live(desk)] == [Decimal(51000)]


def test_an_order_that_fills_meanwhile_is_not_placed_again(desk: Desk, resting: Order) -> None:
    desk.script.cancel_results.append(CancelResult(Outcome.REJECTED))
    desk.script.reports[resting.identity] = report_of(resting, VenueStatus.FILLED, part(1, "0.01"))
    signal = amend(resting, price=Decimal(51000))
    if signal.state == SignalState.RECEIVED:
        tasks.process_signal(str(signal.pk))
        signal.refresh_from_db()
    assert (signal.state, signal.reason) == (SignalState.IGNORED, "NOTHING_TO_CANCEL")
    assert Order.objects.count() == 1


def test_what_has_no_price_or_does_not_work_is_not_amended(desk: Desk, resting: Order) -> None:
    market = desk.buy(stop=None)
    with pytest.raises(commands.Conflict, match="has no limit price"):
        amend(market, price=Decimal(1))
    amend(resting, price=Decimal(51000))
    with pytest.raises(commands.Conflict, match="is not working: canceled"):
        amend(resting, price=Decimal(52000))
