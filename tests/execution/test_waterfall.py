"""The stages of an alert's way, as bars."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from execution.admin.waterfall import Bar, bars
from execution.models import Fill, Order, Signal
from tests.factories import FillFactory, OrderFactory, SignalFactory

pytestmark = pytest.mark.django_db
ZERO = datetime(2026, 3, 2, 12, tzinfo=UTC)


def at(milliseconds: int) -> datetime:
    return ZERO + timedelta(milliseconds=milliseconds)


def sent(
    signal: Signal, submitted: int, answered: int | None, *fills: int
) -> tuple[Order, list[Fill]]:
    order = OrderFactory.create(
        signal=signal,
        account__name="main",
        submitted_at=at(submitted),
        acknowledged_at=None if answered is None else at(answered),
    )
    return order, [FillFactory.create(order=order, recorded_at=at(moment)) for moment in fills]


def test_each_stage_begins_where_the_one_before_ended() -> None:
    signal = SignalFactory.create(received_at=ZERO, decided_at=at(20))
    assert bars(signal, [sent(signal, 30, 80, 100, 90)]) == (
        Bar("queue and decision", 0, 20, 0, 200),
        Bar("main: its turn", 20, 10, 200, 100),
        Bar("main: venue", 30, 50, 300, 500),
        Bar("main: fills", 80, 20, 800, 200),
    )


def test_a_fill_with_the_answer_takes_no_time_of_its_own() -> None:
    signal = SignalFactory.create(received_at=ZERO, decided_at=at(50))
    labels = [bar.label for bar in bars(signal, [sent(signal, 60, 100, 100)])]
    assert labels == ["queue and decision", "main: its turn", "main: venue"]


def test_waiting_for_hours_hides_nothing_else() -> None:
    signal = SignalFactory.create(received_at=ZERO, decided_at=at(50))
    shown = bars(signal, [sent(signal, 60, 100, 3_600_000)])
    assert shown[-1] == Bar("main: venue", 60, 40, 600, 400)


def test_an_unanswered_order_shows_as_far_as_it_came() -> None:
    signal = SignalFactory.create(received_at=ZERO, decided_at=at(50))
    assert [bar.label for bar in bars(signal, [sent(signal, 60, None)])] == [
        "queue and decision",
        "main: its turn",
    ]


def test_the_shortest_stage_can_still_be_seen() -> None:
    signal = SignalFactory.create(received_at=ZERO, decided_at=ZERO)
    first, *_, last = bars(signal, [sent(signal, 40_000, 40_000)])
    assert (first.took, first.width) == (0, 4)
    assert last.x + last.width == 1000


def test_undecided_there_is_nothing_to_show() -> None:
    assert bars(SignalFactory.create(received_at=ZERO, decided_at=None), []) == ()
