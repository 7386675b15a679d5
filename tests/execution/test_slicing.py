"""Dividing an order into slices: exact sums, the venue's minimum, and catching up without a burst."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.types import Instrument, Side
from execution import slicing
from execution.aims import entry_of
from execution.alerts import Alert, Algorithm
from execution.models import Order, SlicePlan, Strategy
from execution.slicing import Pace

D = Decimal
AT = datetime(2026, 7, 1, 12, tzinfo=UTC)
STEP = D("0.001")


def rules(**columns: Any) -> Instrument:
    given = {"quantity_step": STEP, "price_tick": D("0.01"), "min_quantity": D("0.002")}
    return Instrument("BTC/USDT", "BTCUSDT", "BTC", "USDT", **(given | columns))


def planned(whole: str, **strategy: Any) -> SlicePlan | None:
    row = Strategy(**({"execution": "twap", "slices": 5, "slicing_seconds": 100} | strategy))
    order = Order(role=Order.Role.ENTRY, quantity=D(whole), reference_price=D(100), created_at=AT)
    return slicing.plan_of(order, Algorithm.TWAP, row, rules())


@pytest.mark.parametrize(
    ("whole", "slices", "each"),
    [
        ("1", 5, "0.2"),
        ("0.011", 5, "0.002"),  # a fifth would be 0.0022
        ("0.009", 4, "0.002"),  # a fifth is too small: fewer slices
        ("0.004", 2, "0.002"),
    ],
)
def test_no_slice_is_planned_below_the_minimum(whole: str, slices: int, each: str) -> None:
    plan = planned(whole)
    assert plan is not None
    assert (plan.slices, plan.slice_quantity) == (slices, D(each))


def test_what_is_too_small_for_two_slices_goes_out_whole() -> None:
    assert planned("0.003") is None


@pytest.mark.parametrize(
    ("execution", "alert", "is_divided"),
    [
        ("whole", {"order_type": "stop", "stop_price": "101"}, True),
        ("twap", {}, True),
        ("twap", {"order_type": "limit", "price": "99"}, True),
        ("twap", {"order_type": "limit", "price": "99", "time_in_force": "fok"}, False),
        ("twap", {"order_type": "stop", "stop_price": "101"}, False),
        ("twap", {"replaces": "an order"}, False),
        ("iceberg", {}, False),
        ("iceberg", {"order_type": "limit", "price": "99"}, True),
        ("iceberg", {"order_type": "limit", "price": "99", "time_in_force": "ioc"}, False),
    ],
)
def test_what_can_be_divided(execution: str, alert: dict[str, str], is_divided: bool) -> None:
    stored = Alert.from_json({"symbol": "BTC/USDT", "action": "buy"} | alert)
    assert stored.divides_by(Algorithm(execution)) is is_divided


def test_whole_is_no_plan() -> None:
    order = Order(role=Order.Role.ENTRY, quantity=D(1), reference_price=D(100), created_at=AT)
    assert slicing.plan_of(order, Algorithm.WHOLE, Strategy(), rules()) is None


def test_an_iceberg_shows_what_the_strategy_says() -> None:
    row = Strategy(slices=5, slice_quantity=D("0.0305"))
    order = Order(role=Order.Role.ENTRY, quantity=D("0.1"), reference_price=D(100), created_at=AT)
    plan = slicing.plan_of(order, Algorithm.ICEBERG, row, rules())
    assert plan is not None
    assert (plan.slice_quantity, plan.seconds) == (D("0.030"), 0)


@pytest.mark.parametrize(
    ("minimums", "price", "least"),
    [
        ({}, "100", "0.002"),
        ({"min_quantity": None}, "100", "0.001"),
        ({"min_value": D(5)}, "100", "0.05"),
        ({"min_value": D(5)}, "99", "0.051"),
        ({"min_value": D("0.1")}, "100", "0.002"),
    ],
)
def test_the_smallest_order(minimums: dict[str, Any], price: str, least: str) -> None:
    assert slicing.least_order(rules(**minimums), D(price)) == D(least)


PACE = Pace(AT, timedelta(seconds=100), 5)


@pytest.mark.parametrize(
    ("second", "left"), [(0, 5), (0.5, 5), (20, 4), (59, 3), (60, 2), (81, 1), (100, 1), (500, 1)]
)
def test_the_slices_left_follow_the_clock(second: float, left: int) -> None:
    assert PACE.slots_left(AT + timedelta(seconds=second)) == left


@pytest.mark.parametrize("count", [3, 7, 9, 99])
def test_an_interval_that_is_no_whole_number_of_microseconds(count: int) -> None:
    pace = Pace(AT, timedelta(seconds=100), count)
    assert [pace.slots_left(AT + pace.interval * n) for n in range(count)] == list(
        range(count, 0, -1)
    )


@pytest.mark.parametrize(("late", "then"), [(0, 40), (9, 40), (11, 51), (300, 340)])
def test_two_slices_never_start_together(late: int, then: int) -> None:
    due = AT + timedelta(seconds=20)
    assert PACE.next_at(due, due + timedelta(seconds=late)) == AT + timedelta(seconds=then)


numbers = st.integers(min_value=1, max_value=10**6)


@given(
    steps=numbers,
    slices=st.integers(min_value=2, max_value=100),
    least=st.integers(min_value=1, max_value=50),
    lags=st.lists(st.integers(min_value=0, max_value=400), min_size=0, max_size=30),
)
def test_slices_add_up_to_the_whole(steps: int, slices: int, least: int, lags: list[int]) -> None:
    """However late each of them starts: nothing is lost, none is too small, none is a burst."""
    whole, smallest = steps * STEP, least * STEP
    order = Order(role=Order.Role.ENTRY, quantity=whole, reference_price=D(1), created_at=AT)
    row = Strategy(slices=slices, slicing_seconds=600)
    limits = rules(min_quantity=smallest)
    plan = slicing.plan_of(order, Algorithm.TWAP, row, limits)
    if plan is None:
        assert whole < smallest * 2
        return
    pace, now, due, left, made = slicing.pace_of(plan), AT, AT, whole, []
    while left:
        now = due + timedelta(seconds=lags[len(made)] if len(made) < len(lags) else 0)
        quantity = slicing.next_quantity(plan, left, now, step=STEP, least=smallest)
        assert smallest <= quantity <= plan.slice_quantity * 2 + smallest
        assert quantity % STEP == 0
        left -= quantity
        made.append(quantity)
        due = pace.next_at(due, now)
    assert sum(made) == whole
    assert len(made) <= plan.slices * 2 + 1


def test_a_rest_below_the_minimum_is_no_slice() -> None:
    plan = planned("1")
    assert plan is not None
    assert slicing.next_quantity(plan, D("0.001"), AT, step=STEP, least=D("0.002")) == 0


@pytest.mark.parametrize(
    ("side", "prices"), [("buy", ["100", "99.5", "99"]), ("sell", ["100", "100.5", "101"])]
)
def test_each_rung_is_better_than_the_one_before(side: str, prices: list[str]) -> None:
    rungs = [slicing.rung_price(D(100), Side(side), D("0.5"), number) for number in (1, 2, 3)]
    assert rungs == [D(one) for one in prices]


@pytest.mark.parametrize(("side", "price"), [("buy", "100"), ("sell", "102")])
def test_a_ladder_is_judged_by_its_dearest_rung(side: str, price: str) -> None:
    alert = Alert.from_json(
        {"symbol": "BTC/USDT", "action": side, "order_type": "limit", "price": "100"}
    )
    row = Strategy(slices=5, ladder_percent=D("0.5"))
    intent = slicing.judged_as(entry_of(alert, Side(side)), Algorithm.LADDER, row)
    assert intent.price == D(price)


def test_the_last_rung_takes_the_rest() -> None:
    row = Strategy(slices=4, ladder_percent=D(1))
    order = Order(
        role="entry", side="buy", quantity=D("0.1"), reference_price=D(100), created_at=AT
    )
    step = D("0.01")
    plan = slicing.plan_of(
        order, Algorithm.LADDER, row, rules(min_quantity=step, quantity_step=step)
    )
    assert plan is not None
    made, left = [], D("0.1")
    while left:
        made.append(slicing.next_quantity(plan, left, AT, step=step, least=step))
        left -= made[-1]
        plan.started += 1
    assert made == [D("0.02"), D("0.02"), D("0.02"), D("0.04")]
