"""Alerts behind one that waits on one account: carried out elsewhere, and nowhere before it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account
from execution import ahead, periodic_tasks, pipeline, queues, tasks
from execution.models import Order, Protection, Route, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import breakers
from tests.brokers.scripted import script_of
from tests.execution.guarding import Desk, desk
from tests.execution.trading import LANE, held
from tests.factories import OrderFactory, RouteFactory, SignalFactory
from tests.threads import together

__all__ = ["desk"]
pytestmark = pytest.mark.django_db
D = Decimal
S = SignalState
Columns = dict[str, Any]


@pytest.fixture
def other(desk: Desk, scripted: Callable[..., Account]) -> Account:
    """The strategy's second account. Both hold 0.01, each behind a stop that keeps the coins."""
    account = scripted()
    RouteFactory.create(strategy=desk.strategy, account=account)
    desk.send("buy", quantity="0.01", stop_loss="58000")
    assert (held(desk.account), held(account)) == (D("0.01"), D("0.01"))
    return account


def out(account: Account) -> None:
    """No order leaves for the account: an exit waits, and its stop stays."""
    breakers.trip(breakers.of_account(account.pk), "test")


def back(account: Account) -> None:
    breakers.reset(breakers.of_account(account.pk), "test")


def leave(desk: Desk, quantity: str, left: str) -> Signal:
    """A part of the position is closed, as TradingView says it."""
    said = {"market_position": "long", "market_position_size": left}
    return desk.send("sell", quantity=quantity, **said)


def states(*signals: Signal) -> list[str]:
    for one in signals:
        one.refresh_from_db()
    return [one.state for one in signals]


def on(account: Account) -> list[tuple[Any, Decimal]]:
    """The alerts that have an order on the account, in the sequence of the orders, and its size."""
    mine = Order.objects.filter(account=account, parent=None).exclude(role=Order.Role.STOP_LOSS)
    return list(mine.order_by("id").values_list("signal_id", "quantity"))


@pytest.mark.parametrize("obstacle", ["breaker", "needs operator", "agent away"])
def test_exits_behind_one_that_waits_on_one_account_are_carried_out_on_the_other(
    desk: Desk, other: Account, obstacle: str
) -> None:
    lost = OrderFactory.create(
        account=other, role=Order.Role.EXIT, side="sell", state=OrderState.NOT_PLACED
    )
    if obstacle == "breaker":
        out(other)
    elif obstacle == "agent away":
        away = QueryFailedError("the bridge agent: no connection: ConnectionRefusedError")
        script_of(other).failure = script_of(other).capabilities_failure = away
    else:
        Order.objects.filter(pk=lost.pk).update(state=OrderState.NEEDS_OPERATOR)

    first, second = leave(desk, "0.004", "0.006"), leave(desk, "0.003", "0.003")
    third = leave(desk, "0.002", "0.001")
    assert states(first, second, third) == [S.RECEIVED] * 3
    assert (held(desk.account), held(other)) == (D("0.001"), D("0.01"))
    assert [signal for signal, _ in on(desk.account)[1:]] == [first.pk, second.pk, third.pk]
    assert len(on(other)) == 2

    back(other)
    script_of(other).failure = script_of(other).capabilities_failure = None
    Order.objects.filter(pk=lost.pk).update(state=OrderState.NOT_PLACED)
    tasks.process_signal(str(first.pk))
    assert states(first, second, third) == [S.EXECUTED] * 3
    assert (held(desk.account), held(other)) == (D("0.001"), D("0.001"))
    quantities = [D("0.004"), D("0.003"), D("0.002")]
    mine = list(zip([first.pk, second.pk, third.pk], quantities, strict=True))
    assert (on(desk.account)[1:], on(other)[2:]) == (mine, mine)


def test_an_entry_behind_a_close_that_waits_is_carried_out_where_it_is_closed(
    desk: Desk, other: Account
) -> None:
    out(other)
    close, entry = desk.send("close"), desk.send("buy", quantity="0.02")
    assert states(close, entry) == [S.RECEIVED] * 2
    assert (held(desk.account), held(other)) == (D("0.02"), D("0.01"))

    Signal.objects.update(received_at=timezone.now() - timedelta(seconds=301))
    back(other)
    tasks.process_signal(str(close.pk))
    assert states(close, entry) == [S.EXECUTED] * 2
    assert (held(desk.account), held(other)) == (D("0.02"), 0)
    refused = Order.objects.get(signal=entry, account=other)
    assert (refused.state, refused.reason) == (OrderState.DENIED, "STALE")


