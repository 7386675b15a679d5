"""What a filled entry asks to be guarded by, and how later entries change it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.utils import timezone

from execution import tasks
from execution.arming import arm
from execution.models import Order, Protection
from execution.states import OrderState
from tests.brokers.scripted import CAPABILITIES
from tests.execution.guarding import Desk, desk, part
from tests.factories import OrderFactory, SignalFactory

__all__ = ["desk"]

pytestmark = pytest.mark.django_db
TWO = [{"price": "62000", "percent": "30"}, {"price": "64000", "percent": "50"}]


def limit(desk: Desk, stop: str | None = "58000", **alert: object) -> Order:
    """An entry that waits for ``desk.fills``."""
    return desk.buy("0.01", stop=stop, order_type="limit", price="60000", **alert)


def test_without_a_fill_or_without_a_word_nothing_is_armed(desk: Desk) -> None:
    limit(desk)
    desk.buy(stop=None)
    assert not Protection.objects.exists()


def test_the_first_fill_arms_stop_and_targets(desk: Desk) -> None:
    entry = limit(desk, take_profit=TWO)
    desk.fills(entry, part(1, "0.001"))
    plan = desk.plan()
    assert (plan.entry_id, plan.is_active, plan.stop_price) == (entry.pk, True, Decimal(58000))
    assert plan.targets == [
        {"price": "62000", "percent": "30", "of": "100"},
        {"price": "64000", "percent": "50", "of": "70"},
    ]


def test_a_target_alone_arms_without_a_stop(desk: Desk) -> None:
    desk.buy(stop=None, take_profit=TWO)
    assert (desk.plan().stop_price, len(desk.plan().targets)) == (None, 2)
    assert desk.live() == []
    assert desk.plan().naked_since is None


def test_arming_is_part_of_the_fills_own_transaction(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = limit(desk)
    arm_in: list[bool] = []

    def spy(order: Order, held: Decimal) -> None:
        arm_in.append(transaction.get_connection().in_atomic_block)
        raise RuntimeError("killed")

    monkeypatch.setattr("execution.fills.arming.arm", spy)
    with pytest.raises(RuntimeError), transaction.atomic():
        desk.fills(entry, part(1, "0.01"))
    assert arm_in == [True]
    entry.refresh_from_db()
    assert (entry.filled_quantity, entry.fills.count()) == (0, 0)


def test_another_fill_of_the_entry_brings_no_target_back(desk: Desk) -> None:
    entry = limit(desk, take_profit=TWO)
    desk.fills(entry, part(1, "0.001"))
    Protection.objects.update(targets=[])
    desk.fills(entry, part(1, "0.001"), part(2, "0.002"))
    assert desk.plan().targets == []
    assert desk.plan().aligned_at is not None


def test_a_later_entry_changes_what_it_names(desk: Desk) -> None:
    desk.buy(stop="58000", take_profit=TWO)
    later = desk.buy(stop="59000")
    plan = desk.plan()
    assert (plan.entry_id, plan.stop_price, len(plan.targets)) == (later.pk, Decimal(59000), 2)
    assert desk.guarded() == [("0.02", "59000")]


def test_a_later_entry_with_targets_only_keeps_the_stop(desk: Desk) -> None:
    desk.buy(stop="58000")
    desk.buy(stop=None, take_profit=[{"price": "70000", "percent": "100"}])
    assert desk.plan().stop_price == Decimal(58000)
    assert sum(one.remaining for one in desk.live()) == desk.held() == Decimal("0.02")


def test_a_later_entry_that_names_nothing_is_guarded_by_the_stop_that_is_there(
    desk: Desk,
) -> None:
    first = desk.buy(stop="58000")
    desk.buy(stop=None)
    assert desk.plan().entry_id == first.pk
    assert sum(one.remaining for one in desk.live()) == Decimal("0.02")


def test_an_entry_of_the_other_side_takes_over_no_stop(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that closed the long was killed before it could end the plan."""
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True)
    desk.buy(stop="58000", take_profit=TWO)
    with monkeypatch.context() as killed:
        killed.setattr(tasks, "_guard", lambda *_: None)
        desk.send("close")
        for stop in desk.live():
            tasks.cancel_order(str(stop.pk))
        target = [{"price": "50000", "percent": "100"}]
        desk.send("sell", quantity="0.01", take_profit=target)
    short = Order.objects.get(role=Order.Role.ENTRY, side="sell")
    assert (short.state, desk.held()) == (OrderState.FILLED, Decimal("-0.01"))

    desk.guard()

    plan = desk.plan()
    assert (plan.entry_id, plan.stop_price, len(plan.targets)) == (short.pk, None, 1)
    assert desk.live() == []


