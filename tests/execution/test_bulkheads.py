"""A venue that hangs holds its own few places, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
import time_machine
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import OrderReport, Quote
from execution import bulkheads, legs, tasks
from execution.bulkheads import Bulkheads, Crowded
from execution.models import Order, Signal, Strategy
from execution.states import OrderState, SignalState
from fks_site.celery import app
from tests.brokers.scripted import ScriptedPlugin
from tests.factories import OrderFactory, RouteFactory, SignalFactory, allow_trading
from tests.threads import beside, together

Accounts = Callable[..., Account]
Nudges = list[tuple[str, tuple[object, ...]]]


def turned_away(heads: Bulkheads, *accounts: int, is_exit: bool = False) -> Crowded:
    with pytest.raises(Crowded) as caught, heads.place(accounts, is_exit=is_exit):
        raise AssertionError("there was a place")
    return caught.value


def test_places_are_counted_per_account_and_exits_have_more() -> None:
    heads = Bulkheads(places=2, for_exits=1)
    with heads.place([1]), heads.place([1, 2]):
        assert turned_away(heads, 1).account_id == 1
        with heads.place([2]), heads.place([1], is_exit=True):
            turned_away(heads, 1, is_exit=True)
    with heads.place([1]), heads.place([1]):
        turned_away(heads, 1)


def test_who_finds_no_place_at_one_account_holds_none_at_the_other() -> None:
    heads = Bulkheads(places=1)
    with heads.place([2]):
        turned_away(heads, 1, 2)
        with heads.place([1]):
            pass


def test_a_failure_gives_the_place_back() -> None:
    heads = Bulkheads(places=1)
    with pytest.raises(QueryFailedError), heads.place([1]):
        raise QueryFailedError("no answer")
    with heads.place([1]):
        pass


def test_the_parked_are_woken_one_for_each_place_exits_first() -> None:
    heads, woken = Bulkheads(places=1, for_exits=1), list[str]()
    with heads.place([1]):
        entry = turned_away(heads, 1)
        with heads.place([1], is_exit=True):
            leaving = turned_away(heads, 1, is_exit=True)
            for crowded, name in ((entry, "a"), (entry, "b"), (entry, "a"), (leaving, "x")):
                heads.park(crowded, name, lambda name=name: woken.append(name))
            assert woken == []
        assert woken == ["x"]
    assert woken == ["x", "a"]
    with heads.place([1]):
        pass
    assert woken == ["x", "a", "b"]


def test_a_place_that_came_free_before_parking_wakes_at_once() -> None:
    heads, woken = Bulkheads(places=1), list[str]()
    with heads.place([1]):
        crowded = turned_away(heads, 1)
    heads.park(crowded, "a", lambda: woken.append("a"))
    assert woken == ["a"]


def test_what_grew_too_old_is_not_woken_and_the_next_is() -> None:
    heads, woken = Bulkheads(places=1), list[str]()
    now = timezone.now()
    with time_machine.travel(now, tick=False) as clock:
        with heads.place([1]):
            crowded = turned_away(heads, 1)
            for name, seconds in (("a", 3), ("b", 8), ("c", 4), ("d", 30)):
                until = now + timedelta(seconds=seconds)
                heads.park(crowded, name, lambda name=name: woken.append(name), until)
            clock.shift(5)
        assert woken == ["b"]
        with heads.place([1]):
            pass
    assert woken == ["b", "d"]


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=40))
def test_however_it_comes_all_are_served(asks: list[tuple[int, bool]]) -> None:
    heads, served = Bulkheads(places=1, for_exits=1), list[int]()

    def serve(number: int) -> None:
        account, is_exit = asks[number]
        try:
            with heads.place([account], is_exit=is_exit):
                served.append(number)
        except Crowded as crowded:
            heads.park(crowded, str(number), lambda: serve(number))

    with heads.place([1]), heads.place([2], is_exit=True), heads.place([3]):
        for number in range(len(asks)):
            serve(number)
    assert sorted(served) == list(range(len(asks)))


# --- at work --------------------------------------------------------------------------------------


class Hanging:
    """A venue that answers nobody before it is let go."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Semaphore(0), threading.Event()

    def wait(self) -> None:
        self.asked.release()
        assert self.answer.wait(30)

    def holds(self, *calls: Callable[[], None]) -> list[Future[None]]:
        """``calls``, each begun once the one before hangs."""
        begun = []
        for call in calls:
            begun.append(beside(call))
            assert self.asked.acquire(timeout=20)
        return begun


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """Accounts named ``slow`` hang; every account has two places."""
    venue, heads = Hanging(), Bulkheads(places=2, for_exits=1)
    monkeypatch.setattr(bulkheads, "place", heads.place)
    monkeypatch.setattr(bulkheads, "park", heads.park)
    quote, fetch = ScriptedPlugin.fetch_data, ScriptedPlugin.fetch_order

    def slow_quote(self: ScriptedPlugin, symbol: str, hint: Decimal | None = None) -> Quote:
        if self.config.name == "slow":
            venue.wait()
        return quote(self, symbol, hint)

    def slow_order(self: ScriptedPlugin, ref: object) -> OrderReport | None:
        if self.config.name == "slow":
            venue.wait()
        return fetch(self, ref)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptedPlugin, "fetch_data", slow_quote)
    monkeypatch.setattr(ScriptedPlugin, "fetch_order", slow_order)
    yield venue
    venue.answer.set()


def alert_to(account: Account, **fields: object) -> Signal:
    return SignalFactory.create(strategy=RouteFactory.create(account=account).strategy, **fields)


def process(signal: Signal) -> None:
    tasks.process_signal(str(signal.pk))