def test_a_close_makes_void_what_waits_and_what_has_gone_ahead(desk: Desk, other: Account) -> None:
    out(other)
    first, second = leave(desk, "0.004", "0.006"), leave(desk, "0.003", "0.003")
    close = desk.send("close")
    assert states(first, second, close) == [S.EXECUTED, S.EXECUTED, S.RECEIVED]
    assert (held(desk.account), held(other)) == (0, D("0.01"))
    denied = Order.objects.filter(account=other, state=OrderState.DENIED)
    assert {one.signal_id for one in denied} == {first.pk, second.pk}
    back(other)
    tasks.process_signal(str(close.pk))
    assert (states(close), held(other)) == ([S.EXECUTED], 0)


def test_nothing_goes_ahead_of_what_waits_on_the_same_account(desk: Desk, other: Account) -> None:
    for account in (desk.account, other):
        out(account)
    first, second = leave(desk, "0.004", "0.006"), leave(desk, "0.003", "0.003")
    assert list(ahead.turns(queues.key_of(first))) == []
    back(desk.account)
    tasks.process_signal(str(second.pk))
    assert [signal for signal, _ in on(desk.account)[1:]] == [first.pk, second.pk]
    assert len(on(other)) == 1


def test_one_that_waits_elsewhere_holds_up_what_is_behind_it_there(
    desk: Desk, other: Account
) -> None:
    """The second waits for its lane on the account where the first is done, and the third for it."""
    out(other)
    first = leave(desk, "0.004", "0.006")
    moving = OrderFactory.create(
        account=desk.account, role=Order.Role.EXIT, side="sell", state=OrderState.UNKNOWN
    )
    second, third = leave(desk, "0.003", "0.003"), leave(desk, "0.002", "0.001")
    waiting = [(one.pk, accounts) for one, accounts in ahead.turns(queues.key_of(first))]
    assert waiting == [(second.pk, {desk.account.pk})]
    assert held(desk.account) == D("0.006")

    Order.objects.filter(pk=moving.pk).update(state=OrderState.NOT_PLACED)
    tasks.process_signal(str(third.pk))
    assert held(desk.account) == D("0.001")


@pytest.mark.parametrize("group", ["", "pool"])
def test_a_cancel_ends_what_has_gone_ahead_and_keeps_its_turn(
    desk: Desk, other: Account, group: str
) -> None:
    out(other)
    leaving = leave(desk, "0.004", "0.006")
    limit = {"quantity": "0.001", "order_type": "limit", "price": "50000"}
    entry = desk.send("buy", **limit, time_in_force="gtc")
    (resting,) = Order.objects.filter(signal=entry)
    assert (resting.account, resting.state) == (desk.account, OrderState.OPEN)

    Route.objects.update(group=group)
    cancel = desk.send("cancel")
    behind = desk.send("buy", **limit, time_in_force="gtc")
    resting.refresh_from_db()
    assert (resting.state, resting.reason) == (OrderState.CANCELED, "CANCELED_BY_SIGNAL")
    assert states(leaving, entry, cancel, behind) == [S.RECEIVED] * 4
    assert not Order.objects.filter(signal=behind).exists()

    Route.objects.update(group="")
    back(other)
    tasks.process_signal(str(leaving.pk))
    done = [S.EXECUTED, S.IGNORED, S.EXECUTED, S.WORKING]
    assert states(leaving, entry, cancel, behind) == done
    ended = Order.objects.filter(signal=entry).values_list("account", "state")
    assert set(ended) == {(one.pk, OrderState.CANCELED) for one in (desk.account, other)}


def test_a_cancel_is_noted_on_an_order_of_unknown_fate_that_has_gone_ahead(
    desk: Desk, other: Account
) -> None:
    out(other)
    leave(desk, "0.004", "0.006")
    entry = desk.send("buy", quantity="0.001", order_type="limit", price="50000")
    Order.objects.filter(signal=entry).update(state=OrderState.UNKNOWN)
    cancel = desk.send("cancel")
    noted = Order.objects.get(signal=entry)
    assert (noted.cancel_asked_by, noted.state) == (f"alert {cancel.pk}", OrderState.UNKNOWN)
    assert states(cancel) == [S.RECEIVED]


