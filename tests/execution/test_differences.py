"""Where a venue and our book disagree: found by reconciling, ended by the venue or an operator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account, Instrument
from brokers.types import ExecutionResult, OrderRequest, Outcome, PositionReport, VenueStatus
from execution import (
    account_tasks,
    comparison,
    days,
    differences,
    flatten,
    periodic_tasks,
    reconcile,
    resolving,
    tasks,
    watching,
)
from execution.models import Difference, Fill, Order, Position, Signal, Strategy
from execution.states import OrderState, SignalState
from fks_site import dashboard
from risk import audit
from risk.models import AuditEvent
from risk.types import ReasonCode
from tests.brokers.scripted import (
    CAPABILITIES,
    ScriptedPlugin,
    accepted,
    report_of,
    rest,
    swallow,
)
from tests.execution.guarding import SYMBOL, Desk, clock, desk, part
from tests.factories import AccountFactory, OrderFactory, PositionFactory
from tests.threads import beside, wait_for_a_blocked_backend

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
State = Difference.State


@pytest.fixture
def long(desk: Desk, clock: time_machine.Coordinates) -> Desk:
    """0.01 BTC bought and quiet; the venue agrees."""
    desk.buy(stop=None)
    venue_holds(desk, "0.01")
    clock.shift(10)
    assert compare(desk) == []
    return desk


def venue_holds(desk: Desk, quantity: str) -> None:
    desk.script.balances = {"USDT": Decimal(1_000_000), "BTC": Decimal(quantity)}


def compare(desk: Desk) -> list[Difference]:
    desk.account.refresh_from_db()
    return reconcile.reconcile_account(desk.account)


def states() -> list[str]:
    return list(Difference.objects.order_by("id").values_list("state", flat=True))


def test_coins_sold_by_hand_are_a_difference_and_an_audit_row(long: Desk) -> None:
    venue_holds(long, "0.004")
    (found,) = compare(long)
    assert (found.kind, found.symbol, found.ours, found.theirs) == (
        "position",
        SYMBOL,
        "0.01",
        "0.004",
    )
    assert found.detail == ("the account holds only 0.004 BTC; our fills add up to 0.01")
    (row,) = AuditEvent.objects.filter(kind="difference.found")
    assert row.subject == f"{SYMBOL} on {long.account.name}"


def test_finding_it_again_adds_nothing(long: Desk) -> None:
    venue_holds(long, "0.004")
    (first,) = compare(long)
    (second,) = compare(long)
    assert first.pk == second.pk
    assert second.last_seen_at > first.last_seen_at
    assert AuditEvent.objects.filter(kind="difference.found").count() == 1


def test_it_blocks_entries_of_its_pair_and_no_exit(long: Desk) -> None:
    venue_holds(long, "0.004")
    compare(long)

    entry = long.send("buy", quantity="0.01")
    assert (entry.state, entry.reason) == (SignalState.DENIED, "DRIFT")
    other = long.send("buy", symbol="ETH/USDT", quantity="0.01")
    assert other.state == SignalState.EXECUTED
    close = long.send("close")
    assert close.state == SignalState.EXECUTED


def test_it_goes_by_itself_when_they_agree_again(long: Desk) -> None:
    venue_holds(long, "0.004")
    compare(long)
    venue_holds(long, "0.01")
    assert compare(long) == []
    assert states() == [State.GONE]
    assert long.send("buy", quantity="0.01").state == SignalState.EXECUTED


def test_more_coins_than_ours_are_none(long: Desk) -> None:
    venue_holds(long, "5")
    assert compare(long) == []


def test_two_pairs_of_a_coin_are_counted_together(
    long: Desk, clock: time_machine.Coordinates
) -> None:
    long.buy("0.02", stop=None, symbol="BTC/USDC")
    venue_holds(long, "0.03")
    clock.shift(10)
    assert compare(long) == []

    venue_holds(long, "0.025")
    found = {one.symbol: (one.ours, one.theirs) for one in compare(long)}

    assert found == {"BTC/USDT": ("0.01", "0.005"), "BTC/USDC": ("0.02", "0.015")}


def test_what_cannot_be_compared_now_keeps_its_difference(long: Desk) -> None:
    """An order under way in the pair says nothing about what was missing before."""
    venue_holds(long, "0.004")
    compare(long)
    long.script.outcomes.append(swallow)
    long.send("close")

    (still,) = compare(long)

    assert still.state == State.OPEN
    assert states() == [State.OPEN]


def test_an_ignored_one_is_not_forgotten_while_it_cannot_be_compared(long: Desk) -> None:
    venue_holds(long, "0.004")
    (found,) = compare(long)
    differences.ignore(found, reason="known")
    Position.objects.update(updated_at=timezone.now())
    assert compare(long) == []
    assert states() == [State.IGNORED]


def test_a_position_that_just_moved_is_left_alone(
    long: Desk, clock: time_machine.Coordinates
) -> None:
    long.buy(stop=None)
    assert compare(long) == []
    clock.shift(10)
    assert [one.ours for one in compare(long)] == ["0.02"]


def test_a_resting_order_that_filled_meanwhile_is_booked_and_no_difference(
    long: Desk,
) -> None:
    limit = long.buy(stop=None, order_type="limit", price="59000")
    sell = long.send("sell", quantity="0.01", order_type="limit", price="61000")
    exit_order = Order.objects.get(signal=sell)
    Position.objects.update(updated_at=timezone.now() - timedelta(minutes=1))
    long.script.reports[exit_order.identity] = report_of(
        exit_order, VenueStatus.PARTIALLY_FILLED, part(7, "0.006")
    )
    venue_holds(long, "0.004")

    assert compare(long) == []

    assert long.held() == Decimal("0.004")
    limit.refresh_from_db()
    assert limit.state == OrderState.OPEN


def test_what_fills_between_the_questions_is_no_difference(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held is asked first: a fill after that is seen among the orders, or by neither."""
    sell = long.send("sell", quantity="0.01", order_type="limit", price="61000")
    exit_order = Order.objects.get(signal=sell)
    Position.objects.update(updated_at=timezone.now() - timedelta(minutes=1))
    plain = ScriptedPlugin.open_orders

    def fills_right_after(self: ScriptedPlugin, symbol: str | None = None) -> Any:
        answer = plain(self, symbol)
        long.script.reports[exit_order.identity] = report_of(
            exit_order, VenueStatus.FILLED, part(8, "0.01")
        )
        venue_holds(long, "0")
        return answer

    monkeypatch.setattr(ScriptedPlugin, "open_orders", fills_right_after)
    assert compare(long) == []


