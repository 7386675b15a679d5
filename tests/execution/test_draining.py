"""A worker that was told to stop ends with what it has begun, however much waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery.signals import worker_shutting_down

from brokers.models import Account
from execution import dispatch, draining, pipeline, tasks
from execution.models import Order, Signal
from execution.states import OrderState, SignalState
from tests.brokers.scripted import Outcomes, fill_whole, script_of
from tests.factories import OrderFactory, RouteFactory, SignalFactory, allow_trading

pytestmark = pytest.mark.django_db
LANE = "BTC/USDT"
Accounts = Callable[..., Account]


@pytest.fixture
def told_to_stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What SIGTERM brings about in a worker."""
    monkeypatch.setattr(draining, "_has_begun", False)
    return lambda: [*worker_shutting_down.send(sender="worker")] and None


def test_a_queue_is_left_after_the_decision_under_way(
    scripted: Accounts,
    nudges: list[tuple[str, tuple[object, ...]]],
    told_to_stop: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow_trading()
    route = RouteFactory.create(account=scripted())
    waiting = [
        SignalFactory.create(
            strategy=route.strategy,
            symbol=LANE,
            alert={"symbol": LANE, "action": "buy", "quantity": "0.001"},
        )
        for _ in range(3)
    ]
    decide = pipeline.decide

    def decide_and_stop(signal: Signal) -> pipeline.Decision:
        told_to_stop()
        return decide(signal)

    monkeypatch.setattr(pipeline, "decide", decide_and_stop)

    tasks.process_signal(str(waiting[0].pk))

    states = [Signal.objects.get(pk=one.pk).state for one in waiting]
    assert states == [SignalState.WORKING, SignalState.RECEIVED, SignalState.RECEIVED]
    assert Order.objects.get().state == OrderState.PENDING


def test_a_lane_is_left_after_the_order_under_way(
    scripted: Accounts, told_to_stop: Callable[[], None]
) -> None:
    account = scripted()

    def fill_and_stop(request: object) -> object:
        told_to_stop()
        return fill_whole(request)  # type: ignore[arg-type]

    outcome: Outcomes = fill_and_stop  # type: ignore[assignment]
    script_of(account).outcomes.append(outcome)
    for _ in range(3):
        OrderFactory.create(account=account, symbol=LANE, state=OrderState.PENDING)

    (sent,) = dispatch.run_lane(account.pk, LANE)

    sent.refresh_from_db()
    assert sent.state == OrderState.FILLED
    assert Order.objects.filter(state=OrderState.PENDING).count() == 2
    assert dispatch.run_lane(account.pk, LANE) == []