def test_what_goes_nowhere_any_more_is_refused(desk: Desk, other: Account) -> None:
    """All routes are disabled between the decision of the first and that of the next."""
    out(other)
    leave(desk, "0.004", "0.006")
    late = SignalFactory.create(strategy=desk.strategy, alert={"symbol": LANE, "action": "buy"})
    Route.objects.update(is_enabled=False)
    assert ahead.decide(late, {desk.account.pk}).step == pipeline.Step.DECIDED
    assert (states(late), late.reason) == ([S.DENIED], "NO_ROUTE")


def test_what_one_leads_to_is_handed_out_before_the_next_is_decided(
    desk: Desk,
    other: Account,
    nudges: list[tuple[str, tuple[object, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out(other)
    Protection.objects.filter(account=desk.account).delete()
    stops = Order.objects.filter(account=desk.account, role=Order.Role.STOP_LOSS)
    stops.update(state=OrderState.CANCELED)
    said = {"symbol": LANE, "action": "sell", "quantity": "0.001"}
    made = [
        SignalFactory.create(strategy=desk.strategy, action="sell", alert=said) for _ in range(3)
    ]
    decide = ahead.decide
    handed_out: list[tuple[Any, int]] = []

    def noted(signal: Signal, accounts: set[int]) -> pipeline.Decision:
        handed_out.append((signal.pk, nudges.count(("run_lane", (desk.account.pk, LANE)))))
        return decide(signal, accounts)

    monkeypatch.setattr(ahead, "decide", noted)
    tasks.process_signal(str(made[0].pk))
    assert handed_out == [(made[1].pk, 1), (made[2].pk, 2)]


def test_an_exit_carried_out_on_one_account_overtakes_where_the_others_cover_it(
    desk: Desk, other: Account
) -> None:
    said = {"symbol": LANE, "quantity": "0.01"}
    SignalFactory.create(strategy=desk.strategy, alert=said | {"action": "buy"})
    leaving = SignalFactory.create(
        strategy=desk.strategy, action="sell", alert=said | {"action": "sell"}
    )
    sent = OrderFactory.create(
        account=desk.account, signal=leaving, role=Order.Role.EXIT, side="sell", quantity=D("0.01")
    )
    assert queues.overtaking(leaving.pk) == leaving
    Order.objects.filter(pk=sent.pk).update(signal=None)
    assert queues.overtaking(leaving.pk) is None


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "cancel"},
        {"action": "buy", "quantity": "0.001", "replaces": "00000000-0000-0000-0000-000000000000"},
    ],
    ids=["cancel", "amend"],
)
def test_what_does_more_than_trade_on_each_account_has_its_one_turn(
    desk: Desk, other: Account, alert: Columns
) -> None:
    out(other)
    first, whole = leave(desk, "0.004", "0.006"), desk.send(**alert)
    last = leave(desk, "0.003", "0.003")
    assert states(first, whole, last) == [S.RECEIVED] * 3
    assert held(desk.account) == D("0.006")


def test_groups_of_accounts_wait_for_their_turn(desk: Desk, other: Account) -> None:
    out(other)
    leave(desk, "0.004", "0.006")
    Route.objects.update(group="pool")
    leave(desk, "0.003", "0.003")
    assert held(desk.account) == D("0.006")


def test_what_sends_too_many_waits_for_its_turn(desk: Desk, other: Account) -> None:
    out(other)
    leave(desk, "0.004", "0.006")
    Strategy.objects.update(most_alerts=1)
    late = leave(desk, "0.003", "0.003")
    assert (states(late), held(desk.account)) == ([S.RECEIVED], D("0.006"))


def test_one_that_came_too_late_is_refused_and_holds_nothing_up(desk: Desk, other: Account) -> None:
    out(other)
    leave(desk, "0.004", "0.006")
    sent_at = (timezone.now() - timedelta(seconds=301)).isoformat()
    late = desk.send("buy", quantity="0.02", sent_at=sent_at)
    assert (states(late), late.reason) == ([S.EXPIRED], "STALE")
    leave(desk, "0.003", "0.003")
    assert held(desk.account) == D("0.003")


def test_what_waited_too_long_opens_nothing_and_holds_nothing_up(
    desk: Desk, other: Account
) -> None:
    out(other)
    first = leave(desk, "0.004", "0.006")
    late = SignalFactory.create(
        strategy=desk.strategy, alert={"symbol": LANE, "action": "buy", "quantity": "0.02"}
    )
    Signal.objects.filter(pk=late.pk).update(received_at=timezone.now() - timedelta(seconds=301))
    last = leave(desk, "0.003", "0.003")
    assert states(first, late, last) == [S.RECEIVED] * 3
    assert held(desk.account) == D("0.003")
    assert Order.objects.get(signal=late).reason == "STALE"


def test_a_reversal_is_whole_before_the_next(desk: Desk, other: Account) -> None:
    """Its first half alone settles nothing."""
    out(other)
    leave(desk, "0.004", "0.006")
    half = OrderFactory.create(
        account=desk.account, role=Order.Role.EXIT, side="sell", state=OrderState.OPEN
    )
    turned = SignalFactory.create(
        strategy=desk.strategy, action="sell", alert={"symbol": LANE, "action": "sell"}
    )
    Order.objects.filter(pk=half.pk).update(signal=turned, reverses=True)
    last = SignalFactory.create(strategy=desk.strategy, alert={"symbol": LANE, "action": "buy"})
    behind = [one.pk for one, _ in ahead.turns(queues.key_of(turned))]
    assert (turned.pk in behind, last.pk in behind) == (True, False)


def test_the_sweep_finds_what_no_message_woke(desk: Desk, other: Account) -> None:
    out(other)
    leave(desk, "0.004", "0.006")
    body = {"symbol": LANE, "action": "sell", "quantity": "0.003", "market_position": "long"}
    SignalFactory.create(
        strategy=desk.strategy, action="sell", alert=body | {"market_position_size": "0.003"}
    )
    Signal.objects.update(received_at=timezone.now() - timedelta(seconds=2))
    periodic_tasks.sweep()
    assert held(desk.account) == D("0.003")


def test_it_goes_on_however_many_wait_elsewhere(
    desk: Desk, other: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "LOOKED_AT", 2)
    out(other)
    lefts = ["0.008", "0.006", "0.004", "0.002"]
    made = [leave(desk, "0.002", left) for left in lefts]
    assert states(*made) == [S.RECEIVED] * 4
    assert (held(desk.account), held(other)) == (D("0.002"), D("0.01"))


def test_with_one_account_nothing_is_looked_for(
    desk: Desk, django_assert_num_queries: Callable[[int], Any]
) -> None:
    desk.buy()
    out(desk.account)
    first = leave(desk, "0.004", "0.006")
    for _ in range(3):
        leave(desk, "0.001", "0.001")
    with django_assert_num_queries(2):
        assert list(ahead.turns(queues.key_of(first))) == []


@pytest.mark.django_db(transaction=True)
def test_workers_beside_each_other_keep_the_order_on_each_account_and_double_nothing(
    desk: Desk, scripted: Callable[..., Account]
) -> None:
    """One decides what is next while others go ahead of it; the obstacle goes while they do."""
    other = scripted()
    RouteFactory.create(strategy=desk.strategy, account=other)
    desk.send("buy", quantity="0.01")
    lost = OrderFactory.create(account=other, side="sell", state=OrderState.UNKNOWN)
    said = {"symbol": LANE, "action": "sell", "quantity": "0.001", "market_position": "long"}
    sizes = ["0.009", "0.008", "0.007", "0.006"]
    made = [
        SignalFactory.create(
            strategy=desk.strategy, action="sell", alert=said | {"market_position_size": size}
        )
        for size in sizes
    ]
    queue = queues.key_of(made[0])

    def next_one() -> None:
        if found := queues.next_undecided(queue):
            pipeline.decide(found.signal)

    def behind() -> None:
        for signal, accounts in ahead.turns(queue):
            ahead.decide(signal, accounts)

    ahead_by: list[int] = []
    for step in range(12):
        if step == 4:
            Order.objects.filter(pk=lost.pk).update(state=OrderState.NOT_PLACED)
        together(next_one, behind, behind)
        for account in (desk.account, other):
            tasks.run_lane(account.pk, LANE)
        ahead_by.append(len(on(desk.account)) - len(on(other)) + 1)
    assert max(ahead_by) >= 2
    exits = [(one.pk, D("0.001")) for one in made]
    assert (on(desk.account)[1:], on(other)[2:]) == (exits, exits)
    assert (held(desk.account), held(other)) == (D("0.006"), D("0.006"))
