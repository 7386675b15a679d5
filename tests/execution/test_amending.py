"""Amending a limit order: cancelled, seen cancelled, and only then placed anew."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brokers.models import Instrument
from brokers.types import CancelResult, Outcome, VenueStatus
from execution import approvals, commands, tasks
from execution.models import Order, Protection, Signal
from execution.states import OrderState, SignalState
from tests.brokers.scripted import report_of
from tests.execution.guarding import Desk, desk, part
from tests.factories import StrategyFactory, UserFactory

__all__ = ["desk"]

pytestmark = pytest.mark.django_db
S = OrderState


@pytest.fixture
def resting(desk: Desk, worked_off: None) -> Order:
    """0.01 BTC wanted at 50000, open at the venue."""
    return desk.buy(stop=None, order_type="limit", price="50000")


def amend(order: Order, **change: Decimal | None) -> Signal:
    whole = {"price": None, "quantity": None} | change
    signal = commands.amend(order, **whole, key="", reason="test")
    order.refresh_from_db()
    signal.refresh_from_db()
    return signal


def live(desk: Desk) -> list[Order]:
    return list(Order.objects.filter(account=desk.account, state__in=(S.OPEN, S.PARTIALLY_FILLED)))


def test_the_old_order_is_canceled_and_a_new_one_rests(desk: Desk, resting: Order) -> None:
    signal = amend(resting, price=Decimal(51000))
    (new,) = live(desk)
    assert resting.state == S.CANCELED
    assert (new.signal, new.price, new.quantity) == (signal, Decimal(51000), Decimal("0.01"))
    assert new.identity != resting.identity
    assert desk.script.canceled[0].identity == resting.identity


def test_what_traded_comes_off_the_new_quantity(desk: Desk, resting: Order) -> None:
    desk.fills(resting, part(1, "0.004"))
    amend(resting, quantity=Decimal("0.02"))
    (new,) = live(desk)
    assert (new.price, new.quantity) == (Decimal(50000), Decimal("0.016"))


def test_nothing_is_placed_before_the_cancel_is_seen(desk: Desk, resting: Order) -> None:
    desk.script.cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 3)
    signal = amend(resting, price=Decimal(51000))
    assert (resting.state, signal.state) == (S.CANCELING, SignalState.RECEIVED)
    assert len(desk.script.sent) == 1
    desk.script.reports[resting.identity] = report_of(resting, VenueStatus.CANCELED)
    tasks.check_order(str(resting.pk))
    tasks.process_signal(str(signal.pk))
    assert [order.price for order in live(desk)] == [Decimal(51000)]


def test_an_order_that_fills_meanwhile_is_not_placed_again(desk: Desk, resting: Order) -> None:
    desk.script.cancel_results.append(CancelResult(Outcome.REJECTED))
    desk.script.reports[resting.identity] = report_of(resting, VenueStatus.FILLED, part(1, "0.01"))
    signal = amend(resting, price=Decimal(51000))
    if signal.state == SignalState.RECEIVED:
        tasks.process_signal(str(signal.pk))
        signal.refresh_from_db()
    assert (signal.state, signal.reason) == (SignalState.IGNORED, "NOTHING_TO_CANCEL")
    assert Order.objects.count() == 1


def test_what_has_no_price_or_does_not_work_is_not_amended(desk: Desk, resting: Order) -> None:
    market = desk.buy(stop=None)
    with pytest.raises(commands.Conflict, match="has no limit price"):
        amend(market, price=Decimal(1))
    amend(resting, price=Decimal(51000))
    with pytest.raises(commands.Conflict, match="is not working: canceled"):
        amend(resting, price=Decimal(52000))


def worked_at(*signals: Signal) -> list[tuple[str, str]]:
    """Each is woken three times over; how they ended."""
    for signal in signals * 3:
        tasks.process_signal(str(signal.pk))
    for signal in signals:
        signal.refresh_from_db()
    return [(signal.state, signal.reason) for signal in signals]


def test_the_same_key_again_finds_the_first_amend_whatever_became_of_it(
    desk: Desk, resting: Order
) -> None:
    """An answer was lost: by now the order is cancelled, and its place is taken."""

    def again(price: int) -> Signal:
        return commands.amend(resting, price=Decimal(price), quantity=None, key="k", reason="test")

    first = again(51000)
    resting.refresh_from_db()
    assert resting.state == S.CANCELED
    assert again(51000) == first
    with pytest.raises(commands.Refused, match="stands for another order"):
        again(52000)
    assert [order.price for order in live(desk)] == [Decimal(51000)]


def test_a_price_past_its_own_stop_does_not_cost_the_order(desk: Desk, worked_off: None) -> None:
    old = guards(desk)
    with pytest.raises(commands.Conflict, match="the stop loss of a buy must lie below its entry"):
        amend(old, price=Decimal(58000))
    assert live(desk) == [old]


def test_nor_does_one_past_a_target(desk: Desk, worked_off: None) -> None:
    old = guards(desk, take_profit=[{"price": "70000", "percent": "50"}])
    with pytest.raises(
        commands.Conflict, match="the take profit of a buy must lie above its entry"
    ):
        amend(old, price=Decimal(70000))
    assert live(desk) == [old]


@pytest.mark.parametrize("change", [{"price": Decimal(69000)}, {"quantity": Decimal("0.05")}])
def test_an_order_the_venue_would_not_take_does_not_cost_the_exit(
    desk: Desk, worked_off: None, change: dict[str, Decimal]
) -> None:
    desk.buy("0.1", stop=None)
    desk.send("sell", quantity="0.05", order_type="limit", price="70000")
    (old,) = live(desk)
    Instrument.objects.update(max_quantity=Decimal("0.04"))
    with pytest.raises(commands.Conflict, match=r"the venue takes no more than 0\.04 in one order"):
        amend(old, **change)
    assert live(desk) == [old]


NOT_PLACED = (SignalState.IGNORED, "NOTHING_TO_CANCEL")


def test_of_two_amends_of_one_order_one_is_placed(desk: Desk, nudged: list[str]) -> None:
    old = desk.buy(stop=None, order_type="limit", price="50000")
    first, second = amend(old, price=Decimal(51000)), amend(old, price=Decimal(52000))
    assert worked_at(first, second) == [(SignalState.WORKING, ""), NOT_PLACED]
    assert [order.price for order in live(desk)] == [Decimal(51000)]


def test_nothing_takes_the_place_of_an_order_an_operator_canceled(
    desk: Desk, nudged: list[str]
) -> None:
    old = desk.buy(stop=None, order_type="limit", price="50000")
    signal = amend(old, price=Decimal(51000))
    commands.cancel(old, "changed my mind")
    old.refresh_from_db()
    assert old.state == S.CANCELED
    assert worked_at(signal) == [NOT_PLACED]
    assert live(desk) == []


def canceling(desk: Desk) -> tuple[Order, Signal]:
    """An order whose amend waits for a venue that does not answer its cancel."""
    old = desk.buy(stop=None, order_type="limit", price="50000")
    desk.script.cancel_results.extend([CancelResult(Outcome.UNKNOWN)] * 50)
    signal = amend(old, price=Decimal(51000))
    tasks.process_signal(str(signal.pk))
    old.refresh_from_db()
    assert old.state == S.CANCELING
    return old, signal


def test_an_operator_may_still_cancel_what_is_being_amended(desk: Desk, nudged: list[str]) -> None:
    old, signal = canceling(desk)
    commands.cancel(old, "changed my mind")
    desk.ends(old, VenueStatus.CANCELED)
    assert worked_at(signal) == [NOT_PLACED]
    assert live(desk) == []


@pytest.mark.parametrize("action", ["close", "cancel"])
def test_what_is_being_amended_does_not_come_back_after_a_close_or_cancel(
    desk: Desk, nudged: list[str], action: str
) -> None:
    desk.buy(stop=None)
    old, amending = canceling(desk)
    ending = desk.send(action)
    desk.ends(old, VenueStatus.CANCELED)
    worked_at(ending)
    assert worked_at(amending) == [NOT_PLACED]
    assert live(desk) == []


def test_what_somebody_wants_canceled_is_not_amended(desk: Desk, nudged: list[str]) -> None:
    old, _ = canceling(desk)
    Order.objects.filter(pk=old.pk).update(state=S.OPEN)
    with pytest.raises(commands.Conflict, match=r"alert .* wants the order cancelled"):
        amend(Order.objects.get(pk=old.pk), price=Decimal(52000))


def manual_orders_wait(**asks: bool) -> None:
    StrategyFactory.create(slug="manual", approval_seconds=3600, needs_approval=True, **asks)


def approved(order: Order) -> Order:
    approvals.approve(order, UserFactory.create(is_superuser=True), "")
    for _ in range(3):
        tasks.release_order(str(order.pk))
    order.refresh_from_db()
    return order


def test_the_old_order_works_until_a_person_agrees_to_the_new_one(
    desk: Desk, worked_off: None
) -> None:
    desk.buy(stop=None)
    leaving = {"quantity": "0.01", "reduce_only": True, "order_type": "limit", "price": "70000"}
    old = desk.send("sell", **leaving).orders.get()
    manual_orders_wait(exits_need_approval=True)
    new = amend(old, price=Decimal(69000)).orders.get()
    old.refresh_from_db()
    assert (old.state, new.state, new.quantity) == (S.OPEN, S.AWAITING_APPROVAL, old.quantity)
    assert approved(new).state == S.OPEN
    old.refresh_from_db()
    assert old.state == S.CANCELED


def test_what_traded_while_a_person_decided_comes_off_the_new_quantity(
    desk: Desk, resting: Order
) -> None:
    manual_orders_wait()
    new = amend(resting, price=Decimal(51000)).orders.get()
    desk.fills(resting, part(1, "0.004"))
    assert (approved(new).state, new.quantity) == (S.OPEN, Decimal("0.006"))


def test_a_person_cannot_bring_back_what_was_canceled_meanwhile(desk: Desk, resting: Order) -> None:
    manual_orders_wait()
    new = amend(resting, price=Decimal(51000)).orders.get()
    commands.cancel(Order.objects.get(pk=resting.pk), "changed my mind")
    assert (approved(new).state, new.reason) == (S.DENIED, "NOTHING_TO_CANCEL")
    assert live(desk) == []


def guards(desk: Desk, **alert: object) -> Order:
    return desk.buy(order_type="limit", price="60000", **alert)


def test_what_takes_its_place_is_guarded_as_it_would_have_been(
    desk: Desk, worked_off: None
) -> None:
    old = guards(desk, take_profit=[{"price": "70000", "percent": "50"}])
    amend(old, price=Decimal(59000))
    (new,) = live(desk)
    desk.fills(new, part(1, "0.01"))
    assert desk.guarded() == [("0.01", "58000")]
    assert [(one["price"], one["percent"]) for one in desk.plan().targets] == [("70000", "50")]


def test_a_stop_that_was_moved_meanwhile_stays_where_it_is(desk: Desk, worked_off: None) -> None:
    old = guards(desk, take_profit=[{"price": "70000", "percent": "50"}])
    desk.fills(old, part(1, "0.004"))
    Protection.objects.update(stop_price=Decimal(58500), targets=[])
    amend(old, price=Decimal(59000))
    (new,) = [one for one in live(desk) if one.role == Order.Role.ENTRY]
    desk.fills(new, part(2, "0.006"))
    assert desk.plan().stop_price == Decimal(58500)
    assert desk.plan().targets == []


def test_a_stop_that_moves_after_the_amend_stays_where_it_is(desk: Desk, worked_off: None) -> None:
    old = guards(desk)
    desk.fills(old, part(1, "0.004"))
    amend(old, price=Decimal(59000))
    Protection.objects.update(stop_price=Decimal(58500))
    (new,) = [one for one in live(desk) if one.role == Order.Role.ENTRY]
    desk.fills(new, part(2, "0.006"))
    assert (desk.plan().entry, desk.plan().stop_price) == (old, Decimal(58500))


def test_an_amend_is_no_later_than_the_order_it_replaces(desk: Desk, worked_off: None) -> None:
    """An entry made between the two said how the whole position is guarded."""
    old = guards(desk, stop="57000", take_profit=[{"price": "70000", "percent": "50"}])
    between = desk.buy(stop="58000")
    for price in (59000, 59500):
        amend(old, price=Decimal(price))
        (old,) = [one for one in live(desk) if one.role == Order.Role.ENTRY]
    desk.fills(old, part(2, "0.01"))
    plan = desk.plan()
    assert (plan.entry, plan.stop_price, plan.targets) == (between, Decimal(58000), [])


@pytest.mark.parametrize(("stop", "stays"), [("57000", "58000"), ("58800", "58800")])
def test_what_takes_the_place_of_a_later_order_moves_no_stop_away_from_the_market(
    desk: Desk, worked_off: None, stop: str, stays: str
) -> None:
    desk.buy(stop=stop)
    old = guards(desk, take_profit=[{"price": "70000", "percent": "50"}])
    amend(old, price=Decimal(59000))
    (new,) = [one for one in live(desk) if one.role == Order.Role.ENTRY]
    desk.fills(new, part(2, "0.01"))
    plan = desk.plan()
    assert (plan.entry, plan.stop_price) == (new, Decimal(stays))
    assert [one["price"] for one in plan.targets] == ["70000"]


def test_an_amended_exit_asks_for_no_stop(desk: Desk, worked_off: None) -> None:
    desk.buy()
    desk.send("sell", quantity="0.005", order_type="limit", price="61000")
    resting = Order.objects.get(role=Order.Role.EXIT)
    new = Order.objects.get(signal=amend(resting, price=Decimal(62000)))
    assert (new.role, new.price) == (Order.Role.EXIT, Decimal(62000))
    assert desk.plan().stop_price == Decimal(58000)
