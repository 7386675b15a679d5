"""A slice of the simulation, and the proof that it notices what is taken away.

All of it: ``make simulate``.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import DataObject

from tests.simulation.__main__ import WITHOUT
from tests.simulation.choices import Drawn, Replayed, shortest
from tests.simulation.judge import Violation, always, when_quiet
from tests.simulation.story import WAITS, calm_down, explain, play, violation
from tests.simulation.world import Safeguards, World

SLICE = range(1500)


def test_no_story_loses_doubles_or_forgets_an_order() -> None:
    bad = [seed for seed in SLICE if violation(Drawn(seed), Safeguards())]
    assert bad == [], explain(bad[0], Safeguards())


@pytest.mark.parametrize(
    ("missing", "broken"),
    [("settle-window", "doubled"), ("second-look", "doubled"), ("conditional-move", "order")],
)
def test_a_missing_safeguard_breaks_a_promise(missing: str, broken: str) -> None:
    safeguards = WITHOUT[missing]
    seeds = iter(range(3000))
    bad = next(seed for seed in seeds if violation(Drawn(seed), safeguards).startswith(broken))
    told = explain(bad, safeguards).splitlines()
    assert told[0].startswith(f"seed {bad}, choices [")
    assert told[-1].startswith(broken)
    assert len(told) < 30
    assert violation(Drawn(bad), Safeguards()) == ""


def test_a_story_is_told_again_by_its_choices() -> None:
    drawn, first, again = Drawn(7), list[str](), list[str]()
    play(drawn, Safeguards(), first.append)
    play(Replayed(drawn.made), Safeguards(), again.append)
    assert len(first) > 40
    assert again == first


def test_the_shortest_story_keeps_only_what_matters() -> None:
    numbers = [4, 0, 7, 2, 9, 9, 1, 5, 3]
    assert shortest(numbers, lambda left: 7 in left and 5 in left) == [7, 5]


class SimulatedOrders(RuleBasedStateMachine):
    """The same world, its accidents chosen and shortened by Hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Replayed([]), 2, Safeguards())
        self.world.sweep()

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), fate=st.lists(st.integers(0, 7), max_size=4))
    def somebody_goes_on(self, data: DataObject, fate: list[int]) -> None:
        self.world.venue.choices = Replayed(fate)
        self.world.step(data.draw(st.integers(0, len(self.world.workers) - 1)))

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data())
    def somebody_dies(self, data: DataObject) -> None:
        self.world.kill(data.draw(st.integers(0, len(self.world.workers) - 1)))

    @rule(seconds=st.sampled_from(WAITS), stands_still=st.booleans())
    def time_passes(self, seconds: int, *, stands_still: bool) -> None:
        self.world.wait(seconds, stands_still=stands_still)

    @rule()
    def everything_due_is_started(self) -> None:
        self.world.sweep()

    @rule(work=st.sampled_from(("lane", "check", "cancel", "refuse")), number=st.integers(0, 1))
    def a_message_comes(self, work: str, number: int) -> None:
        self.world.start(work, number)

    @rule(number=st.integers(0, 1))
    def the_venue_trades(self, number: int) -> None:
        self.world.venue.trade(number, self.world.now)

    @invariant()
    def nothing_is_doubled(self) -> None:
        always(self.world)

    def teardown(self) -> None:
        calm_down(self.world)
        when_quiet(self.world)


TestSimulatedOrders = SimulatedOrders.TestCase
TestSimulatedOrders.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_breach_is_a_failure_of_its_own() -> None:
    world = World(Replayed([]), 1, Safeguards())
    for _ in range(2):
        world.venue.place(0, world.now)
    with pytest.raises(Violation, match="the venue took order 0 twice"):
        always(world)
