"""The queue server is away: what has begun is carried through, without a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from brokers.models import Account
from execution import handing_out, tasks
from execution.models import Order, Position, Strategy
from execution.states import OrderState, SignalState
from tests.brokers import scripted as venue
from tests.execution.guarding import SYMBOL, stops_rest
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)

pytestmark = pytest.mark.django_db
S = OrderState


class _Away:
    """A task whose messages cannot be sent."""

    def __init__(self, work: Callable[..., None]) -> None:
        self.name, self.work = "away", work

    def __call__(self, *arguments: object) -> None:
        self.work(*arguments)

    def apply_async(self, *_: object, **__: object) -> None:
        raise OperationalError("connection refused")


@pytest.fixture
def strategy(scripted: Callable[..., Account], monkeypatch: pytest.MonkeyPatch) -> Strategy:
    """On a venue where stops rest; no message arrives."""
    monkeypatch.setattr(venue, "fill_whole", stops_rest)
    allow_trading()

    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("connection refused")

    deciding = ("process_signal", "process_queue", "overtake")
    for name in (*deciding, "run_lane", "check_order", "cancel_order", "guard"):
        monkeypatch.setattr(getattr(tasks, name), "apply_async", refuse)
    return RouteFactory.create(account=scripted()).strategy


def send(strategy: Strategy, action: str, **alert: Any) -> str:
    """An alert of the strategy, worked on by one thread alone; how it ended."""
    body = {"symbol": SYMBOL, "action": action} | alert
    signal = SignalFactory.create(strategy=strategy, action=action, alert=body)
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal.state


def test_a_fresh_position_gets_its_stop(strategy: Strategy) -> None:
    state = send(strategy, "buy", quantity="0.01", stop_loss="58000")
    assert state == SignalState.EXECUTED
    assert list(Order.objects.order_by("id").values_list("role", "state")) == [
        ("entry", S.FILLED),
        ("stop_loss", S.OPEN),
    ]


def test_a_close_takes_the_stop_off_and_sells(strategy: Strategy) -> None:
    send(strategy, "buy", quantity="0.01", stop_loss="58000")
    assert send(strategy, "close") == SignalState.EXECUTED
    assert Position.objects.get().quantity == 0
    assert Order.objects.get(role="stop_loss").state == S.CANCELED


def test_a_close_of_several_accounts_reaches_each(
    strategy: Strategy, scripted: Callable[..., Account]
) -> None:
    RouteFactory.create(strategy=strategy, account=scripted())
    for account in Account.objects.all():
        PositionFactory.create(account=account)
        OrderFactory.create(account=account, state=S.PENDING, type="limit", price="50000")
    assert send(strategy, "close") == SignalState.EXECUTED
    assert [one.quantity for one in Position.objects.all()] == [0, 0]


def test_one_piece_that_fails_does_not_take_the_others_with_it() -> None:
    done: list[str] = []

    def work(name: str) -> None:
        done.append(name)
        if name == "first":
            for further in ("broken", "last", "last"):
                handing_out.hand_out(task, further)
        elif name == "broken":
            raise ValueError(name)

    task: Any = _Away(work)
    handing_out.hand_out(task, "first")
    assert done == ["first", "broken", "last"]


def test_one_thread_does_not_work_for_ever() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        handing_out.hand_out(task, number + 1)

    task: Any = _Away(work)
    handing_out.hand_out(task, 0)
    assert done == list(range(handing_out.MOST))
    handing_out.hand_out(task, -1)
    assert done[handing_out.MOST] == -1
