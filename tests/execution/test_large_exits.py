"""What is more than the venue's largest order leaves in several, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
import time_machine
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from brokers.capabilities import Capabilities
from brokers.models import Instrument
from brokers.types import ExecutionResult, OrderRequest, Outcome, VenueStatus
from execution import slicing, tasks
from execution.models import Order, Signal, Strategy
from execution.states import OrderState, SignalState
from tests.brokers.scripted import CAPABILITIES, accepted, fill_whole, report_of, trade
from tests.execution.guarding import Desk, clock, desk
from tests.execution.slicing import later, quantities, slices, stands
from tests.factories import OrderFactory

__all__ = ["clock", "desk"]
D = Decimal
S = OrderState
SHORTS = replace(CAPABILITIES, short_selling=True, reduce_only=True, locks_balance=False)


@pytest.fixture
def large(desk: Desk) -> Desk:
    """Holds 0.1 behind stops, where no order may be larger than 0.04 by now."""
    desk.buy("0.1")
    Instrument.objects.update(max_quantity=D("0.04"))
    return desk


def exit_of(signal: Signal) -> Order:
    return Order.objects.get(signal=signal, role=Order.Role.EXIT, parent=None)


def settle(clock: time_machine.Coordinates, times: int = 8) -> None:
    for _ in range(times):
        later(clock, 1)


@pytest.mark.django_db
@pytest.mark.parametrize("capabilities", [CAPABILITIES, SHORTS], ids=["spot", "perpetual"])
def test_a_close_leaves_nothing_behind(
    large: Desk, clock: time_machine.Coordinates, capabilities: Capabilities
) -> None:
    large.script.capabilities = capabilities
    signal = large.send("close")
    settle(clock)
    parent = exit_of(signal)
    assert stands(parent) == (S.FILLED, "")
    assert (parent.quantity, quantities()) == (D("0.1"), ["0.03334", "0.03334", "0.03332"])
    assert (large.held(), large.live()) == (0, [])
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED
    (said,) = [one["detail"] for one in parent.verdicts if one["rule"] == "execution"]
    assert said == "iceberg: larger than the venue's largest order"


@pytest.mark.django_db
def test_nor_does_one_that_was_to_fill_whole_or_not_at_all(
    large: Desk, clock: time_machine.Coordinates
) -> None:
    signal = large.send("close", time_in_force="fok", post_only=True)
    settle(clock)
    parent = exit_of(signal)
    assert stands(parent) == (S.FILLED, "")
    assert (parent.quantity, quantities()) == (D("0.1"), ["0.03334", "0.03334", "0.03332"])
    terms = {(one.time_in_force, one.post_only) for one in [parent, *slices()]}
    assert terms == {("gtc", False)}


@pytest.mark.django_db
def test_a_reversal_is_flat_before_it_opens_the_other_side(
    large: Desk, clock: time_machine.Coordinates
) -> None:
    large.script.capabilities = SHORTS
    large.send("sell", quantity="0.03", market_position="short", market_position_size="0.03")
    settle(clock)
    sides = [(one.side, one.reduce_only) for one in large.script.sent if one.stop_price is None]
    assert sides == [("buy", False), *[("sell", True)] * 3, ("sell", False)]
    assert large.held() == D("-0.03")


@pytest.mark.django_db
def test_a_reversal_does_not_take_back_its_own_first_half(
    large: Desk, clock: time_machine.Coordinates
) -> None:
    """It is decided again whenever its lane is looked at, until its second half is made."""
    large.script.capabilities = SHORTS
    alert = {"market_position": "short", "market_position_size": "0.03"}
    signal = large.send("sell", quantity="0.03", order_type="limit", price="61000", **alert)
    for _ in range(2):
        tasks.process_signal(str(signal.pk))
    assert stands(exit_of(signal)) == (S.SLICING, "")
    assert [one.state for one in Order.objects.exclude(parent=None)] == [S.OPEN]


@pytest.mark.django_db
def test_a_part_of_unknown_fate_is_cleared_up_before_the_next(
    large: Desk, clock: time_machine.Coordinates
) -> None:
    def lost(request: OrderRequest) -> ExecutionResult:
        answered = fill_whole(request)
        assert answered.report is not None
        large.script.reports[request.identity] = answered.report
        return ExecutionResult(Outcome.UNKNOWN, code="TIMEOUT")

    large.script.outcomes.append(lost)
    parent = exit_of(large.send("close"))
    settle(clock, 20)
    assert stands(parent) == (S.FILLED, "")
    sold = [one.quantity for one in large.script.sent if one.side == "sell" and not one.stop_price]
    assert sold == [D("0.03334"), D("0.03334"), D("0.03332")]
    assert large.held() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("capabilities", "ends"), [(CAPABILITIES, S.SLICING), (SHORTS, S.FILLED)])
def test_an_exit_that_needs_an_operator_takes_nothing_from_one_that_can_only_reduce(
    large: Desk, clock: time_machine.Coordinates, capabilities: Capabilities, ends: OrderState
) -> None:
    large.script.capabilities = capabilities
    lost = {"side": "sell", "role": Order.Role.EXIT, "state": S.NEEDS_OPERATOR, "quantity": "0.1"}
    OrderFactory.create(account=large.account, **lost)
    large.guard()  # where an exit keeps its coins, no stop can rest for them
    parent = exit_of(large.send("close"))
    settle(clock)
    assert stands(parent) == (ends, "")


def ends_after(quantity: str) -> Callable[[OrderRequest], ExecutionResult]:
    """The venue trades that much of an order at once, and ends it."""

    def placed(request: OrderRequest) -> ExecutionResult:
        fills = [trade(f"T{request.identity}", quantity)] if D(quantity) else []
        return accepted(report_of(request, VenueStatus.EXPIRED, *fills))

    return placed


@pytest.mark.django_db
@pytest.mark.parametrize("traded", ["0.01", "0"])
def test_what_does_not_trade_at_once_is_not_sent_again_where_the_alert_says_so(
    large: Desk, clock: time_machine.Coordinates, traded: str
) -> None:
    large.script.outcomes.append(ends_after(traded))
    alert = {"order_type": "limit", "price": "60000", "time_in_force": "ioc"}
    parent = exit_of(large.send("sell", quantity="0.1", **alert))
    settle(clock)
    assert (stands(parent), quantities()) == ((S.CANCELED, "CANCELED_BY_SIGNAL"), ["0.03334"])
    assert (parent.filled_quantity, large.held()) == (D(traded), D("0.1") - D(traded))


@pytest.mark.django_db
def test_a_part_that_finds_no_market_is_tried_again_after_growing_pauses(large: Desk) -> None:
    """A market without a buyer must not be flooded; what is held leaves all the same."""
    large.script.capabilities = SHORTS
    large.script.outcomes.extend([ends_after("0")] * 4)
    with time_machine.travel(timezone.now(), tick=False) as clock:
        begun = timezone.now()
        parent = exit_of(large.send("close"))
        settle(clock, 40)
    ended = slices()[:4]
    assert [one.state for one in ended] == [S.EXPIRED] * 4
    sent_after = [(one.created_at - begun).total_seconds() for one in slices()]
    assert sent_after == [0, 2, 6, 14, 30, 30, 30]
    assert (stands(parent), large.held()) == ((S.FILLED, ""), 0)


@pytest.mark.django_db
def test_an_entry_is_made_smaller_instead(large: Desk) -> None:
    assert large.buy("0.1", stop=None).quantity == D("0.04")
    assert quantities() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "alert",
    [
        {"quantity": "0.04"},
        {"quantity": "0.1", "time_in_force": "fok", "order_type": "limit", "price": "60000"},
    ],
)
def test_what_fits_or_must_fill_whole_is_one_order_the_venue_takes(
    large: Desk, alert: dict[str, str]
) -> None:
    large.script.outcomes.append(fill_whole)
    exit = exit_of(large.send("sell", **alert))
    assert (quantities(), exit.quantity, exit.state) == ([], D("0.04"), S.FILLED)


@pytest.mark.django_db
def test_an_exit_in_slices_shows_no_more_than_the_venue_takes(
    large: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(exit_execution="twap", slices=2, slicing_seconds=20)
    large.strategy.refresh_from_db()
    large.send("close")
    settle(clock, 30)
    assert all(D(one) <= D("0.04") for one in quantities())
    assert large.held() == 0


amounts = st.integers(1, 10**9).map(lambda units: units * D("0.001"))


@given(amounts, amounts)
def test_equal_parts_are_the_fewest_that_fit(quantity: Decimal, most: Decimal) -> None:
    if quantity / most > 10**4:
        quantity = most * 10**4
    parts = slicing.equal_parts(quantity, most, D("0.001"))
    assert sum(parts) == quantity
    assert len(parts) == math.ceil(quantity / most)
    assert all(0 < one <= most and one % D("0.001") == 0 for one in parts)
