"""Ids sort in the order they were made, whatever the clock does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import time_machine

from execution.ids import first_id_at, moment_of, uuid7, uuid7_at

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_ids_of_a_clock_that_stands_sort_in_the_order_they_were_made() -> None:
    with time_machine.travel(NOON, tick=False):
        made = [uuid7() for _ in range(5000)]
    assert made == sorted(made)
    assert {one.version for one in made} == {7}
    assert first_id_at(NOON) < made[0]
    assert made[-1] < first_id_at(NOON + timedelta(milliseconds=2))


def test_a_clock_set_back_a_little_turns_no_order_around() -> None:
    with time_machine.travel(NOON + timedelta(days=1), tick=False) as clock:
        before = uuid7()
        clock.shift(-0.9)
        assert uuid7() > before


def test_a_clock_set_back_by_hours_is_believed() -> None:
    with time_machine.travel(NOON + timedelta(days=2), tick=False) as clock:
        uuid7()
        clock.shift(-7200)
        made = uuid7()
        assert made < first_id_at(NOON + timedelta(days=2) - timedelta(hours=1))
        assert uuid7() > made


def test_ids_of_another_moment_sort_by_it() -> None:
    then = NOON - timedelta(hours=3)
    made = [uuid7_at(then + timedelta(milliseconds=number)) for number in range(5)]
    assert made == sorted(made)
    assert {one.version for one in made} == {7}
    assert [moment_of(one) for one in made[:2]] == [then, then + timedelta(milliseconds=1)]
    assert first_id_at(then) < made[0] < first_id_at(then + timedelta(milliseconds=2))
    assert uuid7_at(then) != uuid7_at(then)


def test_threads_get_ids_of_their_own() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: uuid7(), range(4000)))
    assert len(set(made)) == 4000
