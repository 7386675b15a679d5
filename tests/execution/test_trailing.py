"""Stops that follow the market, or go to break-even: only ever in the position's favour."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from brokers.types import CancelResult, ExecutionResult, OrderRequest, Outcome, Side, VenueStatus
from execution import account_tasks, protect, watching
from execution.models import Order, Strategy
from execution.states import OrderState
from execution.trailing import Held, Paid, Rules, better_stop, fee_rate
from risk import switch
from risk.models import TradingState
from tests.brokers.scripted import CAPABILITIES, accepted, report_of, rest, trade
from tests.execution.guarding import Desk, clock, desk
from tests.factories import OrderFactory

__all__ = ["clock", "desk"]
D = Decimal
LONG = Held(Side.BUY, D(100), D(90), D(110))
SHORT = Held(Side.SELL, D(100), D(110), D(90))


def stop_of(held: Held, **rules: str) -> str | None:
    move = better_stop(held, Rules(**{name: D(value) for name, value in rules.items()}))
    return None if move is None else f"{move.stop:f}"


@pytest.mark.parametrize(
    ("held", "rules", "stop"),
    [
        (LONG, {"trail_percent": "2"}, "107.8"),
        (LONG, {"trail_distance": "5"}, "105"),
        (SHORT, {"trail_percent": "2"}, "91.8"),
        (SHORT, {"trail_distance": "5"}, "95"),
        (LONG, {"trail_distance": "20"}, None),  # where it is already
        (LONG, {"trail_distance": "21"}, None),  # never backwards
        (SHORT, {"trail_distance": "21"}, None),
        (LONG, {"trail_distance": "19", "step": "1"}, None),  # 1 is less than 1.1
        (LONG, {"trail_distance": "18.9", "step": "1"}, "91.1"),
        (LONG, {"break_even_percent": "10"}, "100"),
        (LONG, {"break_even_percent": "10.01"}, None),
        (SHORT, {"break_even_percent": "10"}, "100"),
        (LONG, {"break_even_percent": "5", "trail_distance": "5"}, "105"),
        (LONG, {"break_even_percent": "5", "trail_distance": "15"}, "100"),
        (LONG, {}, None),
    ],
)
def test_the_better_place_of_a_stop(held: Held, rules: dict[str, str], stop: str | None) -> None:
    assert stop_of(held, **rules) == stop


@pytest.mark.parametrize(("held", "stop"), [(LONG, "100.4"), (SHORT, "99.6")])
def test_break_even_pays_the_fees_of_both_ways(held: Held, stop: str) -> None:
    assert stop_of(replace(held, fee_rate=D("0.002")), break_even_percent="5") == stop


def test_a_stop_that_would_trigger_at_once_is_not_moved_there() -> None:
    near = replace(LONG, market=D("100.3"), fee_rate=D("0.002"))
    assert stop_of(near, break_even_percent="0.1") is None


def test_what_an_entry_paid() -> None:
    assert fee_rate([Paid(D(2), D(100), D("0.2")), Paid(D(1), D(200), D("0.6"))]) == D("0.002")
    assert fee_rate([]) == 0
    assert fee_rate([Paid(D(1), D(100), D(-1))]) == 0  # a rebate is no cost


prices = st.decimals(min_value=D("0.01"), max_value=D(10**6), places=2)


@given(
    side=st.sampled_from(Side),
    average=prices,
    first=prices,
    path=st.lists(prices, min_size=1, max_size=30),
    percent=st.decimals(min_value=D("0.01"), max_value=D(99), places=2),
)
def test_a_stop_only_moves_in_favour(
    side: Side, average: Decimal, first: Decimal, path: list[Decimal], percent: Decimal
) -> None:
    rules = Rules(trail_percent=percent, break_even_percent=percent)
    stop = first
    for market in path:
        move = better_stop(Held(side, average, stop, market), rules)
        if move is not None:
            assert (move.stop - stop) * side.sign > 0
            assert (market - move.stop) * side.sign > 0
            stop = move.stop


# --- at a venue -------------------------------------------------------------------------------------


def sets(desk: Desk, **columns: Any) -> None:
    Strategy.objects.filter(pk=desk.strategy.pk).update(**columns)


def at(desk: Desk, price: int | str) -> None:
    """A look while the market is there, and what follows from it."""
    desk.script.price = D(price)
    account_tasks.watch(desk.account.pk)
    for _ in range(3):
        desk.guard()


@pytest.mark.django_db
def test_the_stop_follows_the_market_and_never_falls_back(desk: Desk) -> None:
    sets(desk, trail_percent=D(2))
    desk.buy()
    assert desk.guarded() == [("0.01", "58000")]
    at(desk, 60000)
    assert desk.guarded() == [("0.01", "58800")]
    at(desk, 62000)
    assert desk.guarded() == [("0.01", "60760")]
    at(desk, 61000)
    assert desk.guarded() == [("0.01", "60760")]
    at(desk, 62050)  # less than a step further
    assert desk.guarded() == [("0.01", "60760")]
    assert desk.plan().moved_why == "trails 2 % behind 62000"
    newest = Order.objects.filter(role=Order.Role.STOP_LOSS).latest("id")
    assert newest.journal.earliest("id").detail == (
        "guards 0.01 of BTC/USDT at 60760; trails 2 % behind 62000"
    )


@pytest.mark.django_db
def test_break_even_is_the_entry_plus_fees(desk: Desk) -> None:
    sets(desk, break_even_percent=D(1))
    desk.script.outcomes.append(
        lambda request: _filled_with_fee(request, fee="0.6")  # 0.1 % of 600
    )
    desk.buy()
    at(desk, 60599)
    assert desk.guarded() == [("0.01", "58000")]
    at(desk, 60600)
    assert desk.guarded() == [("0.01", "60120")]
    at(desk, 70000)
    assert desk.guarded() == [("0.01", "60120")]


def _filled_with_fee(request: OrderRequest, fee: str) -> ExecutionResult:
    fill = trade(f"T{request.identity}", request.quantity, "60000", fee=fee)
    return accepted(report_of(request, VenueStatus.FILLED, fill))


@pytest.mark.django_db
def test_a_halt_does_not_keep_a_stop_from_following(desk: Desk) -> None:
    sets(desk, trail_distance=D(1000))
    desk.buy(take_profit=[{"price": "61000", "percent": "100"}])
    switch.change(TradingState.State.HALTED, reason="test")
    at(desk, 62000)
    assert desk.guarded() == [("0.01", "61000")]
    assert desk.held() == D("0.01")
    assert len(desk.plan().targets) == 1


@pytest.mark.django_db
def test_where_stops_only_reduce_there_is_never_a_moment_without_one(desk: Desk) -> None:
    sets(desk, trail_percent=D(2))
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    desk.buy()
    desk.script.price = D(62000)
    account_tasks.watch(desk.account.pk)
    alive: list[int] = []
    for _ in range(4):
        desk.guard()
        resting = [one for one in desk.live() if one.state == OrderState.OPEN]
        alive.append(len(resting))
    assert min(alive) >= 1
    assert desk.guarded() == [("0.01", "60760")]
    placed = [one.stop_price for one in desk.script.sent if one.stop_price]
    assert placed == [D(58000), D(60760)]


@pytest.mark.django_db
def test_a_stop_that_takes_the_place_of_the_one_before_it_follows_as_often_as_it_must(
    desk: Desk,
) -> None:
    """A ticket of MetaTrader holds one: setting it anew ends the old one, and no cancel finds that."""
    sets(desk, trail_percent=D(2))
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    desk.buy()

    def replacing(request: OrderRequest) -> ExecutionResult:
        for identity, known in desk.script.reports.items():
            if known.status is VenueStatus.OPEN:
                desk.script.reports[identity] = replace(known, status=VenueStatus.CANCELED)
        return rest(request)

    for moves, price in enumerate(range(61000, 69000, 1000), start=1):
        desk.script.outcomes.append(replacing)
        desk.script.cancel_results.append(CancelResult(Outcome.REJECTED, "NOTHING_TO_CANCEL"))
        at(desk, price)
        desk.guard()
        assert desk.guarded() == [("0.01", f"{price * D('0.98'):f}".removesuffix(".00"))]
        assert desk.plan().naked_since is None
        stops = Order.objects.filter(role=Order.Role.STOP_LOSS)
        assert stops.filter(state=OrderState.CANCELED).count() == moves


@pytest.mark.django_db
def test_an_old_stop_stays_where_the_venue_refuses_the_new_one(desk: Desk) -> None:
    sets(desk, trail_percent=D(2))
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    desk.buy()
    desk.script.outcomes.append(ExecutionResult(Outcome.REJECTED, detail="no"))
    at(desk, 62000)
    assert desk.guarded() == [("0.01", "58000")]
    assert desk.plan().naked_since is None


@pytest.mark.django_db
@pytest.mark.parametrize("policy", [Strategy.OnNaked.REPLACE, Strategy.OnNaked.ALARM])
def test_a_place_the_venue_refused_does_not_end_the_following(
    desk: Desk, clock: time_machine.Coordinates, policy: Strategy.OnNaked
) -> None:
    """What it refuses at one price it may take at the next one."""
    sets(desk, trail_percent=D(2), on_naked=policy)
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    desk.buy()
    desk.script.outcomes.extend([ExecutionResult(Outcome.REJECTED, detail="no")] * 5)
    for pause in (0, 3, 5, 9, 17, 33):
        clock.shift(pause)
        at(desk, 62000)
    assert desk.guarded() == [("0.01", "58000")]
    assert desk.plan().detail == "0.01 guarded at 58000; not moved to 60760 yet"
    desk.script.outcomes.clear()
    clock.shift(60)
    at(desk, 63000)
    assert desk.guarded() == [("0.01", "61740")]
    assert desk.plan().detail == "0.01 guarded at 61740"


@pytest.mark.django_db
def test_an_old_stop_stays_while_the_new_one_could_not_leave(desk: Desk) -> None:
    """Where stops keep their coins, the old one goes only for a new one that is sent at once."""
    sets(desk, trail_percent=D(2))
    desk.buy()
    before = OrderFactory.create(
        account=desk.account, side="sell", role=Order.Role.EXIT, state=OrderState.NEEDS_OPERATOR
    )
    at(desk, 62000)
    assert desk.guarded() == [("0.01", "58000")]
    Order.objects.filter(pk=before.pk).update(state=OrderState.NOT_PLACED)
    at(desk, 62000)
    assert desk.guarded() == [("0.01", "60760")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "guarded"),
    [
        (OrderState.NEEDS_OPERATOR, [("0.04", "60760")]),
        (OrderState.UNKNOWN, [("0.01", "58000")] * 4),
    ],
)
def test_as_many_stops_as_there_may_be_move_beside_an_order_that_needs_an_operator(
    desk: Desk, state: OrderState, guarded: list[tuple[str, str]]
) -> None:
    """Where they only reduce: the venue lets them, so the lane does."""
    sets(desk, trail_percent=D(2))
    desk.script.capabilities = replace(CAPABILITIES, reduce_only=True, locks_balance=False)
    for _ in range(protect.MAX_STOPS):
        desk.buy()
    assert desk.guarded() == [("0.01", "58000")] * 4
    OrderFactory.create(account=desk.account, side="sell", role=Order.Role.EXIT, state=state)
    for _ in range(3):
        at(desk, 62000)
    assert desk.guarded() == guarded


@pytest.mark.django_db
def test_a_stop_named_anew_is_where_the_alert_says(desk: Desk) -> None:
    sets(desk, trail_percent=D(2))
    desk.buy()
    at(desk, 62000)
    sets(desk, trail_percent=None)
    desk.buy(stop="57000")
    desk.guard()
    desk.guard()
    assert {price for _, price in desk.guarded()} == {"57000"}
    assert desk.plan().moved_why == ""


@pytest.mark.django_db
def test_without_rules_the_venue_is_not_asked(desk: Desk) -> None:
    desk.buy()
    assert watching.watched_accounts() == []
    sets(desk, break_even_percent=D(1))
    assert watching.watched_accounts() == [desk.account.pk]


@pytest.mark.django_db
def test_a_stop_trails_by_percent_or_by_a_distance() -> None:
    row = Strategy(slug="both", is_enabled=False, trail_percent=D(2), trail_distance=D(5))
    with pytest.raises(ValidationError) as refused:
        row.clean()
    assert set(refused.value.message_dict) == {"trail_distance"}
