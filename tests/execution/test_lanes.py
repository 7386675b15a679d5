"""Exits get past entries that crowd an account, and are woken before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from brokers.models import Account
from execution import lanes, nudge, tasks
from execution.models import Order
from execution.states import OrderState
from tests.brokers.scripted import CAPABILITIES, script_of
from tests.execution.posting import body_of, post
from tests.factories import OrderFactory, PositionFactory, webhook

pytestmark = pytest.mark.django_db
Accounts = Callable[..., Account]
Nudges = list[tuple[str, tuple[object, ...]]]


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
    monkeypatch.setattr(nudge, "nudge_signal", lambda _: woken.append("orders"))
    monkeypatch.setattr(nudge, "nudge_exit", lambda _: woken.append("exits"))
    strategy, token = webhook()
    answer = post(f"{strategy.slug}/{token}", body_of(**alert))
    assert answer.status_code == 202
    assert woken == [queue]


@pytest.mark.parametrize(
    ("under_way", "keeps_our_id", "is_woken"),
    [(3, True, False), (4, True, True), (7, True, True), (0, False, True)],
)
def test_lanes_that_may_have_found_the_account_crowded_are_woken(
    scripted: Accounts, nudges: Nudges, under_way: int, keeps_our_id: bool, is_woken: bool
) -> None:
    account = scripted()
    script_of(account).capabilities = replace(CAPABILITIES, keeps_our_id=keeps_our_id)
    crowd(account, under_way)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        OrderFactory.create(account=account, symbol=symbol)
    tasks.run_lane(account.pk, "BTC/USDT")
    assert (("run_lane", (account.pk, "ETH/USDT")) in nudges) is is_woken


def test_a_lane_that_is_under_way_here_needs_no_second_thread_and_no_message(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch, nudges: Nudges
) -> None:
    account = scripted()
    script_of(account).capabilities = replace(CAPABILITIES, keeps_our_id=False)
    symbols = ["BTC/USDT", "ETH/USDT"]
    orders = [OrderFactory.create(account=account, symbol=symbol) for symbol in symbols]
    runs: list[str] = []
    run = tasks.dispatch.run_lane

    def seen(account_id: int, symbol: str) -> list[Order]:
        runs.append(symbol)
        if len(runs) == 1:
            tasks.run_lane(account_id, symbol)  # who comes meanwhile leaves at once
        return run(account_id, symbol)

    monkeypatch.setattr(tasks.dispatch, "run_lane", seen)
    tasks.run_lane(account.pk, symbols[0])
    assert runs == [symbols[0]] * 2, "and its holder looks once more"
    assert ("run_lane", (account.pk, symbols[1])) in nudges, "nobody is at that lane"
    assert ("run_lane", (account.pk, symbols[0])) not in nudges
    orders[0].refresh_from_db()
    assert orders[0].state != OrderState.PENDING