@pytest.mark.django_db(transaction=True)
def test_alerts_for_a_venue_that_hangs_hold_two_threads_and_lose_nothing(
    scripted: Accounts, hanging: Hanging, nudges: Nudges
) -> None:
    allow_trading()
    slow = [alert_to(account) for account in [scripted(name="slow")] for _ in range(4)]
    quick = alert_to(scripted(name="quick"))

    held = hanging.holds(*[lambda one=one: process(one) for one in slow[:2]])
    for one in (*slow[2:], slow[3], quick):
        process(one)

    quick.refresh_from_db()
    assert quick.state == SignalState.EXECUTED
    assert nudges == []
    hanging.answer.set()
    for one in held:
        one.result(20)
    assert {("process_signal", (str(one.pk),)) for one in slow[2:]} <= set(nudges)
    for one in slow[2:]:
        process(one)
    assert {one.state for one in Signal.objects.all()} == {SignalState.EXECUTED}


@pytest.mark.django_db(transaction=True)
def test_questions_about_orders_at_a_venue_that_hangs_hold_two_threads(
    scripted: Accounts, hanging: Hanging, nudges: Nudges
) -> None:
    slow = scripted(name="slow")
    orders = [OrderFactory.create(account=slow, state=OrderState.OPEN) for _ in range(4)]

    def check(order: Order) -> None:
        tasks.check_order(str(order.pk))

    held = hanging.holds(*[lambda one=one: check(one) for one in orders[:2]])
    for one in orders[2:]:
        check(one)
    hanging.answer.set()
    for one in held:
        one.result(20)
    assert {("check_order", (str(one.pk),)) for one in orders[2:]} <= set(nudges)


@pytest.mark.django_db
def test_a_parked_cancel_is_as_old_as_its_message(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is old, its stop may be wanted again: whoever still wants it gone has asked anew."""
    heads, sent = Bulkheads(places=1, for_exits=0), list[datetime]()
    monkeypatch.setattr(bulkheads, "place", heads.place)
    monkeypatch.setattr(bulkheads, "park", heads.park)
    stop = OrderFactory.create(account=scripted(), state=OrderState.OPEN, role=Order.Role.STOP_LOSS)
    cancel = tasks.cancel_order
    monkeypatch.setattr(cancel, "apply_async", lambda _, **way: sent.append(way["expires"]))
    start = timezone.now().replace(microsecond=0)

    def second(number: float) -> datetime:
        return start + timedelta(seconds=number)

    with time_machine.travel(start, tick=False) as clock:
        message = app.amqp.as_task_v2("1", cancel.name, expires=tasks.CANCEL_WITHIN)
        clock.move_to(second(7))
        for wakes_at in (9, 10):
            with heads.place([stop.account_id]):
                cancel.push_request(**message.headers)
                cancel.run(str(stop.pk))
                cancel.pop_request()
                clock.move_to(second(wakes_at))
        assert sent == [second(10)]
        with heads.place([stop.account_id]):
            cancel(str(stop.pk))
        assert sent == [second(10), second(20)]


# --- one alert for several accounts ---------------------------------------------------------------


def states() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"slow": [], "quick": []}
    for name, state in Order.objects.order_by("id").values_list("account__name", "state"):
        found[name].append(state)
    return found


def work_off(signal: Signal) -> None:
    """Decide, and send what every lane then holds."""
    process(signal)
    for account in Account.objects.all():
        tasks.run_lane(account.pk, signal.symbol)


@pytest.fixture
def fan_out(scripted: Accounts) -> Strategy:
    allow_trading()
    strategy = RouteFactory.create(account=scripted(name="slow")).strategy
    RouteFactory.create(account=scripted(name="quick"), strategy=strategy)
    return strategy


@pytest.mark.django_db(transaction=True)
def test_a_venue_that_hangs_does_not_delay_the_other_account_of_its_alert(
    fan_out: Strategy, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legs, "PATIENCE", 0.3)
    signal = SignalFactory.create(strategy=fan_out)

    process(signal)
    assert states() == {"slow": [], "quick": [OrderState.FILLED]}
    signal.refresh_from_db()
    assert signal.state == SignalState.RECEIVED

    hanging.answer.set()
    process(signal)
    assert states() == {"slow": [OrderState.FILLED], "quick": [OrderState.FILLED]}
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED


@pytest.mark.django_db(transaction=True)
def test_an_exit_is_not_held_up_by_what_is_unknown_at_the_other_venue(fan_out: Strategy) -> None:
    work_off(SignalFactory.create(strategy=fan_out))
    slow = Order.objects.get(account__name="slow")
    Order.objects.filter(pk=slow.pk).update(state=OrderState.UNKNOWN)
    leaving = SignalFactory.create(strategy=fan_out, action="close")

    work_off(leaving)
    assert states() == {
        "slow": [OrderState.UNKNOWN],
        "quick": [OrderState.FILLED, OrderState.FILLED],
    }
    Order.objects.filter(pk=slow.pk).update(state=OrderState.FILLED)
    work_off(leaving)
    work_off(leaving)
    assert states() == {name: [OrderState.FILLED] * 2 for name in ("slow", "quick")}
    leaving.refresh_from_db()
    assert leaving.state == SignalState.EXECUTED


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_the_same_fan_out_place_each_order_once(fan_out: Strategy) -> None:
    for _ in range(5):
        signal = SignalFactory.create(strategy=fan_out)
        together(*[partial(work_off, signal)] * 4)
        signal.refresh_from_db()
        assert signal.state == SignalState.EXECUTED
    assert states() == {name: [OrderState.FILLED] * 5 for name in ("slow", "quick")}
