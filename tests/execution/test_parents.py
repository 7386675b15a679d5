"""Orders worked in slices, from the alert to the last fill: reserved whole, ended at once."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from brokers.errors import QuoteUnavailableError
from brokers.models import Account
from brokers.types import ExecutionResult, Outcome, VenueStatus
from execution import (
    account_tasks,
    commands,
    fills,
    halting,
    next_slice,
    parents,
    pipeline,
    reconcile,
    tasks,
)
from execution.models import Order, Protection, Signal, SlicePlan, Strategy
from execution.states import TERMINAL, OrderState, SignalState
from risk import audit, limits, switch
from risk.models import TradingState
from risk.types import ReasonCode
from tests.brokers.scripted import CAPABILITIES, report_of, rest, swallow, trade
from tests.execution.guarding import SYMBOL, Desk, clock, desk, fill_whole
from tests.execution.slicing import later, quantities, slices, stands
from tests.factories import (
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
    allow_trading,
)
from tests.threads import together

__all__ = ["clock", "desk"]
pytestmark = pytest.mark.django_db
D = Decimal
S = OrderState


@pytest.fixture
def slicer(desk: Desk, clock: time_machine.Coordinates) -> Desk:
    """Entries go out in five slices, 20 s apart."""
    Strategy.objects.filter(pk=desk.strategy.pk).update(
        execution="twap", slices=5, slicing_seconds=100
    )
    desk.strategy.refresh_from_db()
    return desk


def parent_of(signal: Signal) -> Order:
    return Order.objects.get(signal=signal, role=Order.Role.ENTRY, parent=None)


def buy_limit(desk: Desk, quantity: str = "0.1", **alert: Any) -> Order:
    return parent_of(desk.send(quantity=quantity, order_type="limit", price="59000", **alert))


def test_five_slices_over_the_time_are_one_order(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    signal = slicer.send(quantity="0.1")
    parent = parent_of(signal)
    assert stands(parent) == (S.SLICING, "")
    assert quantities() == ["0.02"]
    for made in range(2, 6):
        later(clock, 10)
        assert len(slices()) == made - 1
        later(clock, 10)
        assert len(slices()) == made
    assert stands(parent) == (S.FILLED, "")
    assert quantities() == ["0.02"] * 5
    assert (parent.filled_quantity, parent.average_price) == (D("0.1"), D(60000))
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED
    assert slicer.held() == D("0.1")
    assert parent.identity not in slicer.script.identities()
    events = list(parent.journal.values_list("event", flat=True))
    assert events[0] == "create"
    assert (events.count("slice"), events[-1]) == (5, "fill")


def test_risk_sees_the_whole(slicer: Desk) -> None:
    limits.set_limit("max_order_value", D(2000), reason="test")  # a slice is worth 1200
    signal = slicer.send(quantity="0.1")
    assert stands(parent_of(signal)) == (S.DENIED, "MAX_ORDER_VALUE")
    assert not slices()
    assert not slicer.script.sent


def test_the_whole_is_reserved_and_each_fill_counts_once(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    other = RouteFactory.create(account=slicer.account).strategy
    for rule, value in (("max_position_value", 7200), ("max_gross_exposure", 7200)):
        limits.set_limit(rule, D(value), reason="test")
    slicer.send(quantity="0.1")  # 6000, of which 1200 have traded
    later(clock, 20)

    def bought(quantity: str) -> tuple[str, str]:
        alert = {"symbol": SYMBOL, "action": "buy", "quantity": quantity}
        signal = SignalFactory.create(strategy=other, alert=alert)
        tasks.process_signal(str(signal.pk))
        return stands(parent_of(signal))

    assert bought("0.03") == (S.DENIED, "MAX_POSITION_VALUE")
    assert bought("0.02") == (S.FILLED, "")
    assert bought("0.001") == (S.DENIED, "MAX_POSITION_VALUE")


def test_a_sliced_order_is_one_entry_to_the_rules_on_conduct(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    limits.set_limit("repeated_execution", D(2), reason="test")
    limits.set_limit("duplicate_order", D(300), reason="test")
    parent = parent_of(slicer.send(quantity="0.1"))
    for _ in range(4):
        later(clock, 20)
    assert stands(parent) == (S.FILLED, "")


SWITCHES: dict[str, Callable[[Desk], object]] = {
    "TRADING_HALTED": lambda desk: switch.change(TradingState.State.HALTED, reason="test"),
    "REDUCE_ONLY": lambda desk: switch.change(TradingState.State.REDUCING, reason="test"),
    "STRATEGY_DISABLED": lambda desk: Strategy.objects.update(is_enabled=False),
    "ACCOUNT_INACTIVE": lambda desk: Account.objects.update(is_active=False),
    "NO_ROUTE": lambda desk: desk.strategy.routes.update(is_enabled=False),
}


@pytest.mark.parametrize("code", SWITCHES)
def test_what_an_operator_switches_off_ends_it(
    slicer: Desk, clock: time_machine.Coordinates, code: str
) -> None:
    signal = slicer.send(quantity="0.1")
    SWITCHES[code](slicer)
    later(clock, 20)
    later(clock, 20)
    parent = parent_of(signal)
    assert stands(parent) == (S.CANCELED, code)
    assert parent.filled_quantity == D("0.02")
    assert len(slices()) == 1
    signal.refresh_from_db()
    assert signal.state == SignalState.EXECUTED


@pytest.mark.parametrize("mode", [halting.Mode.CANCEL_ALL, halting.Mode.FLATTEN])
def test_the_kill_switch_cancels_what_rests_of_it(
    slicer: Desk, clock: time_machine.Coordinates, mode: halting.Mode
) -> None:
    parent = buy_limit(slicer)
    later(clock, 20)
    assert [one.state for one in slices()] == [S.OPEN, S.OPEN]
    halting.press(mode, scope=TradingState.Scope.GLOBAL, key="", reason="test")
    later(clock, 1)
    later(clock, 20)
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_OPERATOR")
    assert [one.state for one in slices()] == [S.CANCELED, S.CANCELED]


def test_a_halt_cancels_what_rests_of_it(slicer: Desk, clock: time_machine.Coordinates) -> None:
    parent = buy_limit(slicer)
    switch.change(TradingState.State.HALTED, reason="test")
    later(clock, 1)
    later(clock, 1)
    assert stands(parent) == (S.CANCELED, "TRADING_HALTED")
    assert [(one.state, one.reason) for one in slices()] == [(S.CANCELED, "TRADING_HALTED")]


@pytest.mark.parametrize(
    "alert",
    [
        {"action": "cancel"},
        {"action": "close"},
        {"action": "sell", "quantity": "0.01"},
        {"action": "sell", "reduce_only": True},
        {"action": "sell", "market_position": "flat"},
    ],
)
@pytest.mark.parametrize("kind", ["market", "limit"])
def test_an_opposite_alert_or_a_cancel_ends_it(
    slicer: Desk, clock: time_machine.Coordinates, alert: dict[str, Any], kind: str
) -> None:
    bought = slicer.send(quantity="0.1", order_type=kind, price="59000")
    ending = slicer.send(**alert)
    for _ in range(3):
        later(clock, 20)
    assert stands(parent_of(bought)) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    assert len([one for one in slices() if one.side == "buy"]) == 1
    ending.refresh_from_db()
    assert ending.state != SignalState.RECEIVED


def test_another_strategys_sale_leaves_it_alone(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    parent = parent_of(slicer.send(quantity="0.1"))
    other = RouteFactory.create(account=slicer.account).strategy
    alert = {"symbol": SYMBOL, "action": "sell", "quantity": "0.01"}
    sale = SignalFactory.create(strategy=other, action="sell", alert=alert)
    tasks.process_signal(str(sale.pk))
    later(clock, 20)
    assert parent.state == S.SLICING
    assert len(slices()) == 2


def test_an_operators_cancel_ends_it(slicer: Desk, clock: time_machine.Coordinates) -> None:
    parent = buy_limit(slicer)
    with audit.acting(audit.Actor("ann")):
        commands.cancel(parent, "enough")
    later(clock, 20)
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_OPERATOR")
    assert [one.state for one in slices()] == [S.CANCELED]


def decided(desk: Desk) -> Order:
    """An order that has been accepted; no slice of it has been made."""
    alert = {"symbol": SYMBOL, "action": "buy", "quantity": "0.1"}
    signal = SignalFactory.create(strategy=desk.strategy, alert=alert)
    pipeline.decide(signal)
    return parent_of(signal)


def test_no_slice_is_sent_once_its_parent_is_to_end(slicer: Desk, nudges: list[Any]) -> None:
    parent = decided(slicer)
    made = next_slice.look(parent.pk)
    assert made is not None
    commands.cancel(parent, "enough")
    tasks.run_lane(slicer.account.pk, SYMBOL)
    assert stands(made) == (S.DENIED, "CANCELED_BY_OPERATOR")
    assert not slicer.script.sent


def test_a_halt_before_a_lost_slice_is_sent_again_ends_it_by_name(
    slicer: Desk, clock: time_machine.Coordinates, nudges: list[Any]
) -> None:
    parent = decided(slicer)
    made = next_slice.look(parent.pk)
    assert made is not None
    slicer.script.outcomes.append(swallow)
    tasks.run_lane(slicer.account.pk, SYMBOL)
    for _ in range(2):
        clock.shift(CAPABILITIES.settle_window)
        made.refresh_from_db()
        reconcile.check_order(made)
    made.refresh_from_db()
    assert made.state == S.PENDING
    switch.change(TradingState.State.HALTED, reason="outage")
    tasks.run_lane(slicer.account.pk, SYMBOL)
    assert stands(made) == (S.NOT_PLACED, "TRADING_HALTED")
    next_slice.look(parent.pk)
    assert stands(parent) == (S.CANCELED, "TRADING_HALTED")


def test_a_stop_that_fills_ends_it(slicer: Desk, clock: time_machine.Coordinates) -> None:
    parent = parent_of(slicer.send(quantity="0.1", stop_loss="58000"))
    [stop] = slicer.live()
    slicer.fills(stop, trade("stopped", "0.02", "58000"))
    assert slicer.held() == 0
    later(clock, 20)
    later(clock, 20)
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    assert len(slices()) == 1


def test_each_fill_is_guarded_and_targets_are_reached_once(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    targets = [{"price": "61000", "percent": "50"}, {"price": "62000", "percent": "50"}]
    parent = parent_of(slicer.send(quantity="0.1", stop_loss="58000", take_profit=targets))
    plan = slicer.plan()
    assert plan.entry_id == parent.pk
    Protection.objects.update(targets=plan.targets[1:])
    later(clock, 20)
    assert sum((one.remaining for one in slicer.live()), D(0)) == D("0.04")
    assert len(slicer.plan().targets) == 1


def test_nothing_is_bought_past_a_target(slicer: Desk, clock: time_machine.Coordinates) -> None:
    parent = parent_of(
        slicer.send(quantity="0.1", take_profit=[{"price": "61000", "percent": "50"}])
    )
    slicer.script.price = D(61000)
    later(clock, 20)
    later(clock, 20)
    assert stands(parent) == (S.CANCELED, "TAKE_PROFIT_INVALID")
    assert len(slices()) == 1


def test_an_unknown_slice_stops_the_next(slicer: Desk, clock: time_machine.Coordinates) -> None:
    slicer.script.outcomes.append(swallow)
    parent = parent_of(slicer.send(quantity="0.1"))
    [first] = slices()
    assert first.state == S.UNKNOWN
    for _ in range(3):
        slicer.script.answers.append(None)
        Order.objects.filter(pk=first.pk).update(looks=0)
        later(clock, 20)
    assert len(slices()) == 1
    slicer.fills(first, trade("found", "0.02"))
    later(clock, 1)
    assert len(slices()) == 2
    assert stands(parent) == (S.SLICING, "")


def test_a_rejected_slice_ends_it(slicer: Desk, clock: time_machine.Coordinates) -> None:
    slicer.script.outcomes.append(ExecutionResult(Outcome.REJECTED, detail="no money"))
    signal = slicer.send(quantity="0.1")
    later(clock, 1)
    parent = parent_of(signal)
    assert stands(parent) == (S.REJECTED, "VENUE_REJECTED")
    assert "no money" in parent.detail
    signal.refresh_from_db()
    assert signal.state == SignalState.FAILED
    assert len(slices()) == 1


def test_what_an_immediate_slice_left_is_sent_with_the_next(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    limits.set_limit("price_collar", D("0.01"), reason="test")
    slicer.script.outcomes.extend([rest, *[fill_whole] * 4])
    parent = parent_of(slicer.send(quantity="0.1"))
    [first] = slices()
    assert (first.type, first.time_in_force, first.price) == ("limit", "ioc", D(60600))
    slicer.ends(first, VenueStatus.EXPIRED)
    for _ in range(4):
        later(clock, 20)
    assert stands(parent) == (S.FILLED, "")
    assert quantities() == ["0.02", "0.025", "0.025", "0.025", "0.025"]


def test_a_limit_order_cancelled_at_the_venue_ends_it(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    parent = buy_limit(slicer)
    later(clock, 20)
    first, second = slices()
    slicer.ends(first, VenueStatus.CANCELED)
    later(clock, 1)
    assert stands(parent)[0] == S.REJECTED
    assert stands(second)[0] == S.CANCELED


def test_who_was_away_catches_up_without_a_burst(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    parent = parent_of(slicer.send(quantity="0.1"))
    later(clock, 75)  # of three slices none was made
    later(clock, 1)
    assert quantities() == ["0.02", "0.04"]
    later(clock, 18)
    assert len(slices()) == 2
    later(clock, 2)
    assert quantities() == ["0.02", "0.04", "0.04"]
    assert stands(parent) == (S.FILLED, "")


def test_what_has_not_started_in_twice_the_time_does_not(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    parent = parent_of(slicer.send(quantity="0.1"))
    later(clock, 201)
    later(clock, 1)
    assert stands(parent) == (S.EXPIRED, "EXPIRED_BEFORE_SENDING")
    assert (len(slices()), parent.filled_quantity) == (1, D("0.02"))


def test_an_alert_too_old_before_the_first_slice(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    parent = decided(slicer)
    later(clock, slicer.strategy.max_age + 1)
    assert stands(parent) == (S.EXPIRED, "EXPIRED_BEFORE_SENDING")
    assert not slicer.script.sent


def test_a_limit_set_meanwhile_ends_it(slicer: Desk, clock: time_machine.Coordinates) -> None:
    parent = parent_of(slicer.send(quantity="0.1"))
    limits.set_limit("max_position_value", D(5000), reason="test")
    later(clock, 20)
    later(clock, 1)
    assert stands(parent) == (S.CANCELED, "MAX_POSITION_VALUE")
    assert len(slices()) == 1


def test_what_passes_by_itself_is_waited_for(slicer: Desk, clock: time_machine.Coordinates) -> None:
    parent = parent_of(slicer.send(quantity="0.1"))
    slicer.script.quote_failure = QuoteUnavailableError("no price now")
    later(clock, 20)
    assert len(slices()) == 1
    assert SlicePlan.objects.get().detail.startswith("REFERENCE_UNAVAILABLE")
    slicer.script.quote_failure = None
    later(clock, 1)
    assert len(slices()) == 1
    later(clock, 5)
    assert len(slices()) == 2
    assert stands(parent) == (S.SLICING, "")
    assert SlicePlan.objects.get().detail == ""


def test_the_rest_of_an_iceberg_is_shown_one_part_at_a_time(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(execution="iceberg", slice_quantity=D("0.03"))
    parent = buy_limit(slicer)
    for number, quantity in enumerate(["0.03", "0.03", "0.03", "0.01"], start=1):
        later(clock, 20)
        made = slices()
        assert len(made) == number
        assert (made[-1].state, f"{made[-1].quantity:f}") == (S.OPEN, quantity)
        slicer.fills(made[-1], trade(f"part {number}", quantity, "59000"))
    assert stands(parent) == (S.FILLED, "")
    assert parent.average_price == D(59000)


def test_a_person_agrees_to_the_whole(slicer: Desk, clock: time_machine.Coordinates) -> None:
    Strategy.objects.update(needs_approval=True)
    parent = parent_of(slicer.send(quantity="0.1"))
    assert parent.state == S.AWAITING_APPROVAL
    assert not SlicePlan.objects.exists()
    commands.decide_on_order(parent, UserFactory.create(is_superuser=True), approve=True, note="")
    later(clock, 1)
    assert stands(parent) == (S.SLICING, "")
    for _ in range(4):
        later(clock, 20)
    assert stands(parent) == (S.FILLED, "")
    assert quantities() == ["0.02"] * 5


def test_a_late_fill_of_a_slice_corrects_the_whole(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    parent = buy_limit(slicer)
    with audit.acting(audit.Actor("ann")):
        commands.cancel(parent, "enough")
    later(clock, 1)
    assert stands(parent)[0] == S.CANCELED
    [only] = slices()
    late = report_of(only, VenueStatus.FILLED, trade("late", only.quantity, "59000"))
    fills.apply_report(only, late, source="test")
    tasks.work_slices(str(parent.pk))
    parent.refresh_from_db()
    assert parent.filled_quantity == D("0.02")


def test_a_worker_that_dies_after_making_a_slice_makes_no_second_one(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    parent = parent_of(slicer.send(quantity="0.1"))
    clock.shift(20)
    made = next_slice.look(parent.pk)  # and the worker dies before it runs the lane
    assert made is not None
    assert next_slice.look(parent.pk) is None
    later(clock, 2)
    assert stands(made)[0] == S.FILLED
    assert len(slices()) == 2


def test_a_worker_that_dies_while_making_a_slice_makes_none(
    slicer: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = parent_of(slicer.send(quantity="0.1"))
    clock.shift(20)

    def dies(_: SlicePlan) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(next_slice, "_moved_on", dies)
        with pytest.raises(KeyboardInterrupt):
            next_slice.look(parent.pk)
    assert len(slices()) == 1
    later(clock, 1)
    assert len(slices()) == 2


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_one_makes_the_slice(scripted: Callable[..., Account]) -> None:
    allow_trading()
    strategy = StrategyFactory.create(execution="twap", slices=5, slicing_seconds=5)
    RouteFactory.create(strategy=strategy, account=scripted())
    alert = {"symbol": SYMBOL, "action": "buy", "quantity": "0.1"}
    signal = SignalFactory.create(strategy=strategy, alert=alert)
    [parent_id] = pipeline.decide(signal).slicing
    made = together(*[lambda: next_slice.look(parent_id)] * 6)
    assert len([one for one in made if one is not None]) == 1
    assert len(slices()) == 1


def test_ended_twice_it_ended_once(slicer: Desk) -> None:
    parent = buy_limit(slicer)
    for why in ("first", "second"):
        parents.end(parent, ReasonCode.CANCELED_BY_OPERATOR, why)
    parent.refresh_from_db()
    assert parent.cancel_asked_by == "first"
    assert SlicePlan.objects.get().detail == "first"


def test_a_ladder_is_placed_at_once_and_judged_whole(
    slicer: Desk, clock: time_machine.Coordinates
) -> None:
    Strategy.objects.update(execution="ladder", slices=3, ladder_percent=D(1))
    parent = buy_limit(slicer, "0.09")
    for _ in range(3):
        later(clock, 1)
    made = slices()
    assert [one.price for one in made] == [D(59000), D(58410), D(57820)]
    assert [one.state for one in made] == [S.OPEN] * 3
    assert quantities() == ["0.03"] * 3
    assert parent.reserved_value == D(59000) * D("0.09")
    slicer.fills(made[0], trade("first", "0.03", "59000"))
    assert stands(parent) == (S.SLICING, "")
    assert parent.filled_quantity == D("0.03")
    with audit.acting(audit.Actor("ann")):
        commands.cancel(parent, "enough")
    later(clock, 1)
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_OPERATOR")
    assert [one.state for one in slices()] == [S.FILLED, S.CANCELED, S.CANCELED]


def test_the_signals_page_tells_the_plan_and_its_slices(
    slicer: Desk, clock: time_machine.Coordinates, admin_client: Client
) -> None:
    signal = slicer.send(quantity="0.1")
    later(clock, 20)
    page = admin_client.get(reverse("admin:execution_signal_change", args=[signal.pk]))
    told = page.content.decode()
    assert "TWAP: 5 slices over 100 s. 40 % filled, 2 slices so far, the next from" in told
    for one in slices():
        assert reverse("admin:execution_order_change", args=[one.pk]) in told
    assert told.count('class="fks-panel fks-order"') == 1
    address = reverse("admin:execution_order_change", args=[slices()[0].pk])
    own = admin_client.get(address).content.decode()
    assert "number 1 of 5 planned" in own
    assert reverse("admin:execution_order_change", args=[parent_of(signal).pk]) in own


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"execution": "twap", "slices": 10, "slicing_seconds": 9}, "slicing_seconds"),
        ({"execution": "ladder", "slices": 11, "ladder_percent": D(10)}, "ladder_percent"),
    ],
)
def test_settings_that_cannot_be_carried_out(columns: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Strategy(slug="odd", is_enabled=False, **columns).clean()
    assert set(refused.value.message_dict) == {field}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round", range(4))
def test_a_cancel_beside_the_next_slice_leaves_nothing_working(
    scripted: Callable[..., Account], nudges: list[Any], round: int
) -> None:
    allow_trading()
    strategy = StrategyFactory.create(execution="iceberg", slices=5)
    account = scripted()
    RouteFactory.create(strategy=strategy, account=account)
    alert = {"symbol": SYMBOL, "action": "buy", "quantity": "0.1"}
    alert |= {"order_type": "limit", "price": "59000"}
    [parent_id] = pipeline.decide(SignalFactory.create(strategy=strategy, alert=alert)).slicing
    parent = Order.objects.get(pk=parent_id)

    def starts() -> None:
        next_slice.look(parent_id)
        tasks.run_lane(account.pk, SYMBOL)

    together(starts, lambda: commands.cancel(parent, "enough"), starts)
    for _ in range(3):
        account_tasks.wind_down(account.pk)
        tasks.work_slices(str(parent_id))
    assert stands(parent) == (S.CANCELED, "CANCELED_BY_OPERATOR")
    assert len(slices()) <= 5
    assert not [one for one in slices() if one.state not in TERMINAL]
    assert parent.filled_quantity == sum((one.filled_quantity for one in slices()), D(0))
