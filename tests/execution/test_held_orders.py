"""What waits for a person takes nothing from what protects the position."""

from __future__ import annotations

import pytest

from execution import account_tasks, tasks
from execution.halting import Mode, press
from execution.models import Order, Strategy
from execution.states import OrderState
from risk.models import TradingState
from tests.execution.guarding import SYMBOL, Desk, clock, desk
from tests.factories import RouteFactory, SignalFactory, StrategyFactory

__all__ = ["clock", "desk"]
pytestmark = pytest.mark.django_db
S = OrderState


def asks(desk: Desk, *, exits: bool) -> None:
    Strategy.objects.filter(pk=desk.strategy.pk).update(
        needs_approval=True, exits_need_approval=exits, approval_seconds=3600, max_age=3600
    )
    desk.strategy.refresh_from_db()


def test_a_position_keeps_its_stop_while_its_exit_waits_for_a_person(desk: Desk) -> None:
    desk.buy()
    assert desk.guarded() == [("0.01", "58000")]
    asks(desk, exits=True)
    desk.send("sell", quantity="0.01", reduce_only=True)
    assert Order.objects.get(role="exit").state == S.AWAITING_APPROVAL
    for _ in range(3):
        desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


def test_an_entry_that_grows_the_position_is_guarded_while_an_exit_waits(desk: Desk) -> None:
    desk.buy()
    asks(desk, exits=True)
    desk.send("close")
    for _ in range(3):
        desk.guard()
    assert desk.guarded() == [("0.01", "58000")]


def test_a_flatten_of_one_strategy_does_not_wait_for_the_approval_of_anothers_exit(
    desk: Desk,
) -> None:
    desk.buy(stop=None)
    other = StrategyFactory.create(
        needs_approval=True, exits_need_approval=True, approval_seconds=86400
    )
    RouteFactory.create(strategy=other, account=desk.account)
    signal = SignalFactory.create(
        strategy=other,
        action="sell",
        alert={"symbol": SYMBOL, "action": "sell", "quantity": "0.01", "reduce_only": True},
    )
    tasks.process_signal(str(signal.pk))
    assert Order.objects.get(role="exit").state == S.AWAITING_APPROVAL
    press(Mode.FLATTEN, scope=TradingState.Scope.STRATEGY, key=desk.strategy.slug, reason="t")
    for _ in range(3):
        account_tasks.wind_down(desk.account.pk)
    assert desk.held() == 0
