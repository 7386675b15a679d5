"""Turning a position over: close, see it flat, then open the other side."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.utils import timezone

from brokers.types import VenueStatus
from execution import dispatch, dispositions, fills, pipeline
from execution.models import Order, Position, Signal
from execution.pipeline import Decision, Step
from execution.states import OrderState, SignalState
from tests.brokers.scripted import report_of, trade
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sell_three() -> Signal:
    """A paper account long 1 BTC, told to sell 3."""
    allow_trading()
    route = RouteFactory.create()
    PositionFactory.create(account=route.account, quantity=Decimal(1))
    return SignalFactory.create(
        strategy=route.strategy,
        action="sell",
        alert={"symbol": "BTC/USDT", "action": "sell", "quantity": "3"},
    )


def decide_and_send(signal: Signal) -> Decision:
    decision = pipeline.decide(signal)
    for account_id, symbol in decision.lanes:
        dispatch.run_lane(account_id, symbol)
    return decision


def test_it_closes_then_opens(sell_three: Signal) -> None:
    first = decide_and_send(sell_three)
    second = decide_and_send(sell_three)

    assert (first.step, second.step) == (Step.WAIT, Step.DECIDED)
    orders = Order.objects.order_by("id").values_list("role", "side", "quantity", "state")
    assert list(orders) == [
        ("exit", "sell", Decimal(1), OrderState.FILLED),
        ("entry", "sell", Decimal(2), OrderState.FILLED),
    ]
    assert Position.objects.get().quantity == Decimal(-2)
    assert dispositions.settle(sell_three.pk) == SignalState.EXECUTED


@pytest.mark.parametrize("by_stop", [Decimal(1), Decimal("0.6")])
def test_what_the_stop_closed_before_the_first_half_was_sent_is_not_opened_again(
    sell_three: Signal, by_stop: Decimal
) -> None:
    account = Position.objects.get().account
    first = pipeline.decide(sell_three)
    stop = OrderFactory.create(
        account=account, side="sell", type="stop", role="stop_loss", quantity=1, state="open"
    )
    fill = trade("by the stop", by_stop, at=timezone.now())
    fills.apply_report(stop, report_of(stop, VenueStatus.CANCELED, fill), source="test")

    dispatch.run_lane(*first.lanes[0])
    decide_and_send(sell_three)

    assert Order.objects.get(role="exit").filled_quantity == 1 - by_stop
    assert Order.objects.get(role="entry").quantity == 2
    assert Position.objects.get().quantity == -2


def test_nothing_is_decided_while_the_first_half_is_under_way(sell_three: Signal) -> None:
    pipeline.decide(sell_three)

    again = pipeline.decide(sell_three)

    assert again == Decision(Step.WAIT)
    assert Order.objects.count() == 1
    sell_three.refresh_from_db()
    assert sell_three.state == SignalState.RECEIVED


def test_the_other_side_is_not_opened_when_closing_failed(sell_three: Signal) -> None:
    pipeline.decide(sell_three)
    Order.objects.update(state=OrderState.REJECTED, reason="VENUE_REJECTED")

    pipeline.decide(sell_three)

    entry = Order.objects.get(role=Order.Role.ENTRY)
    assert (entry.state, entry.reason) == (OrderState.DENIED, "NOT_FLAT")
    sell_three.refresh_from_db()
    assert sell_three.state == SignalState.FAILED


@pytest.mark.parametrize(
    ("position", "step", "exits"),
    [({}, Step.DECIDED, [Decimal("0.5")]), ({"market_position": "short"}, Step.WAIT, [])],
    ids=["a change", "the other side"],
)
def test_what_leaves_nothing_waits_for_what_is_still_being_bought(
    sell_three: Signal, position: dict[str, str], step: Step, exits: list[Decimal]
) -> None:
    """Its size is all there is, and that is not known before the purchase has ended."""
    account = Position.objects.get().account
    OrderFactory.create(account=account, symbol="BTC/USDT", state=OrderState.SUBMITTING)
    sell_three.alert |= {"quantity": "0.5"} | position
    sell_three.save()

    decision = pipeline.decide(sell_three)

    assert decision.step is step
    assert list(Order.objects.filter(role="exit").values_list("quantity", flat=True)) == exits


def test_a_sale_after_which_the_sender_is_long_opens_nothing(sell_three: Signal) -> None:
    Position.objects.update(quantity=Decimal(0))
    sell_three.alert |= {"market_position": "long"}
    sell_three.save()

    decide_and_send(sell_three)

    sell_three.refresh_from_db()
    assert (sell_three.state, sell_three.reason) == (SignalState.IGNORED, "NOTHING_TO_CLOSE")
