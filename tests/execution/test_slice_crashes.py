"""A worker killed at any step of a slice's life: the rest is not lost, and no slice goes out twice."""

from __future__ import annotations

from decimal import Decimal
from pkgutil import resolve_name
from typing import Any

import pytest
import time_machine

from execution import periodic_tasks, tasks
from execution.models import Order, Strategy
from execution.states import TERMINAL, OrderState
from tests.execution.guarding import Desk, clock, desk

__all__ = ["clock", "desk"]
pytestmark = pytest.mark.django_db
D = Decimal
WHOLE = D("0.09")

STEPS = [
    ("execution.next_slice._save", "after"),  # the row is written, and not committed
    ("execution.next_slice.look", "after"),  # the slice is committed, and its lane not run
    ("execution.lanes.claim_next", "after"),  # claimed, and nothing sent
    ("tests.brokers.scripted.Script.place", "after"),  # traded, and nobody here knows
]
AT_AN_EXIT = [
    ("execution.parents.follow", "after"),  # nothing begun
    ("execution.next_slice._made", "before"),
    ("execution.next_slice._moved_on", "after"),
    ("execution.dispatch.run_lane", "before"),
    ("tests.brokers.scripted.Script.place", "before"),
    ("execution.fills.apply_report", "before"),
    ("execution.fills.apply_report", "after"),  # booked, and the parent not told
    ("execution.dispositions.settle", "before"),
    ("execution.protect.suspend", "after"),  # the stop is to go, and nobody has asked it to
    ("execution.dispatch.cancel", "before"),
    ("tests.brokers.scripted.Script.cancel", "after"),  # the stop is gone, and nobody here knows
    ("execution.next_slice.look", "before"),  # no stop, and no slice either
    ("execution.protect.resume", "before"),  # sold, and the stop not placed again
    ("execution.protect.align", "before"),
]


class Killed(BaseException):
    """``kill -9``: nothing catches it, and what was not committed is gone."""


def kill_once(monkeypatch: pytest.MonkeyPatch, name: str, when: str) -> None:
    """Let the worker die the next time it comes to ``name``."""
    real = resolve_name(name)
    died: list[str] = []

    def dying(*arguments: Any, **named: Any) -> Any:
        if died:
            return real(*arguments, **named)
        died.append(name)
        if when == "after":
            real(*arguments, **named)
        raise Killed(name)

    monkeypatch.setattr(name, dying)


def work_on(parent: Order, clock: time_machine.Coordinates) -> None:
    """The other workers go on, until the parent has ended and everything is guarded."""
    for _ in range(60):
        clock.shift(20)
        periodic_tasks.sweep()
        parent.refresh_from_db()
        if parent.state in TERMINAL:
            break
    for _ in range(2):
        clock.shift(5)
        periodic_tasks.sweep()


def in_slices(desk: Desk, **columns: str) -> None:
    numbers = {"slices": 3, "slicing_seconds": 300} | columns
    Strategy.objects.filter(pk=desk.strategy.pk).update(**numbers)
    desk.strategy.refresh_from_db()


def traded(desk: Desk, side: str) -> Decimal:
    """What the venue was asked to trade, stops left out; each order once."""
    asked = [one for one in desk.script.sent if one.side == side and one.stop_price is None]
    assert len({one.identity for one in asked}) == len(asked)
    return sum((one.quantity for one in asked), D(0))


@pytest.mark.parametrize(("name", "when"), STEPS)
def test_an_entry_is_bought_once_and_whole(
    desk: Desk,
    clock: time_machine.Coordinates,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    when: str,
) -> None:
    in_slices(desk, execution="twap")
    signal = desk.send(quantity=str(WHOLE), stop_loss="58000")
    parent = Order.objects.get(signal=signal, parent=None, role=Order.Role.ENTRY)
    clock.shift(101)
    kill_once(monkeypatch, name, when)
    with pytest.raises(Killed):
        tasks.work_slices(str(parent.pk))
    work_on(parent, clock)
    assert (parent.state, parent.filled_quantity) == (OrderState.FILLED, WHOLE)
    assert (desk.held(), traded(desk, "buy")) == (WHOLE, WHOLE)
    assert sum((one.remaining for one in desk.live()), D(0)) == WHOLE
    assert parent.slices.count() == 3


@pytest.mark.parametrize(("name", "when"), STEPS + AT_AN_EXIT)
def test_an_exit_is_sold_once_and_whole(
    desk: Desk,
    clock: time_machine.Coordinates,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    when: str,
) -> None:
    desk.buy(str(WHOLE))
    in_slices(desk, exit_execution="twap")
    signal = desk.send("close")
    parent = Order.objects.get(signal=signal, parent=None, role=Order.Role.EXIT)
    assert desk.guarded() == [("0.06", "58000")]
    clock.shift(101)
    kill_once(monkeypatch, name, when)
    with pytest.raises(Killed):
        tasks.work_slices(str(parent.pk))
    work_on(parent, clock)
    assert (parent.state, parent.filled_quantity) == (OrderState.FILLED, WHOLE)
    assert (desk.held(), traded(desk, "sell")) == (0, WHOLE)
    assert desk.live() == []
    assert parent.slices.count() == 3
