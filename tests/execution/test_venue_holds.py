"""No stop waits at a venue for a position that somebody else has closed there."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
import time_machine

from brokers.types import PositionReport, VenueStatus
from execution import periodic_tasks, reconcile
from execution.models import Difference
from tests.brokers.scripted import CAPABILITIES, ScriptedPlugin
from tests.execution.guarding import SYMBOL, Desk, clock, desk

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
FOUND = Difference.Kind.POSITION


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
