"""An exit that rests while its position is closed otherwise does not open the other side later."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.utils import timezone

from brokers.models import Account
from execution import outlived, periodic_tasks
from execution.models import Difference, Order
from execution.states import OrderState, SignalState
from tests.brokers.scripted import CAPABILITIES
from tests.execution.guarding import SYMBOL, Desk, clock, desk, part

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def exit_order(desk: Desk) -> Order:
    """A limit order above the market that closes 0.01 BTC, where nothing but us says that it only
    reduces; a stop rests below.
    """
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    desk.buy("0.01")
    signal = desk.send("sell", quantity="0.01", order_type="limit", price="61000")
    order = Order.objects.get(signal=signal)
    assert (order.role, order.state) == ("exit", OrderState.OPEN)
    return order


def end_of(order: Order) -> tuple[str, str]:
    """How the order stands after a sweep; the venue obeys cancels."""
    periodic_tasks.sweep()
    order.refresh_from_db()
    return order.state, order.reason


def test_it_is_cancelled_when_the_stop_has_filled(desk: Desk, exit_order: Order) -> None:
    [stop] = desk.live()
    desk.fills(stop, part(1, "0.01", price="58000"))
    assert desk.held() == 0

    assert end_of(exit_order) == (OrderState.CANCELED, "NOTHING_TO_CLOSE")
    assert [ref.identity for ref in desk.script.canceled] == [exit_order.identity]
    signal = exit_order.signal
    assert signal is not None
    signal.refresh_from_db()
    assert (signal.state, signal.reason) == (SignalState.IGNORED, "NOTHING_TO_CLOSE")


def test_it_is_cancelled_when_a_market_order_has_sold(desk: Desk, exit_order: Order) -> None:
    desk.send("sell", quantity="0.01")
    assert desk.held() == 0

    assert end_of(exit_order) == (OrderState.CANCELED, "NOTHING_TO_CLOSE")


def test_it_stays_while_anything_is_held(desk: Desk, exit_order: Order) -> None:
    desk.send("sell", quantity="0.006")

    assert end_of(exit_order) == (OrderState.OPEN, "")


def test_it_stays_while_the_book_may_be_wrong(desk: Desk, exit_order: Order) -> None:
    desk.send("sell", quantity="0.01")
    now = timezone.now()
    doubt = Difference.objects.create(
        account=desk.account,
        symbol=SYMBOL,
        kind=Difference.Kind.POSITION,
        key="",
        state=Difference.State.OPEN,
        detail="",
        first_seen_at=now,
        last_seen_at=now,
    )
    assert end_of(exit_order) == (OrderState.OPEN, "")
    doubt.delete()
    Account.objects.update(reconciled_at=None)
    outlived.want_gone()
    exit_order.refresh_from_db()
    assert exit_order.cancel_reason == ""
    Account.objects.update(reconciled_at=now)
    assert end_of(exit_order)[0] == OrderState.CANCELED


def test_an_order_an_operator_took_over_is_theirs(desk: Desk, exit_order: Order) -> None:
    Order.objects.filter(pk=exit_order.pk).update(is_adopted=True)
    desk.send("sell", quantity="0.01")

    assert end_of(exit_order) == (OrderState.OPEN, "")
