"""Exits get past entries that crowd an account, and are woken before them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers.models import Account
from execution import lanes, tasks
from execution.models import Order
from execution.states import OrderState
from tests.execution.posting import body_of, post
from tests.factories import OrderFactory, PositionFactory, webhook

pytestmark = pytest.mark.django_db
Accounts = Callable[..., Account]


def crowd(account: Account, orders: int) -> None:
    for number in range(orders):
        OrderFactory.create(account=account, symbol=f"S{number}/USDT", state=OrderState.SUBMITTING)


@pytest.mark.parametrize(
    ("under_way", "role", "is_taken"),
    [
        (lanes.MAX_UNDER_WAY - 1, Order.Role.ENTRY, True),
        (lanes.MAX_UNDER_WAY, Order.Role.ENTRY, False),
        (lanes.MAX_UNDER_WAY, Order.Role.EXIT, True),
        (lanes.MAX_UNDER_WAY, Order.Role.STOP_LOSS, True),
        (lanes.MAX_UNDER_WAY * 2, Order.Role.EXIT, False),
    ],
)
def test_an_exit_finds_room_where_entries_crowd(
    scripted: Accounts, under_way: int, role: str, is_taken: bool
) -> None:
    account = scripted()
    crowd(account, under_way)
    PositionFactory.create(account=account)
    order = OrderFactory.create(account=account, role=role, side="sell")
    assert (lanes.claim_next(account, order.symbol) is not None) is is_taken


@pytest.mark.parametrize(
    ("alert", "queue"),
    [
        ({"action": "buy"}, "orders"),
        ({"action": "close"}, "exits"),
        ({"action": "sell", "market_position": "flat"}, "exits"),
        ({"action": "sell", "reduce_only": True}, "exits"),
    ],
)
def test_what_closes_is_woken_before_entries(
    monkeypatch: pytest.MonkeyPatch, new_process: None, alert: dict[str, object], queue: str
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(tasks, "nudge_signal", lambda _: woken.append("orders"))
    monkeypatch.setattr(tasks, "nudge_exit", lambda _: woken.append("exits"))
    strategy, token = webhook()
    answer = post(f"{strategy.slug}/{token}", body_of(**alert))
    assert answer.status_code == 202
    assert woken == [queue]
