"""No stop waits at a venue for a position that somebody else has closed there."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.types import ExecutionResult, Outcome, PositionReport, VenueStatus
from execution import commands, periodic_tasks, reconcile, watching
from execution.models import Difference, Fill, Order, Protection, Signal, Strategy
from execution.states import OrderState
from tests.brokers.scripted import CAPABILITIES, ScriptedPlugin, swallow
from tests.execution.guarding import SYMBOL, Desk, clock, desk
from tests.factories import OrderFactory

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
FOUND = Difference.Kind.POSITION
REFUSED = ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED", detail="no")


class Venue:
    """What it holds, as it says."""

    quantity = Decimal("0.01")

    def positions(self) -> list[PositionReport]:
        return [PositionReport(SYMBOL, self.quantity, None)] if self.quantity else []


@pytest.fixture
def venue(monkeypatch: pytest.MonkeyPatch) -> Venue:
    told = Venue()
    monkeypatch.setattr(ScriptedPlugin, "positions", lambda _: told.positions())
    return told


@pytest.fixture
def long(desk: Desk, clock: time_machine.Coordinates, venue: Venue) -> Desk:
    """Holds 0.01 behind a stop where nothing says that orders only reduce, for longer than a moment."""
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    desk.buy()
    clock.shift(10)
    reconcile.reconcile_account(desk.account)
    assert desk.guarded() == [("0.01", "58000")]
    return desk


def sweeps(desk: Desk, clock: time_machine.Coordinates) -> None:
    for _ in range(5):
        clock.shift(4)
        periodic_tasks.sweep()


def test_a_stop_is_made_as_small_as_what_the_venue_holds(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    venue.quantity = Decimal("0.004")
    reconcile.reconcile_account(long.account)
    sweeps(long, clock)
    assert long.guarded() == [("0.004", "58000")]
    plan = long.plan()
    assert plan.is_active
    assert plan.naked_since is not None
    assert plan.detail == ("0.006 of 0.01 has no stop at the venue, which is known to hold 0.004")

    venue.quantity = Decimal("0.01")
    reconcile.reconcile_account(long.account)
    sweeps(long, clock)
    assert sum(one.remaining for one in long.live()) == Decimal("0.01")
    assert long.plan().naked_since is None


def test_where_the_venue_holds_nothing_the_stop_goes(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    venue.quantity = Decimal(0)
    reconcile.reconcile_account(long.account)
    sweeps(long, clock)
    assert long.live() == []
    assert long.plan().is_active


def test_one_wrong_answer_takes_no_stop_off(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    (stop,) = long.live()
    venue.quantity = Decimal(0)
    reconcile.reconcile_account(long.account)
    venue.quantity = Decimal("0.01")
    long.guard()
    assert Difference.objects.get().theirs == "0"
    clock.shift(1)
    periodic_tasks.sweep()
    assert Difference.objects.get().state == Difference.State.GONE
    sweeps(long, clock)
    assert [one.pk for one in long.live()] == [stop.pk]
    assert long.script.canceled == []


def test_a_second_answer_that_agrees_takes_it_off_within_a_sweep(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    venue.quantity = Decimal(0)
    reconcile.reconcile_account(long.account)
    long.guard()
    assert long.guarded() == [("0.01", "58000")]
    clock.shift(1)
    periodic_tasks.sweep()
    long.guard()
    assert long.live() == []


def test_one_wrong_answer_takes_no_stop_off_beside_a_standing_difference(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    """Its row has been seen often; what the venue says this time, once."""
    venue.quantity = Decimal("0.008")
    reconcile.reconcile_account(long.account)
    sweeps(long, clock)
    (stop,) = long.live()
    assert long.guarded() == [("0.008", "58000")]
    before = list(long.script.canceled)
    venue.quantity = Decimal(0)
    reconcile.reconcile_account(long.account)
    venue.quantity = Decimal("0.008")
    long.guard()
    assert Difference.objects.get().theirs == "0"
    clock.shift(1)
    periodic_tasks.sweep()
    assert Difference.objects.get().theirs == "0.008"
    sweeps(long, clock)
    assert [one.pk for one in long.live()] == [stop.pk]
    assert long.script.canceled == before


def test_a_second_answer_that_agrees_takes_it_off_beside_a_standing_difference(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    venue.quantity = Decimal("0.008")
    reconcile.reconcile_account(long.account)
    sweeps(long, clock)
    venue.quantity = Decimal(0)
    reconcile.reconcile_account(long.account)
    long.guard()
    assert long.guarded() == [("0.008", "58000")]
    clock.shift(1)
    periodic_tasks.sweep()
    long.guard()
    assert long.live() == []


def test_a_stop_that_is_to_move_stays_where_it_is_on_one_word_of_its_venue(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    """Cancelled to make room, none would take its place before the next comparison."""
    (stop,) = long.live()
    venue.quantity = Decimal(0)
    reconcile.reconcile_account(long.account)
    venue.quantity = Decimal("0.01")
    Protection.objects.update(stop_price=Decimal(59000))
    long.guard()
    long.guard()
    assert [one.pk for one in long.live()] == [stop.pk]
    assert long.script.canceled == []
    sweeps(long, clock)
    assert long.guarded() == [("0.01", "59000")]


def test_what_the_venue_says_it_holds_more_of_is_guarded_at_once(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    venue.quantity = Decimal("0.004")
    reconcile.reconcile_account(long.account)
    sweeps(long, clock)
    venue.quantity = Decimal("0.008")
    reconcile.reconcile_account(long.account)
    long.guard()
    assert long.guarded() == [("0.004", "58000"), ("0.004", "58000")]


def test_a_coin_that_is_not_compared_again_keeps_its_stop_no_longer_than_a_minute(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    venue.quantity = Decimal(0)
    reconcile.reconcile_account(long.account)
    OrderFactory.create(account=long.account, state=OrderState.NEEDS_OPERATOR)
    sweeps(long, clock)
    assert long.guarded() == [("0.01", "58000")]
    clock.shift(60)
    long.guard()
    assert long.live() == []


@pytest.mark.parametrize(
    ("there", "price"),
    [("0.004", "60000"), ("0", "60000"), ("0", "57000")],
    ids=["a part that has its stop", "nothing", "nothing, past the stop"],
)
def test_what_the_venue_does_not_hold_is_not_closed_for_want_of_a_stop(
    long: Desk, clock: time_machine.Coordinates, venue: Venue, there: str, price: str
) -> None:
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    venue.quantity = Decimal(there)
    reconcile.reconcile_account(long.account)
    sweeps(long, clock)
    long.script.price = Decimal(price)
    sweeps(long, clock)
    sweeps(long, clock)
    assert long.plan().naked_since is not None
    assert not Signal.objects.filter(auth=watching.OWN_ALERT).exists()
    assert [quantity for quantity, _ in long.guarded()] == [there] * (there != "0")


def test_a_part_the_venue_holds_without_a_stop_is_closed(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    venue.quantity = Decimal("0.004")
    reconcile.reconcile_account(long.account)
    long.script.outcomes.extend([REFUSED] * 9)
    sweeps(long, clock)
    own = Signal.objects.filter(auth=watching.OWN_ALERT).order_by("pk")
    assert [one.action for one in own][:1] == ["close"]


def test_a_close_of_all_that_is_there_takes_the_place_of_the_exits_that_rest(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    """Both would sell: the venue holds no more than the close takes."""
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    long.send("sell", quantity="0.004", order_type="limit", price="62000")
    (resting,) = Order.objects.filter(role=Order.Role.EXIT)
    assert resting.state == OrderState.OPEN
    venue.quantity = Decimal("0.004")
    reconcile.reconcile_account(long.account)
    long.script.outcomes.extend([REFUSED] * 9)
    sweeps(long, clock)
    own = Signal.objects.filter(auth=watching.OWN_ALERT).order_by("pk")
    assert [one.alert.get("quantity") for one in own][:1] == [None]
    resting.refresh_from_db()
    assert (resting.state, resting.reason) == (OrderState.CANCELED, "CANCELED_BY_SIGNAL")
    closes = Order.objects.filter(role=Order.Role.EXIT, type="market")
    assert {f"{one.quantity:f}" for one in closes} == {"0.004"}


def test_a_stop_that_ended_unasked_has_nothing_closed_before_the_comparison(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    """Its position may have gone with it: a sale would open a short one."""
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    lose(long)
    venue.quantity = Decimal(0)
    long.ends(long.live()[0], VenueStatus.CANCELED)
    long.script.price = Decimal(57000)
    sweeps(long, clock)
    sweeps(long, clock)
    assert not Signal.objects.filter(auth=watching.OWN_ALERT).exists()


def test_a_stop_that_went_with_its_position_is_not_placed_again(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    """Close was pressed at the venue: it sold, and cancelled what rested."""
    venue.quantity = Decimal(0)
    long.ends(long.live()[0], VenueStatus.CANCELED)
    assert long.plan().detail == (
        "0.01 of 0.01 has no stop at the venue"
        "; a stop ended there unasked, and what the venue holds is looked up first"
    )
    sweeps(long, clock)

    assert [one.type.value for one in long.script.sent] == ["market", "stop"]
    assert [(one.kind, one.theirs) for one in Difference.objects.all()] == [(FOUND, "0")]
    plan = long.plan()
    assert plan.is_active
    assert plan.naked_since is not None


def test_a_stop_somebody_cancelled_is_placed_again_once_the_books_agree(
    long: Desk, clock: time_machine.Coordinates
) -> None:
    clock.shift(4)
    long.ends(long.live()[0], VenueStatus.CANCELED)
    clock.shift(4)
    long.guard()
    assert long.live() == []

    sweeps(long, clock)
    assert long.guarded() == [("0.01", "58000")]
    assert long.plan().naked_since is None


def test_where_stops_only_reduce_it_is_placed_again_without_asking(
    long: Desk, clock: time_machine.Coordinates
) -> None:
    reduces = replace(CAPABILITIES, reduce_only=True, short_selling=True, locks_balance=False)
    long.script.capabilities = reduces
    long.ends(long.live()[0], VenueStatus.CANCELED)
    clock.shift(4)
    long.guard()
    assert long.guarded() == [("0.01", "58000")]


# --- a coin that comparisons leave out ---------------------------------------------------------------


def lose(desk: Desk) -> Order:
    """A further entry of which nobody knows what became."""
    desk.script.outcomes.append(swallow)
    desk.send("buy", quantity="0.01", stop_loss="58000")
    lost = Order.objects.get(state=OrderState.UNKNOWN)
    Order.objects.filter(pk=lost.pk).update(state=OrderState.NEEDS_OPERATOR, next_check_at=None)
    lost.refresh_from_db()
    return lost


@pytest.mark.parametrize(
    ("there", "guarded"),
    [("0", []), ("0.004", ["0.004"]), ("0.01", ["0.01"]), ("0.02", ["0.01"]), ("-0.01", [])],
)
def test_beside_an_order_that_needs_an_operator_the_venue_is_asked_about_the_position(
    long: Desk, clock: time_machine.Coordinates, venue: Venue, there: str, guarded: list[str]
) -> None:
    """Compared it is not: what became of the order would look like a difference."""
    lose(long)
    venue.quantity = Decimal(there)
    long.ends(long.live()[0], VenueStatus.CANCELED)
    sweeps(long, clock)
    assert [quantity for quantity, _ in long.guarded()] == guarded
    assert not Difference.objects.exists()
    assert long.plan().is_active


def test_where_the_venue_does_not_say_what_it_holds_no_stop_is_placed(
    long: Desk, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(long)
    long.ends(long.live()[0], VenueStatus.CANCELED)
    reconcile.reconcile_account(long.account)

    def fails(_: ScriptedPlugin) -> list[PositionReport]:
        raise QueryFailedError("no answer")

    monkeypatch.setattr(ScriptedPlugin, "positions", fails)
    long.guard()
    assert (long.live(), long.plan().detail) == (
        [],
        "the position cannot be guarded: no answer",
    )


def test_once_the_operator_has_ended_that_order_the_coin_is_compared_before_a_stop_rests(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    lost = lose(long)
    venue.quantity = Decimal(0)
    long.ends(long.live()[0], VenueStatus.CANCELED)
    sweeps(long, clock)
    commands.mark_ended(lost, "it is not there")
    sweeps(long, clock)
    assert long.live() == []
    reconcile.reconcile_account(long.account)
    assert [(one.kind, one.theirs) for one in Difference.objects.all()] == [(FOUND, "0")]
    sweeps(long, clock)
    assert long.live() == []


def test_a_fill_of_the_last_seconds_keeps_no_stop_on_a_position_that_is_gone(
    desk: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    """The comparison leaves such a coin out, and says nothing of it."""
    desk.script.capabilities = replace(CAPABILITIES, short_selling=True, locks_balance=False)
    desk.buy()
    venue.quantity = Decimal(0)
    desk.ends(desk.live()[0], VenueStatus.CANCELED)
    for _ in range(4):
        clock.shift(1)
        periodic_tasks.sweep()
        desk.guard()
    assert desk.live() == []
    assert not Difference.objects.exists()
    reconcile_later(desk, clock)
    assert [(one.kind, one.theirs) for one in Difference.objects.all()] == [(FOUND, "0")]
    assert desk.live() == []


def reconcile_later(desk: Desk, clock: time_machine.Coordinates) -> None:
    clock.shift(60)
    reconcile.reconcile_account(desk.account)
    desk.guard()


def test_a_stop_that_was_looked_up_once_holds_up_no_later_one(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    long.ends(long.live()[0], VenueStatus.CANCELED)
    sweeps(long, clock)
    assert long.guarded() == [("0.01", "58000")]
    stop = Order.objects.get(role=Order.Role.STOP_LOSS, state=OrderState.CANCELED)
    assert [line.event for line in stop.journal.all()][-1] == "look"
    long.buy()
    assert long.guarded() == [("0.01", "58000"), ("0.01", "58000")]


def told_less(desk: Desk, venue: Venue) -> None:
    """By hand 0.006 of 0.01 was sold; the coin is not compared, and the stop has ended."""
    Strategy.objects.update(on_naked=Strategy.OnNaked.CLOSE)
    lose(desk)
    venue.quantity = Decimal("0.004")
    desk.ends(desk.live()[0], VenueStatus.CANCELED)
    reconcile.reconcile_account(desk.account)


@pytest.mark.parametrize("price", ["60000", "57000"], ids=["by the policy", "past the stop"])
def test_a_part_of_which_the_venue_has_told_and_that_has_its_stop_is_not_closed(
    long: Desk, clock: time_machine.Coordinates, venue: Venue, price: str
) -> None:
    told_less(long, venue)
    sweeps(long, clock)
    assert long.guarded() == [("0.004", "58000")]
    long.script.price = Decimal(price)
    sweeps(long, clock)
    sweeps(long, clock)
    assert not Signal.objects.filter(auth=watching.OWN_ALERT).exists()
    assert long.guarded() == [("0.004", "58000")]


@pytest.mark.parametrize("price", ["60000", "57000"], ids=["by the policy", "past the stop"])
def test_no_more_is_closed_than_the_venue_has_told_of(
    long: Desk, clock: time_machine.Coordinates, venue: Venue, price: str
) -> None:
    told_less(long, venue)
    long.script.outcomes.extend([REFUSED] * 2)
    long.script.price = Decimal(price)
    sweeps(long, clock)
    own = Signal.objects.filter(auth=watching.OWN_ALERT).order_by("pk")
    assert [one.alert["quantity"] for one in own][:1] == ["0.004"]
    exits = Order.objects.filter(role=Order.Role.EXIT)
    assert [f"{one.quantity:f}" for one in exits] == ["0.004"]


def test_a_target_sells_no_more_than_the_venue_has_told_of(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    Protection.objects.update(targets=[{"price": "61000", "percent": "100", "of": "100"}])
    told_less(long, venue)
    sweeps(long, clock)
    long.script.price = Decimal(62000)
    sweeps(long, clock)
    exits = Order.objects.filter(role=Order.Role.EXIT)
    assert [f"{one.quantity:f}" for one in exits] == ["0.004"]


# --- stops that ended unasked before ------------------------------------------------------------------


def test_a_stop_of_an_earlier_position_holds_up_no_later_one(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    """It was closed before a comparison of it came."""
    long.ends(long.live()[0], VenueStatus.EXPIRED)
    long.send("close")
    assert long.held() == 0
    venue.quantity = Decimal(0)
    clock.shift(30)
    long.guard()
    reconcile.reconcile_account(long.account)
    clock.shift(30)

    long.buy()
    assert long.guarded() == [("0.01", "58000")]


def test_a_stop_placed_again_on_the_venues_word_holds_up_no_later_one(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    lost = lose(long)
    long.ends(long.live()[0], VenueStatus.CANCELED)
    sweeps(long, clock)
    assert long.guarded() == [("0.01", "58000")]
    commands.mark_ended(lost, "it is not there")
    clock.shift(60)
    reconcile.reconcile_account(long.account)

    long.buy()
    assert long.guarded() == [("0.01", "58000"), ("0.01", "58000")]


def test_a_stop_that_ended_before_the_fill_of_its_entry_was_told_is_looked_up(
    long: Desk, clock: time_machine.Coordinates, venue: Venue
) -> None:
    long.ends(long.live()[0], VenueStatus.CANCELED)
    fill = Fill.objects.order_by("-pk")[0]
    Fill.objects.filter(pk=fill.pk).update(recorded_at=timezone.now() + timedelta(seconds=1))
    clock.shift(2)
    long.guard()
    assert long.live() == []