def test_a_late_fill_of_an_earlier_entry_changes_nothing_of_a_later_one(desk: Desk) -> None:
    early = limit(desk, stop="50000", take_profit=TWO)
    late = desk.buy(stop="58000")
    desk.fills(early, part(1, "0.01"))
    plan = desk.plan()
    assert (plan.entry_id, plan.stop_price, plan.targets) == (late.pk, Decimal(58000), [])
    assert sum(one.remaining for one in desk.live()) == desk.held() == Decimal("0.02")
    assert {one.stop_price for one in desk.live()} == {Decimal(58000)}


@pytest.fixture(params=[False, True], ids=["stops may open", "stops only reduce"])
def both_sides(desk: Desk, request: pytest.FixtureRequest) -> Desk:
    """A venue where a position may be on either side."""
    desk.script.capabilities = replace(
        CAPABILITIES, short_selling=True, locks_balance=False, reduce_only=request.param
    )
    return desk


@pytest.mark.parametrize("parts", [["0.01"], ["0.004", "0.006"], ["0.007", "0.003"]])
def test_an_earlier_entry_that_turns_the_position_over_is_guarded_by_its_own_stop(
    both_sides: Desk, parts: list[str]
) -> None:
    desk = both_sides
    early = limit(desk, stop="50000", take_profit=TWO)
    desk.send("sell", quantity="0.004", stop_loss="62000")
    assert [(one.side, one.remaining) for one in desk.live()] == [("buy", Decimal("0.004"))]

    fills = [part(number, quantity) for number, quantity in enumerate(parts)]
    for count in range(len(fills)):
        desk.fills(early, *fills[: count + 1])

    plan = desk.plan()
    assert (plan.entry_id, plan.is_active, plan.stop_price) == (early.pk, True, Decimal(50000))
    assert len(plan.targets) == 2
    assert desk.held() == Decimal("0.006")
    assert {one.side for one in desk.live()} == {"sell"}
    assert {price for _, price in desk.guarded()} == {"50000"}
    assert sum(one.remaining for one in desk.live()) == Decimal("0.006")
    assert plan.naked_since is None


def test_a_later_entry_that_only_makes_the_other_side_smaller_changes_nothing(
    both_sides: Desk,
) -> None:
    desk = both_sides
    first = limit(desk, stop="50000", take_profit=TWO)
    desk.send("sell", quantity="0.012", order_type="limit", price="65000", stop_loss="70000")
    later = Order.objects.get(role=Order.Role.ENTRY, side="sell")
    desk.fills(first, part(1, "0.01"))

    desk.fills(later, part(2, "0.004"))
    plan = desk.plan()
    assert (plan.entry_id, plan.is_active, plan.stop_price) == (first.pk, True, Decimal(50000))
    assert (len(plan.targets), desk.held()) == (2, Decimal("0.006"))
    assert desk.guarded() == [("0.006", "50000")]

    desk.fills(later, part(2, "0.004"), part(3, "0.008"))
    plan = desk.plan()
    assert (plan.entry_id, plan.is_active, plan.stop_price) == (later.pk, True, Decimal(70000))
    assert (plan.targets, desk.held()) == ([], Decimal("-0.002"))
    assert [(one.side, one.remaining) for one in desk.live()] == [("buy", Decimal("0.002"))]


def test_after_a_close_the_next_entry_starts_afresh(desk: Desk) -> None:
    desk.buy(stop="58000", take_profit=TWO)
    desk.send("close")
    Protection.objects.update(naked_since=timezone.now())

    entry = desk.buy(stop="57000")

    assert Protection.objects.count() == 1
    plan = desk.plan()
    assert (plan.entry_id, plan.stop_price, plan.targets) == (entry.pk, Decimal(57000), [])
    assert (plan.is_active, plan.naked_since) == (True, None)


def test_after_a_close_an_entry_without_a_word_is_not_guarded(desk: Desk) -> None:
    desk.buy(stop="58000")
    desk.send("close")
    desk.buy(stop=None)
    assert not desk.plan().is_active
    assert desk.live() == []


@pytest.mark.parametrize("role", [Order.Role.EXIT, Order.Role.STOP_LOSS])
def test_nothing_but_an_entry_arms(role: Order.Role) -> None:
    signal = SignalFactory.create(
        alert={"symbol": "BTC/USDT", "action": "buy", "stop_loss": "58000"}
    )
    arm(OrderFactory.create(signal=signal, role=role), Decimal(1))
    arm(OrderFactory.create(signal=None), Decimal(1))
    assert not Protection.objects.exists()


def test_an_entry_still_waiting_says_how_it_will_be_guarded(desk: Desk) -> None:
    entry = limit(desk, take_profit=TWO)
    said = [one["detail"] for one in entry.verdicts if one["rule"] == "protection"]
    assert said == [
        "the stop loss is placed at the venue as the order fills; "
        "FKS watches the take profit and closes when it is reached"
    ]
    assert entry.created_at > timezone.now() - timedelta(minutes=1)