@pytest.mark.parametrize("question", ["open_orders", "positions", "balances"])
def test_a_failed_question_is_never_an_empty_answer(
    long: Desk, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    def fails(*_: object) -> None:
        raise QueryFailedError("cut off")

    venue_holds(long, "0")
    monkeypatch.setattr(ScriptedPlugin, question, fails)
    with pytest.raises(QueryFailedError):
        compare(long)
    assert states() == []
    assert long.held() == Decimal("0.01")


# --- venues that keep positions ---------------------------------------------------------------------


@pytest.fixture
def short(desk: Desk, clock: time_machine.Coordinates) -> Desk:
    """Short 0.01 BTC at a venue that keeps positions."""
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    desk.send("sell", quantity="0.01")
    assert desk.held() == Decimal("-0.01")
    clock.shift(10)
    return desk


@pytest.mark.parametrize("theirs", ["0", "-0.02", "0.01"])
def test_a_position_the_venue_keeps_otherwise_is_a_difference(
    short: Desk, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    kept = [PositionReport(SYMBOL, Decimal(theirs), None)] if theirs != "0" else []
    monkeypatch.setattr(ScriptedPlugin, "positions", lambda _: kept)
    assert [(one.ours, one.theirs) for one in compare(short)] == [("-0.01", theirs)]


def test_a_position_the_venue_keeps_as_we_do_is_none(
    short: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [PositionReport(SYMBOL, Decimal("-0.01"), None)]
    monkeypatch.setattr(ScriptedPlugin, "positions", lambda _: kept)
    assert compare(short) == []


# --- positions in symbols FKS never traded ----------------------------------------------------------

ETHER = "ETH/USDT"


@pytest.fixture
def foreign(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Somebody holds 0.5 ETH by hand at a venue that keeps positions."""
    margin(desk, "0.5", monkeypatch, ETHER)
    return desk


def test_a_position_in_a_symbol_never_traded_is_a_difference_that_blocks_its_entries(
    foreign: Desk,
) -> None:
    (found,) = compare(foreign)
    assert (found.kind, found.symbol, found.ours, found.theirs) == ("position", ETHER, "0", "0.5")
    assert "FKS has not traded this here" in found.detail
    assert foreign.send("buy", symbol=ETHER, quantity="0.01").reason == "DRIFT"
    assert foreign.send("buy", symbol=SYMBOL, quantity="0.01").state == SignalState.EXECUTED


def test_it_goes_when_it_is_closed_by_hand(foreign: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(foreign)
    margin(foreign, "0", monkeypatch, ETHER)
    assert compare(foreign) == []
    assert states() == [State.GONE]


def test_it_is_left_alone_while_an_order_of_ours_is_under_way_there(foreign: Desk) -> None:
    order = OrderFactory.create(account=foreign.account, symbol=ETHER, state=OrderState.SUBMITTING)
    assert compare(foreign) == []
    Order.objects.filter(pk=order.pk).update(state=OrderState.CANCELED)
    assert len(compare(foreign)) == 1
    Order.objects.filter(pk=order.pk).update(state=OrderState.SUBMITTING)
    assert len(compare(foreign)) == 1, "what cannot be compared now keeps its difference"


def test_it_can_be_ignored(foreign: Desk) -> None:
    (found,) = compare(foreign)
    differences.ignore(found, reason="traded by hand")
    assert compare(foreign) == []
    assert foreign.send("buy", symbol=ETHER, quantity="0.01").state == SignalState.EXECUTED


def test_it_can_be_adopted_and_is_then_closed_like_our_own(
    foreign: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = compare(foreign)
    differences.adopt(found, reason="mine")
    position = Position.objects.get(symbol=ETHER)
    assert (position.quantity, position.average_price) == (Decimal("0.5"), None)
    assert foreign.send("close", symbol=ETHER).state == SignalState.EXECUTED
    position.refresh_from_db()
    assert position.quantity == 0


def test_what_is_adopted_counts_from_what_it_cost(
    foreign: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the day's result would not be known, and its limit refuse every entry of the account."""
    margin(foreign, "0.5", monkeypatch, ETHER, cost="50000")
    (found,) = compare(foreign)
    differences.adopt(found, reason="mine")
    assert days.unrealised(foreign.account, timezone.now()) is None
    compare(foreign)
    assert days.unrealised(foreign.account, timezone.now()) == 5000
    assert foreign.send("buy", symbol=SYMBOL, quantity="0.01").state == SignalState.EXECUTED
    assert foreign.send("close", symbol=ETHER).state == SignalState.EXECUTED
    assert Position.objects.get(symbol=ETHER).realised_pnl == 5000


def test_what_nobody_knows_the_cost_of_counts_from_the_next_price(
    foreign: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = compare(foreign)
    differences.adopt(found, reason="mine")
    compare(foreign)
    assert Position.objects.get(symbol=ETHER).average_price == 60000
    assert days.unrealised(foreign.account, timezone.now()) == 0


@pytest.mark.parametrize(
    ("theirs", "told", "cost"),
    [
        ("0.004", "50000", "60000"),
        ("0.03", "50000", "50000"),
        ("0.03", None, "60000"),
        ("-0.01", "50000", "50000"),
        ("-0.01", None, None),
        ("0", None, None),
    ],
)
def test_what_a_position_cost_after_an_adoption(
    long: Desk, monkeypatch: pytest.MonkeyPatch, theirs: str, told: str | None, cost: str | None
) -> None:
    """Our own fills know it as long as the venue holds no more than they bought, on the same side."""
    margin(long, theirs, monkeypatch, cost=told)
    (found,) = compare(long)
    differences.adopt(found, reason="mine")
    position = Position.objects.get()
    assert position.quantity == Decimal(theirs)
    assert position.average_price == (None if cost is None else Decimal(cost))


@pytest.mark.parametrize("theirs", ["0.004", "0", "-0.02"])
def test_what_was_closed_by_hand_at_a_loss_stays_in_the_day(
    long: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """Else the limit on the day's loss would let entries go on that it had stopped."""
    long.script.price = Decimal(50000)
    clock.shift(10)
    margin(long, theirs, monkeypatch, cost="50000")
    (found,) = compare(long)
    before = days.today(long.account, timezone.now())
    assert before.result == -100

    differences.adopt(found, reason="sold by hand")

    assert days.today(long.account, timezone.now()) == before
    long.script.price = Decimal(49000)
    clock.shift(10)
    compare(long)
    moved = Decimal(theirs) * -1000
    assert days.today(long.account, timezone.now()).result == -100 + moved


def test_it_can_be_flattened(foreign: Desk) -> None:
    (found,) = compare(foreign)
    differences.ask_flatten(found, reason="not ours")
    assert account_tasks.resolve_difference(found.pk) is None
    close = Order.objects.get(role=Order.Role.FLATTEN)
    assert (close.symbol, close.side, close.quantity, close.state) == (
        ETHER,
        "sell",
        Decimal("0.5"),
        OrderState.FILLED,
    )
    # Where a market order goes with a limit, it is bounded by this; FKS has paid nothing for it.
    assert close.reference_price is not None
    assert Position.objects.get(symbol=ETHER).quantity == 0
    assert states() == [State.FLATTENED]


def test_an_order_that_fills_while_the_book_is_read_is_no_difference(
    short: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is under way when the venue is asked, and booked before our book is read."""
    order = OrderFactory.create(
        account=short.account, symbol=SYMBOL, side="sell", state=OrderState.SUBMITTING
    )
    kept = [PositionReport(SYMBOL, Decimal("-0.02"), None)]
    monkeypatch.setattr(ScriptedPlugin, "positions", lambda _: kept)
    busy = comparison._busy_coins

    def then_it_fills(account: Any) -> set[str]:
        found = busy(account)
        Order.objects.filter(pk=order.pk).update(state=OrderState.FILLED)
        Position.objects.update(quantity=Decimal("-0.02"), updated_at=timezone.now())
        return found

    monkeypatch.setattr(comparison, "_busy_coins", then_it_fills)
    assert compare(short) == []


# --- orders that are not ours -----------------------------------------------------------------------


def test_a_foreign_order_is_a_difference_and_blocks_entries(desk: Desk) -> None:
    foreign = OrderFactory.build(account=desk.account)
    desk.script.reports["foreign"] = report_of(foreign, VenueStatus.OPEN)
    (found,) = compare(desk)
    assert (found.kind, found.theirs) == ("foreign_order", "buy 0.01")
    assert desk.send("buy", quantity="0.01").reason == "DRIFT"

    with pytest.raises(ValueError, match="cancel it at the venue"):
        differences.adopt(found, reason="mine")
    del desk.script.reports["foreign"]
    assert compare(desk) == []


@pytest.mark.usefixtures("standing_clock")
def test_our_own_stop_is_no_foreign_order(desk: Desk) -> None:
    desk.buy()
    assert compare(desk) == []


# --- an operator's word -----------------------------------------------------------------------------


def test_an_ignored_one_lets_entries_pass_until_the_venue_says_something_else(
    long: Desk, clock: time_machine.Coordinates
) -> None:
    venue_holds(long, "0.004")
    (found,) = compare(long)
    with audit.acting(audit.Actor("maria")):
        differences.ignore(found, reason="moved to cold storage")
    assert (found.state, found.resolved_by) == (State.IGNORED, "maria")
    assert compare(long) == []
    assert long.send("buy", symbol=SYMBOL, quantity="0.0001").state == SignalState.EXECUTED

    clock.shift(10)
    venue_holds(long, "0.003")
    (again,) = compare(long)

    assert again.pk != found.pk
    assert states() == [State.GONE, State.OPEN]
    told = AuditEvent.objects.filter(kind__startswith="difference.").order_by("id")
    assert [(row.kind, row.actor) for row in told] == [
        ("difference.found", "system"),
        ("difference.ignored", "maria"),
        ("difference.found", "system"),
    ]


def test_after_adopting_the_position_is_its_fills_and_its_adoptions(long: Desk) -> None:
    venue_holds(long, "0.004")
    (found,) = compare(long)

    differences.adopt(found, reason="sold by hand")

    position = Position.objects.get()
    assert (position.quantity, position.average_price) == (Decimal("0.004"), Decimal(60000))
    row = AuditEvent.objects.get(kind="difference.adopted")
    adopted = Decimal(row.after["quantity"]) - Decimal(row.before["quantity"])
    bought = sum(Fill.objects.values_list(F("quantity"), flat=True))
    assert position.quantity == bought + adopted
    assert row.reason == "sold by hand"
    assert compare(long) == []
    assert long.send("buy", quantity="0.01").state == SignalState.EXECUTED


def test_adopting_nothing_takes_the_stop_off(desk: Desk, clock: time_machine.Coordinates) -> None:
    desk.buy()
    venue_holds(desk, "0")
    clock.shift(10)
    (found,) = compare(desk)
    differences.adopt(found, reason="sold by hand")
    periodic_tasks.sweep()
    assert desk.live() == []
    assert not desk.plan().is_active
    assert Position.objects.get().average_price is None


def test_a_position_that_moved_since_is_not_adopted(long: Desk) -> None:
    venue_holds(long, "0.004")
    (found,) = compare(long)
    long.send("sell", quantity="0.002")
    with pytest.raises(ValueError, match="has moved since"):
        differences.adopt(found, reason="late")
    assert long.held() == Decimal("0.008")


@pytest.mark.parametrize("word", [differences.ignore, differences.adopt])
def test_what_is_resolved_already_is_not_resolved_again(long: Desk, word: Any) -> None:
    venue_holds(long, "0.004")
    (found,) = compare(long)
    venue_holds(long, "0.01")
    compare(long)
    with pytest.raises(ValueError, match="gone by itself"):
        word(found, reason="too late")
    assert states() == [State.GONE]


def test_an_ignored_one_may_still_be_adopted(long: Desk) -> None:
    venue_holds(long, "0.004")
    (found,) = compare(long)
    differences.ignore(found, reason="known")
    differences.adopt(found, reason="after all")
    assert found.state == State.ADOPTED
    assert long.held() == Decimal("0.004")


def test_accounts_do_not_see_each_others_differences(long: Desk, scripted: Any) -> None:
    PositionFactory.create(account=scripted(), updated_at=timezone.now() - timedelta(minutes=1))
    venue_holds(long, "0.004")
    assert len(compare(long)) == 1
    assert differences.blocks_entries(Position.objects.last().account_id, SYMBOL) is None


# --- flatten and cancel ---------------------------------------------------------------------------


def margin(
    desk: Desk,
    quantity: str,
    monkeypatch: pytest.MonkeyPatch,
    symbol: str = SYMBOL,
    cost: str | None = None,
) -> None:
    """A venue that keeps positions, and keeps this one."""
    average = None if cost is None else Decimal(cost)
    reports = [PositionReport(symbol, Decimal(quantity), average)] if Decimal(quantity) else []
    monkeypatch.setattr(ScriptedPlugin, "positions", lambda self: reports)
    desk.script.capabilities = replace(
        CAPABILITIES, short_selling=True, reduce_only=True, locks_balance=False
    )


def test_flattening_sells_what_our_book_does_not_know_of(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    margin(long, "0.03", monkeypatch)
    (found,) = compare(long)
    with audit.acting(audit.Actor("olivia")):
        differences.ask_flatten(found, reason="a fat finger")
    assert states() == [State.FLATTENING]
    assert differences.blocks_entries(long.account.pk, SYMBOL) == found

    Order.objects.update(updated_at=F("updated_at") - timedelta(seconds=5))
    periodic_tasks.sweep()
    periodic_tasks.sweep()

    close = Order.objects.get(role=Order.Role.FLATTEN)
    assert (close.side, close.quantity, close.reduce_only, close.state) == (
        "sell",
        Decimal("0.02"),
        True,
        OrderState.FILLED,
    )
    assert long.held() == Decimal("0.01")
    found.refresh_from_db()
    assert (found.state, found.resolved_by, found.reason) == (
        State.FLATTENED,
        "olivia",
        "a fat finger",
    )
    margin(long, "0.01", monkeypatch)
    clock.shift(10)
    assert compare(long) == []


@pytest.mark.parametrize(
    ("held", "state", "sold"),
    [("0.01", State.GONE, None), ("0.004", State.GONE, None), ("0.05", State.FLATTENED, "0.04")],
)
def test_what_somebody_changed_at_the_venue_since_is_not_sold(
    long: Desk,
    monkeypatch: pytest.MonkeyPatch,
    clock: time_machine.Coordinates,
    held: str,
    state: Difference.State,
    sold: str | None,
) -> None:
    """What is left to flatten, if anything, is what the next comparison finds."""
    margin(long, "0.03", monkeypatch)
    (found,) = compare(long)
    differences.ask_flatten(found, reason="test")
    margin(long, held, monkeypatch)
    for _ in range(4):
        periodic_tasks.sweep()
        clock.shift(10)
    closes = Order.objects.filter(role=Order.Role.FLATTEN)
    assert [one.quantity for one in closes] == ([Decimal(sold)] if sold else [])
    found.refresh_from_db()
    assert found.state == state
    assert long.held() == Decimal("0.01")


def flattening(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, theirs: str, **venue: Any
) -> Difference:
    """The operator has asked for it, and no worker has begun."""
    margin(desk, theirs, monkeypatch, **venue)
    (found,) = compare(desk)
    with audit.acting(audit.Actor("olivia")):
        differences.ask_flatten(found, reason="a fat finger")
    return found


def rows() -> list[tuple[str, str, str]]:
    return list(Difference.objects.order_by("id").values_list("state", "ours", "theirs"))


@pytest.mark.parametrize("why", ["FKS_LIVE_TRADING is off", "is switched off"])
def test_where_nothing_would_be_sent_it_is_a_difference_again(
    long: Desk, monkeypatch: pytest.MonkeyPatch, settings: Any, why: str
) -> None:
    found = flattening(long, monkeypatch, "0.03")
    settings.FKS_LIVE_TRADING = False
    is_live = why.startswith("FKS")
    Account.objects.update(**({"environment": "live"} if is_live else {"is_active": False}))
    for _ in range(3):
        account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.GONE, "0.01", "0.03"), (State.OPEN, "0.01", "0.03")]
    again = Difference.objects.get(state=State.OPEN)
    found.refresh_from_db()
    assert again.reason.endswith(why)
    assert (found.reason, found.resolved_by) == (f"a fat finger: {again.reason}", "olivia")
    assert differences.blocks_entries(long.account.pk, SYMBOL) == again
    assert not Order.objects.filter(role=Order.Role.FLATTEN).exists()
    assert long.held() == Decimal("0.01")


def test_what_is_too_small_for_an_order_is_a_difference_again(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flattening(long, monkeypatch, "0.01004")
    account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.GONE, "0.01", "0.01004"), (State.OPEN, "0.01", "0.01004")]
    assert Difference.objects.get(state=State.OPEN).reason == (
        "the venue takes no order as small as 0.00004"
    )
    assert not Order.objects.filter(role=Order.Role.FLATTEN).exists()
    assert long.held() == Decimal("0.01")


@pytest.mark.parametrize("cost", [None, "69000"])
def test_what_a_close_did_not_sell_is_a_difference_again(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates, cost: str | None
) -> None:
    """The position is what it was before, with what it cost."""
    found = flattening(long, monkeypatch, "0.03", cost=cost)
    closed = ExecutionResult(Outcome.REJECTED, code="CLOSED", detail="the market is closed")
    long.script.outcomes.append(closed)
    told = AuditEvent.objects.filter(kind="difference.found").count()
    for _ in range(3):
        account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.GONE, "0.01", "0.03"), (State.OPEN, "0.01", "0.03")]
    again = Difference.objects.get(state=State.OPEN)
    assert again.reason == "0 of 0.02 closed; a close ended rejected: the market is closed"
    assert AuditEvent.objects.filter(kind="difference.found").count() == told + 1
    assert differences.blocks_entries(long.account.pk, SYMBOL) == again
    position = Position.objects.get()
    assert (position.quantity, position.average_price) == (Decimal("0.01"), Decimal(60000))
    clock.shift(10)
    assert compare(long) == [again]
    differences.ask_flatten(again, reason="it is open now")
    for _ in range(2):
        account_tasks.resolve_difference(again.pk)
    assert rows()[1:] == [(State.FLATTENED, "0.01", "0.03")]
    assert long.held() == Decimal("0.01")


def test_the_rest_of_a_close_that_filled_in_part_is_a_difference_again(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flattening(long, monkeypatch, "0.03")

    def thin(request: OrderRequest) -> ExecutionResult:
        sold = part(3, "0.005", at=timezone.now())
        return accepted(report_of(request, VenueStatus.CANCELED, sold))

    long.script.outcomes.append(thin)
    for _ in range(3):
        account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.FLATTENED, "0.01", "0.015"), (State.OPEN, "0.01", "0.025")]
    position = Position.objects.get()
    assert (position.quantity, position.average_price) == (Decimal("0.01"), Decimal(60000))


def test_it_is_being_flattened_until_its_close_is_filled(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    """Book and venue agree meanwhile: our book holds what is to be closed."""
    found = flattening(long, monkeypatch, "0.03")
    long.script.outcomes.append(rest)
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
        clock.shift(120)
        assert compare(long) == [found]
    assert differences.blocks_entries(long.account.pk, SYMBOL) == found
    (home,) = dashboard.gather(timezone.now()).accounts
    assert home.open_differences == 1

    close = Order.objects.get(role=Order.Role.FLATTEN)
    long.fills(close, part(3, "0.02", at=timezone.now()))
    account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.FLATTENED, "0.01", "0.03")]
    assert long.held() == Decimal("0.01")


def test_what_somebody_closed_by_hand_meanwhile_is_not_closed_again(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    """The close waited, for a breaker perhaps: sent now, it would sell what is ours."""
    found = flattening(long, monkeypatch, "0.03")
    assert resolving.carry_out(found.pk) == SYMBOL
    clock.shift(10)
    margin(long, "0.01", monkeypatch)
    assert compare(long) == [found]
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    close = Order.objects.get(role=Order.Role.FLATTEN)
    assert (close.state, len(long.script.sent)) == (OrderState.CANCELED, 1)
    assert states() == [State.GONE]
    assert long.held() == Decimal("0.01")
    clock.shift(10)
    assert compare(long) == []


@pytest.mark.django_db(transaction=True)
def test_a_close_that_fills_while_it_is_called_off_is_no_deadlock(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    """A fill has the order's row when it wants the position's."""
    found = flattening(long, monkeypatch, "0.03")
    assert resolving.carry_out(found.pk) == SYMBOL
    clock.shift(10)
    margin(long, "0.01", monkeypatch)
    compare(long)
    with transaction.atomic():
        close = Order.objects.select_for_update().get(role=Order.Role.FLATTEN)
        calling_off = beside(lambda: resolving.carry_out(found.pk))
        wait_for_a_blocked_backend()
        Position.objects.select_for_update(nowait=True).get()
    assert calling_off.result(60) == SYMBOL
    close.refresh_from_db()
    assert close.cancel_reason == ReasonCode.CANCELED_BY_OPERATOR


def nobody_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that hears of a close's end dies; the sweep finds what is to be done."""
    monkeypatch.setattr(resolving, "follow", lambda orders: None)


def test_what_an_exit_sold_with_the_rest_is_not_taken_out_twice(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_follows(monkeypatch)
    found = flattening(long, monkeypatch, "0.03")
    long.script.outcomes.append(ExecutionResult(Outcome.REJECTED, code="BUSY", detail="busy"))
    account_tasks.resolve_difference(found.pk)
    assert long.send("close").state == SignalState.EXECUTED
    assert long.held() == 0
    account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.FLATTENED, "0", "0.02")]
    assert long.held() == 0


def figures() -> tuple[Decimal | None, Decimal]:
    """What our position cost, and what it has realised, which its fills add up to."""
    position = Position.objects.get()
    booked = sum(Fill.objects.values_list("realised_pnl", flat=True), Decimal(0))
    assert position.realised_pnl == booked
    return position.average_price, position.realised_pnl


@pytest.mark.parametrize(("told", "realised"), [("65000", "1"), (None, "0")])
def test_what_somebody_elses_coins_cost_is_no_gain_of_ours(
    long: Desk, monkeypatch: pytest.MonkeyPatch, told: str | None, realised: str
) -> None:
    """Ours cost 60,000, theirs 70,000, or nobody knows, and they go at 70,100."""
    long.script.price = Decimal(70100)
    found = flattening(long, monkeypatch, "0.02", cost=told)
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    assert long.held() == Decimal("0.01")
    assert figures() == (Decimal(60000), Decimal(realised))


def closing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> tuple[Difference, Order]:
    """Ours 0.01 cost 60,000, theirs 0.01 cost 70,000, and their close rests."""
    desk.script.price = Decimal(70100)
    found = flattening(desk, monkeypatch, "0.02", cost="65000")
    desk.script.outcomes.append(rest)
    account_tasks.resolve_difference(found.pk)
    return found, Order.objects.get(role=Order.Role.FLATTEN)


def sells(desk: Desk, quantity: str, price: str) -> Order:
    """An exit of ours sells beside the close."""
    order = OrderFactory.create(
        account=desk.account,
        symbol=SYMBOL,
        side="sell",
        role=Order.Role.EXIT,
        quantity=Decimal(quantity),
        state=OrderState.OPEN,
    )
    return desk.fills(order, part(9, quantity, price=price, at=timezone.now()))


def result_of(order: Order) -> Decimal:
    return sum(order.fills.values_list("realised_pnl", flat=True), Decimal(0))


def test_what_a_close_sold_in_parts_counts_by_what_it_cost(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, close = closing(long, monkeypatch)
    first = part(3, "0.004", price="70100", at=timezone.now())
    long.fills(close, first)
    second = part(4, "0.004", price="69900", at=timezone.now())
    done = report_of(close, VenueStatus.CANCELED, first, second)
    long.script.reports[close.identity] = done
    tasks.check_order(str(close.pk))
    account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.FLATTENED, "0.01", "0.018"), (State.OPEN, "0.01", "0.012")]
    assert figures() == (Decimal(60000), Decimal(0))
    booked = Fill.objects.filter(order=close).order_by("id").values_list("realised_pnl", flat=True)
    assert list(booked) == [Decimal("0.4"), Decimal("-0.4")]


@pytest.mark.parametrize(
    ("sold", "exited", "closed", "average"),
    [
        ("0.004", "8", "1", "60000"),
        ("0.01", "20", "1", None),
        ("0.015", "-20", "0.5", None),
        ("0.02", "-60", "0", None),
    ],
)
def test_an_exit_beside_a_close_sells_ours_first(
    long: Desk,
    monkeypatch: pytest.MonkeyPatch,
    sold: str,
    exited: str,
    closed: str,
    average: str | None,
) -> None:
    """Ours cost 60,000 and goes at 62,000; what the exit takes of theirs cost 70,000."""
    found, close = closing(long, monkeypatch)
    exit_order = sells(long, sold, "62000")
    left = min(Decimal("0.02") - Decimal(sold), Decimal("0.01"))
    if left:
        fill = part(3, str(left), price="70100", at=timezone.now())
        long.script.reports[close.identity] = report_of(close, VenueStatus.CANCELED, fill)
        tasks.check_order(str(close.pk))
    else:
        long.ends(close, VenueStatus.CANCELED)
    account_tasks.resolve_difference(found.pk)
    assert states() == [State.FLATTENED]
    assert long.held() == max(Decimal("0.01") - Decimal(sold), Decimal(0))
    assert figures()[0] == (None if average is None else Decimal(average))
    assert (result_of(exit_order), result_of(close)) == (Decimal(exited), Decimal(closed))
    figures()


def test_an_exit_beside_a_close_that_was_refused_sells_ours(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, close = closing(long, monkeypatch)
    exit_order = sells(long, "0.004", "62000")
    long.ends(close, VenueStatus.CANCELED)
    account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.GONE, "0.01", "0.02"), (State.OPEN, "0.006", "0.016")]
    assert figures() == (Decimal(60000), Decimal(8))
    assert result_of(exit_order) == 8


def test_what_an_entry_bought_beside_a_close_is_ours(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = long.buy(stop=None, order_type="limit", price="54000")
    found, close = closing(long, monkeypatch)
    long.fills(limit, part(8, "0.01", price="54000", at=timezone.now()))
    long.fills(close, part(3, "0.01", price="70100", at=timezone.now()))
    account_tasks.resolve_difference(found.pk)
    assert long.held() == Decimal("0.02")
    assert figures() == (Decimal(57000), Decimal(1))


def test_a_position_all_of_somebody_elses_counts_by_what_it_cost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.script.price = Decimal(70100)
    found = flattening(desk, monkeypatch, "-0.01", cost="70000")
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    assert desk.held() == 0
    assert figures() == (None, Decimal(-1))


def test_a_rest_below_the_venues_step_stays_with_what_it_cost(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours 0.01 at 60,000, theirs 0.01004 at 60,100, of which 0.00004 no order can close."""
    Instrument.objects.update(quantity_step=Decimal("0.0001"))
    long.script.price = Decimal(60100)
    found = flattening(long, monkeypatch, "0.02004")
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    assert long.held() == Decimal("0.01004")
    average, realised = figures()
    assert realised == 0
    assert average is not None
    cost = average * Decimal("0.01004")
    assert cost.quantize(Decimal("1E-15")) == Decimal("602.404")


def partly_closed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of theirs 0.004 is closed, and the venue still counts what is left at the mean of both."""
    found, close = closing(desk, monkeypatch)
    sold = part(3, "0.004", price="70100", at=timezone.now())
    desk.script.reports[close.identity] = report_of(close, VenueStatus.CANCELED, sold)
    tasks.check_order(str(close.pk))
    account_tasks.resolve_difference(found.pk)
    assert figures() == (Decimal(60000), Decimal("0.4"))
    margin(desk, "0.016", monkeypatch, cost="65000")


def flattens_again(desk: Desk) -> None:
    (again,) = compare(desk)
    differences.ask_flatten(again, reason="again")
    for _ in range(2):
        account_tasks.resolve_difference(again.pk)
    assert Difference.objects.latest("pk").state == State.FLATTENED
    assert desk.held() == Decimal("0.01")


def test_the_rest_of_a_close_costs_what_the_first_part_did(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    partly_closed(long, monkeypatch)
    clock.shift(10)
    flattens_again(long)
    assert figures() == (Decimal(60000), Decimal(1))


def test_the_rest_of_a_close_costs_the_same_after_a_close_that_was_refused(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    partly_closed(long, monkeypatch)
    clock.shift(10)
    long.script.outcomes.append(ExecutionResult(Outcome.REJECTED, code="CLOSED"))
    (again,) = compare(long)
    differences.ask_flatten(again, reason="again")
    for _ in range(3):
        account_tasks.resolve_difference(again.pk)
    clock.shift(10)
    flattens_again(long)
    assert figures() == (Decimal(60000), Decimal(1))


def test_the_rest_of_a_close_is_adopted_with_what_it_cost(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    """0.01 at 60,000 and 0.006 at 70,000."""
    partly_closed(long, monkeypatch)
    clock.shift(10)
    (again,) = compare(long)
    differences.adopt(again, reason="mine")
    assert long.held() == Decimal("0.016")
    assert figures() == (Decimal(63750), Decimal("0.4"))


def test_the_rest_of_a_close_is_adopted_with_what_it_cost_also_after_ours_is_closed(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    partly_closed(long, monkeypatch)
    assert long.send("close").state == SignalState.EXECUTED
    margin(long, "0.006", monkeypatch, cost="65000")
    clock.shift(10)
    (again,) = compare(long)
    differences.adopt(again, reason="mine")
    assert (long.held(), figures()[0]) == (Decimal("0.006"), Decimal(70000))


def test_the_rest_of_a_close_costs_the_same_after_a_try_that_could_not_be_made(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    partly_closed(long, monkeypatch)
    clock.shift(10)
    (again,) = compare(long)
    Account.objects.update(is_active=False)
    differences.ask_flatten(again, reason="again")
    account_tasks.resolve_difference(again.pk)
    Account.objects.update(is_active=True)
    clock.shift(10)
    (left,) = compare(long)
    assert left != again
    differences.adopt(left, reason="mine")
    assert figures() == (Decimal(63750), Decimal("0.4"))


def test_what_somebody_left_of_the_rest_costs_the_same(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    partly_closed(long, monkeypatch)
    margin(long, "0.013", monkeypatch, cost="65000")
    clock.shift(10)
    flattens_again(long)
    assert figures() == (Decimal(60000), Decimal("0.7"))


def test_what_somebody_bought_beside_a_close_is_no_rest_of_it(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    """0.01 at 60,000, 0.01 at 70,000 and 0.01 more at 80,000: only the venue knows of that."""
    long.script.price = Decimal(70100)
    found = flattening(long, monkeypatch, "0.02", cost="65000")
    assert resolving.carry_out(found.pk) == SYMBOL
    clock.shift(10)
    margin(long, "0.03", monkeypatch, cost="70000")
    compare(long)
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.GONE, "0.02", "0.03"), (State.OPEN, "0.01", "0.03")]
    clock.shift(10)
    (again,) = compare(long)
    differences.adopt(again, reason="mine")
    assert figures() == (Decimal(70000), Decimal(0))


def test_a_later_difference_of_the_size_closed_by_hand_has_a_cost_of_its_own(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    """The first 0.01 cost 30,000 and went by hand, the next one 70,000."""
    found = flattening(desk, monkeypatch, "0.01", cost="30000")
    assert resolving.carry_out(found.pk) == SYMBOL
    clock.shift(10)
    margin(desk, "0", monkeypatch)
    compare(desk)
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    assert states() == [State.GONE]

    clock.shift(10)
    desk.script.price = Decimal(70100)
    later = flattening(desk, monkeypatch, "0.01", cost="70000")
    for _ in range(2):
        account_tasks.resolve_difference(later.pk)
    assert figures() == (None, Decimal(1))


def test_a_later_difference_of_the_size_an_exit_sold_has_a_cost_of_its_own(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    nobody_follows(monkeypatch)
    found = flattening(long, monkeypatch, "0.03", cost="40000")
    long.script.outcomes.append(ExecutionResult(Outcome.REJECTED, code="BUSY", detail="busy"))
    account_tasks.resolve_difference(found.pk)
    long.send("close")
    account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.FLATTENED, "0", "0.02")]
    before = figures()[1]

    clock.shift(10)
    long.script.price = Decimal(70100)
    later = flattening(long, monkeypatch, "0.02", cost="70000")
    for _ in range(2):
        account_tasks.resolve_difference(later.pk)
    assert figures() == (None, before + 2)


@pytest.mark.parametrize("bought", ["more", "beside a rest"])
def test_what_is_bought_after_a_flatten_closes_without_gain_or_loss(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates, bought: str
) -> None:
    """The venue counts ours at the mean it had then: it tells no more what theirs cost."""
    if bought == "more":
        found, close = closing(long, monkeypatch)
        long.fills(close, part(3, "0.01", price="70100", at=timezone.now()))
        account_tasks.resolve_difference(found.pk)
    else:
        partly_closed(long, monkeypatch)
    before = figures()
    margin(long, "0.02", monkeypatch, cost="67500")
    clock.shift(10)
    flattens_again(long)
    assert figures() == before


@pytest.mark.parametrize("when", ["before it was asked for", "before its close left"])
def test_what_is_bought_after_a_sale_by_hand_closes_without_gain_or_loss(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates, when: str
) -> None:
    """The venue counts ours at the mean of both, whoever closed what was not ours."""
    long.script.price = Decimal(70100)
    margin(long, "0.02", monkeypatch, cost="65000")
    (found,) = compare(long)
    if when == "before its close left":
        differences.ask_flatten(found, reason="a fat finger")
        resolving.carry_out(found.pk)
    clock.shift(10)
    margin(long, "0.01", monkeypatch, cost="65000")
    compare(long)
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    assert states() == [State.GONE]
    margin(long, "0.02", monkeypatch, cost="67500")
    clock.shift(10)
    flattens_again(long)
    assert figures() == (Decimal(60000), Decimal(0))


def test_what_could_not_be_flattened_at_once_costs_what_the_venue_told(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    long.script.price = Decimal(70100)
    found = flattening(long, monkeypatch, "0.02", cost="65000")
    Account.objects.update(is_active=False)
    account_tasks.resolve_difference(found.pk)
    assert rows()[0] == (State.GONE, "0.01", "0.02")
    Account.objects.update(is_active=True)
    clock.shift(10)
    flattens_again(long)
    assert figures() == (Decimal(60000), Decimal(1))


def test_a_position_opened_after_a_flatten_costs_the_venue_what_it_does_us(
    long: Desk, monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    found, close = closing(long, monkeypatch)
    long.fills(close, part(3, "0.01", price="70100", at=timezone.now()))
    account_tasks.resolve_difference(found.pk)
    margin(long, "0.01", monkeypatch, cost="65000")
    clock.shift(10)
    assert long.send("close").state == SignalState.EXECUTED
    before = figures()[1]
    long.buy(stop=None)
    average = figures()[0]
    assert average is not None
    margin(long, "0.02", monkeypatch, cost=str((average + 70000) / 2))
    clock.shift(10)
    flattens_again(long)
    assert figures() == (average, before + 1)


def test_a_stop_waits_with_break_even_until_the_average_is_ours_again(
    desk: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never moves back."""
    nobody_follows(monkeypatch)
    Strategy.objects.update(break_even_percent=1)
    desk.buy()
    clock.shift(10)
    found, close = closing(desk, monkeypatch)
    account_tasks.watch(desk.account.pk)
    assert desk.plan().stop_price == 58000
    desk.fills(close, part(3, "0.01", price="70100", at=timezone.now()))
    account_tasks.watch(desk.account.pk)
    assert desk.plan().stop_price == 58000
    account_tasks.resolve_difference(found.pk)
    account_tasks.watch(desk.account.pk)
    assert desk.plan().stop_price == 60000


def test_no_stop_moves_to_the_mean_in_the_moment_it_is_flattened(
    desk: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends right after the position was read."""
    nobody_follows(monkeypatch)
    Strategy.objects.update(break_even_percent=1)
    desk.buy()
    clock.shift(10)
    found, close = closing(desk, monkeypatch)
    desk.fills(close, part(3, "0.01", price="70100", at=timezone.now()))

    read: list[str] = []

    def ends(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        answer = execute(sql, *rest)
        if '"execution_position"."average_price"' in sql and not read:
            read.append(sql)
            resolving.carry_out(found.pk)
        return answer

    with connection.execute_wrapper(ends):
        account_tasks.watch(desk.account.pk)
    assert states() == [State.FLATTENED]
    assert desk.plan().stop_price == 58000


@pytest.mark.parametrize("price", [75000, 65000])
@pytest.mark.parametrize("sold", [None, "0.004"])
def test_what_leaves_the_book_on_another_day_is_no_result_of_that_day(
    long: Desk,
    monkeypatch: pytest.MonkeyPatch,
    clock: time_machine.Coordinates,
    price: int,
    sold: str | None,
) -> None:
    """The day began with what somebody else's part had gained: its close waited, and did not fill."""
    found, close = closing(long, monkeypatch)
    long.script.price = Decimal(price)
    for seconds in (10, 86_400):
        clock.shift(seconds)
        compare(long)
    assert days.today(long.account, timezone.now()).result == 0
    fills = [part(3, sold, price=str(price), at=timezone.now())] if sold else []
    long.script.reports[close.identity] = report_of(close, VenueStatus.CANCELED, *fills)
    tasks.check_order(str(close.pk))
    account_tasks.resolve_difference(found.pk)
    assert long.held() == Decimal("0.01")
    assert days.today(long.account, timezone.now()).result == 0


@pytest.mark.parametrize("ours_went", [True, False])
@pytest.mark.parametrize("fills_now", ["0.006", None])
def test_what_was_sold_the_day_before_is_no_result_of_the_day_it_is_counted_anew(
    long: Desk,
    monkeypatch: pytest.MonkeyPatch,
    clock: time_machine.Coordinates,
    ours_went: bool,
    fills_now: str | None,
) -> None:
    """The market stands still. The close sold 0.004, and an exit ours perhaps."""
    found, close = closing(long, monkeypatch)
    first = part(3, "0.004", price="70100", at=timezone.now())
    long.fills(close, first)
    if ours_went:
        sells(long, "0.01", "70100")
    for seconds in (10, 86_400):
        clock.shift(seconds)
        compare(long)
    assert days.today(long.account, timezone.now()).result == 0
    last = [part(4, fills_now, price="70100", at=timezone.now())] if fills_now else []
    status = VenueStatus.FILLED if fills_now else VenueStatus.CANCELED
    long.script.reports[close.identity] = report_of(close, status, first, *last)
    tasks.check_order(str(close.pk))
    found.refresh_from_db()
    assert found.state == State.FLATTENED
    assert days.today(long.account, timezone.now()).result == 0


def test_what_leaves_the_book_on_its_own_day_is_no_result_of_it(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = days.today(long.account, timezone.now()).result
    found, close = closing(long, monkeypatch)
    long.ends(close, VenueStatus.CANCELED)
    account_tasks.resolve_difference(found.pk)
    assert before == days.today(long.account, timezone.now()).result == 0


@pytest.mark.parametrize("aim", ["0.005", "0.015"])
def test_an_alert_that_waits_for_a_close_is_decided_by_what_is_ours(
    long: Desk, monkeypatch: pytest.MonkeyPatch, aim: str
) -> None:
    """What the close did not sell is out of our book by then. Nothing is opened beside it."""
    found, close = closing(long, monkeypatch)
    action = "sell" if aim == "0.005" else "buy"
    signal = long.send(action, market_position="long", market_position_size=aim)
    assert signal.state == SignalState.RECEIVED
    long.ends(close, VenueStatus.CANCELED)
    signal.refresh_from_db()
    found.refresh_from_db()
    assert found.state == State.GONE
    state, held = {
        "0.005": (SignalState.EXECUTED, "0.005"),
        "0.015": (SignalState.DENIED, "0.01"),
    }[aim]
    assert (signal.state, long.held()) == (state, Decimal(held))


HALVES = [{"price": "61000", "percent": "50"}, {"price": "62000", "percent": "50"}]


def test_a_target_takes_its_share_of_what_is_ours(
    desk: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's part is in our book until its close is filled, and a person may have to say."""
    desk.buy(stop=None, take_profit=HALVES)
    clock.shift(10)
    found = flattening(desk, monkeypatch, "0.03")
    desk.script.outcomes.append(rest)
    account_tasks.resolve_difference(found.pk)
    close = Order.objects.get(role=Order.Role.FLATTEN)
    desk.fills(close, part(3, "0.004", at=timezone.now()))
    Order.objects.filter(pk=close.pk).update(state=OrderState.NEEDS_OPERATOR)
    desk.script.price = Decimal(61000)
    account_tasks.watch(desk.account.pk)
    sold = Order.objects.get(role=Order.Role.EXIT)
    assert (sold.quantity, sold.state) == (Decimal("0.005"), OrderState.FILLED)
    assert len(desk.plan().targets) == 1


def test_no_target_takes_a_share_where_nothing_is_ours_any_more(
    desk: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.buy(stop=None, take_profit=HALVES)
    clock.shift(10)
    closing(desk, monkeypatch)
    sells(desk, "0.01", "60500")
    desk.script.price = Decimal(61000)
    account_tasks.watch(desk.account.pk)
    assert Signal.objects.filter(auth=watching.OWN_ALERT).count() == 0
    assert len(desk.plan().targets) == 2


def test_a_worker_that_dies_at_the_end_has_changed_nothing(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_follows(monkeypatch)
    found, close = closing(long, monkeypatch)
    long.fills(close, part(3, "0.01", price="70100", at=timezone.now()))
    before = figures()
    with monkeypatch.context() as dying:
        dying.setattr(differences, "close", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            resolving.carry_out(found.pk)
    assert figures() == before
    assert states() == [State.FLATTENING]
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    assert figures() == (Decimal(60000), Decimal(1))


def another_is_faster(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, does: Callable[[], object]
) -> None:
    """Another worker ``does`` its part while this one is in ``name``."""
    plain = getattr(where, name)
    waiting = [does]

    def overtaken(*given: Any) -> Any:
        answer = plain(*given)
        if waiting:
            waiting.pop()()
        return answer

    monkeypatch.setattr(where, name, overtaken)


def test_of_two_workers_one_makes_the_closes(long: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The close of the faster one fills before the slower one has its price: our book holds again what
    it did when that one asked the venue, and a second close would sell what is ours.
    """
    nobody_follows(monkeypatch)
    long.script.price = Decimal(70100)
    found = flattening(long, monkeypatch, "0.02", cost="65000")

    def closes() -> None:
        assert resolving.carry_out(found.pk) == SYMBOL
        tasks.run_lane(long.account.pk, SYMBOL)

    another_is_faster(monkeypatch, flatten, "price_of", closes)
    for _ in range(2):
        account_tasks.resolve_difference(found.pk)
    close = Order.objects.get(role=Order.Role.FLATTEN)
    assert (close.quantity, close.state) == (Decimal("0.01"), OrderState.FILLED)
    assert rows() == [(State.FLATTENED, "0.01", "0.02")]
    assert long.held() == Decimal("0.01")
    assert figures() == (Decimal(60000), Decimal(1))


def test_a_slower_worker_leaves_what_is_being_closed(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close of the faster one has not filled: our book holds what is to be closed."""
    long.script.price = Decimal(70100)
    found = flattening(long, monkeypatch, "0.02", cost="65000")
    another_is_faster(monkeypatch, resolving, "_held_at", lambda: resolving.carry_out(found.pk))
    assert resolving.carry_out(found.pk) == SYMBOL
    assert states() == [State.FLATTENING]
    tasks.run_lane(long.account.pk, SYMBOL)
    account_tasks.resolve_difference(found.pk)
    assert rows() == [(State.FLATTENED, "0.01", "0.02")]
    assert figures() == (Decimal(60000), Decimal(1))


def test_a_worker_that_saw_the_account_switched_off_leaves_what_is_being_closed(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flattening(long, monkeypatch, "0.02", cost="65000")

    def begins() -> None:
        Account.objects.update(is_active=True)
        resolving.carry_out(found.pk)

    Account.objects.update(is_active=False)
    another_is_faster(monkeypatch, resolving, "switched_off", begins)
    resolving.carry_out(found.pk)
    assert states() == [State.FLATTENING]
    assert Order.objects.filter(role=Order.Role.FLATTEN).count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_venue_that_hangs_holds_one_thread_of_a_difference(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep asks for it every second."""
    found = flattening(long, monkeypatch, "0.02")
    asked, answer = threading.Semaphore(0), threading.Event()

    def hangs(self: ScriptedPlugin) -> list[PositionReport]:
        asked.release()
        assert answer.wait(20)
        raise QueryFailedError("timeout")

    monkeypatch.setattr(ScriptedPlugin, "positions", hangs)
    first = beside(lambda: account_tasks.resolve_difference(found.pk))
    assert asked.acquire(timeout=20)
    for _ in range(3):
        account_tasks.resolve_difference(found.pk)
    answer.set()
    first.result(20)
    assert not asked.acquire(blocking=False)


def test_the_close_of_a_difference_goes_by_the_queue_for_exits(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flattening(long, monkeypatch, "0.02")
    sent: list[Any] = []
    monkeypatch.setattr(
        tasks.run_lane,
        "apply_async",
        lambda args, **options: sent.append((args, options.get("queue"))),
    )
    account_tasks.resolve_difference(found.pk)
    assert sent == [((long.account.pk, SYMBOL), "exits")]


@pytest.mark.parametrize("theirs", ["0.004", "0", "-0.01"])
def test_what_would_open_something_is_not_flattened(
    long: Desk, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    margin(long, theirs, monkeypatch)
    (found,) = compare(long)
    with pytest.raises(ValueError, match="adopt what it holds"):
        differences.ask_flatten(found, reason="test")
    assert states() == [State.OPEN]


def test_a_flattening_that_was_overtaken_closes_nothing(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    margin(long, "0.03", monkeypatch)
    (found,) = compare(long)
    differences.ask_flatten(found, reason="test")
    Position.objects.update(quantity=Decimal("0.03"))
    account_tasks.resolve_difference(found.pk)
    account_tasks.resolve_difference(found.pk)
    assert states() == [State.GONE]
    assert not Order.objects.filter(role=Order.Role.FLATTEN).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("decide", "state"),
    [
        (differences.ask_flatten, State.FLATTENING),
        (differences.ignore, State.IGNORED),
        (differences.adopt, State.ADOPTED),
    ],
)
def test_what_an_operator_decides_while_a_comparison_is_stored_stands(
    decide: Callable[..., None], state: Difference.State
) -> None:
    account = AccountFactory.create()
    asked_at = timezone.now()
    seen = differences.Seen(Difference.Kind.POSITION, SYMBOL, SYMBOL, "0", "1", "one more")
    (found,) = differences.note(account, [seen])
    with transaction.atomic():
        decide(found, reason="mine")
        storing = beside(lambda: differences.note(account, [seen], since=asked_at))
        wait_for_a_blocked_backend()
    storing.result(60)
    assert states() == [state]
    found.refresh_from_db()
    assert found.reason == "mine"


def test_a_foreign_order_is_canceled_at_the_venue_until_it_is_gone(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    order = OrderFactory.build(account=desk.account)
    foreign = report_of(order, VenueStatus.OPEN)
    desk.script.reports["foreign"] = foreign
    (found,) = compare(desk)
    differences.ask_cancel(found, reason="not ours")
    account_tasks.resolve_difference(found.pk)
    account_tasks.resolve_difference(found.pk)  # not asked again at once
    assert [ref.broker_order_id for ref in desk.script.canceled] == [foreign.broker_order_id]
    assert states() == [State.CANCELING]
    clock.shift(11)
    periodic_tasks.sweep()
    assert len(desk.script.canceled) == 2
    clock.shift(-3600)
    periodic_tasks.sweep()
    assert len(desk.script.canceled) == 3
    desk.script.reports.clear()
    assert compare(desk) == []
    assert states() == [State.CANCELED]


@pytest.mark.parametrize("asked", [State.OPEN, State.CANCELING])
def test_a_foreign_order_left_out_of_a_comparison_is_still_there(
    desk: Desk, asked: Difference.State
) -> None:
    """Where the venue keeps no id of ours it could be the order of ours that is under way."""
    desk.script.capabilities = replace(CAPABILITIES, keeps_our_id=False)
    order = OrderFactory.build(account=desk.account)
    desk.script.reports["foreign"] = replace(report_of(order, VenueStatus.OPEN), client_order_id="")
    (found,) = compare(desk)
    if asked is State.CANCELING:
        differences.ask_cancel(found, reason="not ours")
    ours = OrderFactory.create(account=desk.account, state=OrderState.SUBMITTING)
    assert compare(desk) == [found]
    assert states() == [asked]
    Order.objects.filter(pk=ours.pk).update(state=OrderState.CANCELED)
    desk.script.reports.clear()
    assert compare(desk) == []
    assert states() == [State.GONE if asked is State.OPEN else State.CANCELED]


def test_a_position_is_not_canceled_nor_an_order_flattened(long: Desk) -> None:
    venue_holds(long, "0.004")
    long.script.reports["foreign"] = report_of(
        OrderFactory.build(account=long.account), VenueStatus.OPEN
    )
    order, position = sorted(compare(long), key=lambda one: one.kind)
    with pytest.raises(ValueError, match="cancel it at the venue"):
        differences.ask_flatten(order, reason="test")
    with pytest.raises(ValueError, match="adopt or flatten it"):
        differences.ask_cancel(position, reason="test")


def test_a_venue_that_does_not_answer_leaves_what_was_asked_for_standing(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    margin(long, "0.03", monkeypatch)
    (found,) = compare(long)
    differences.ask_flatten(found, reason="test")
    desk_failure = QueryFailedError("timeout")
    with monkeypatch.context() as broken:
        broken.setattr(
            "execution.resolving.plugin_for", lambda account: (_ for _ in ()).throw(desk_failure)
        )
        account_tasks.resolve_difference(found.pk)
    assert states() == [State.FLATTENING]
    assert long.held() == Decimal("0.01")


def test_what_is_more_than_the_largest_order_is_flattened_in_parts(
    long: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    margin(long, "0.03", monkeypatch)
    (found,) = compare(long)
    differences.ask_flatten(found, reason="test")
    Instrument.objects.update(max_quantity=Decimal("0.015"))
    for _ in range(3):
        periodic_tasks.sweep()
    closes = Order.objects.filter(role=Order.Role.FLATTEN)
    assert [one.quantity for one in closes] == [Decimal("0.01")] * 2
    assert {one.state for one in closes} == {OrderState.FILLED}
    assert long.held() == Decimal("0.01")
