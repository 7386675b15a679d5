"""What the thread makes of nudges: the first goes at once, the rest of a burst together."""

from __future__ import annotations

from queue import SimpleQueue

import pytest
from kombu.exceptions import OperationalError

from execution import nudge
from execution.nudge import Nudger

WAIT = 10.0


@pytest.fixture
def messages() -> SimpleQueue[list[str]]:
    return SimpleQueue()


@pytest.fixture
def nudger(messages: SimpleQueue[list[str]], monkeypatch: pytest.MonkeyPatch) -> Nudger:
    """One whose first message has just gone."""
    monkeypatch.setattr(nudge, "PACE", 1.0)
    nudger = Nudger(messages.put)
    nudger.send("first")
    assert messages.get(timeout=WAIT) == ["first"]
    return nudger


def test_the_first_goes_at_once_and_the_burst_behind_it_in_one_message(
    messages: SimpleQueue[list[str]], nudger: Nudger
) -> None:
    for row_id in ("b", "c", "d"):
        nudger.send(row_id)
    assert messages.get(timeout=WAIT) == ["b", "c", "d"]


def test_a_message_names_no_more_than_the_most(
    messages: SimpleQueue[list[str]], nudger: Nudger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudge, "MAX_BATCH", 2)
    for row_id in ("b", "c", "d"):
        nudger.send(row_id)
    assert [messages.get(timeout=WAIT), messages.get(timeout=WAIT)] == [["b", "c"], ["d"]]


def test_a_queue_that_is_away_costs_the_nudges_of_its_time_and_no_more(
    messages: SimpleQueue[list[str]],
) -> None:
    def publish(row_ids: list[str]) -> None:
        messages.put(row_ids)
        if row_ids == ["lost"]:
            raise OperationalError("gone")

    nudger = Nudger(publish)
    nudger.send("lost")
    assert messages.get(timeout=WAIT) == ["lost"]
    nudger.send("next")
    assert messages.get(timeout=WAIT) == ["next"]


def test_too_many_nudges_are_dropped_and_not_kept(
    messages: SimpleQueue[list[str]], nudger: Nudger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudge, "MAX_WAITING", 2)
    for row_id in ("b", "c", "too much"):
        nudger.send(row_id)
    assert messages.get(timeout=WAIT) == ["b", "c"]
