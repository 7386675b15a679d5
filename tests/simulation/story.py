"""One story: some orders, a storm of interruptions drawn by chance, then quiet, then judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from execution import decisions
from execution.states import AT_VENUE, TERMINAL, OrderState
from execution.transitions import IllegalMove
from tests.simulation.choices import Choices, Drawn, Replayed, shortest
from tests.simulation.judge import Violation, always, when_quiet
from tests.simulation.world import Safeguards, World

STEPS = 40
QUIET_ROUNDS = 200
WAITS = (1, 6, 9, 15, 31, 400)
"""Seconds: a moment, a timeout, a lease, a settle window, two, and beyond giving up."""
Tell = Callable[[str], None]


def _silent(line: str) -> None:
    """Nobody listens to most stories."""


def play(choices: Choices, safeguards: Safeguards, tell: Tell = _silent) -> None:
    """Raises Violation."""
    world = World(choices, choices.draw(2) + 1, safeguards)
    world.sweep()
    for _ in range(STEPS):
        if choices.spent:
            break
        _accident(world, choices, tell)
        always(world)
    tell("now the venue answers everything, and nobody dies any more")
    calm_down(world)
    when_quiet(world)


def _accident(world: World, choices: Choices, tell: Tell) -> None:
    """One thing happens: mostly a worker goes on."""
    kind = choices.draw(12)
    orders, workers = len(world.book.rows), len(world.workers)
    if kind <= 4 and workers:
        which = 0 if kind <= 1 else choices.draw(workers)
        tell(f"goes on: {world.workers[which][0]}")
        world.step(which)
    elif kind <= 6:
        seconds = WAITS[choices.draw(len(WAITS))]
        world.wait(seconds)
        tell(f"{seconds} s pass")
    elif kind == 7 and workers:
        tell(f"killed: {world.kill(choices.draw(workers))}")
    elif kind == 8:
        name, number = ("lane", "check")[choices.draw(2)], choices.draw(orders)
        tell(f"nudge: {name} {number}")
        world.start(name, number)
    elif kind == 9 and (which := choices.draw(3)):
        name, number = ("cancel", "refuse")[which - 1], choices.draw(orders)
        tell(f"nudge: {name} {number}")
        world.start(name, number)
    elif kind == 10:
        number = choices.draw(orders)
        tell(f"a trade on {number} at the venue, if it rests there")
        world.venue.trade(number, world.now)
    else:
        world.sweep()
        tell("sweep")
    for said in world.venue.said:
        tell(f"  venue: {said}")
    world.venue.said.clear()


def calm_down(world: World) -> None:
    """Everyone finishes and the venue tells the truth, until nothing is under way."""
    world.venue.truthful = True
    for _ in range(QUIET_ROUNDS):
        while world.workers:
            world.step(0)
        for row in world.book.rows:
            if row.state not in TERMINAL:
                row.next_check_at = None
        world.sweep()
        if not world.workers and all(row.state in TERMINAL for row in world.book.rows):
            return
        if all(_is_settled(world, row.number) for row in world.book.rows):
            while world.workers:
                world.step(0)
            if all(_is_settled(world, row.number) for row in world.book.rows):
                return
        world.wait(5)


def _is_settled(world: World, number: int) -> bool:
    """Ended, or resting there as here."""
    row = world.book.rows[number]
    there = [entry for entry in world.venue.ledger if entry.order == number]
    if row.state in AT_VENUE and row.state != OrderState.CANCELING:
        return bool(there) and there[0].status.value == row.state and there[0].shown_at <= world.now
    return row.state in TERMINAL and all(entry.shown_at <= world.now for entry in there)


@contextmanager
def weakened(safeguards: Safeguards) -> Iterator[None]:
    """The product's own decisions with as many looks as ``safeguards`` leave."""
    before, decisions.LOOKS_NEEDED = decisions.LOOKS_NEEDED, safeguards.looks
    try:
        yield
    finally:
        decisions.LOOKS_NEEDED = before


def violation(choices: Choices, safeguards: Safeguards) -> str:
    """What a story breaks; empty when it breaks nothing."""
    try:
        with weakened(safeguards):
            play(choices, safeguards)
    except (Violation, IllegalMove) as found:
        return str(found)
    return ""


def explain(seed: int, safeguards: Safeguards) -> str:
    """The shortest story like that of ``seed`` that breaks the same promise."""
    drawn = Drawn(seed)
    kind = violation(drawn, safeguards).partition(":")[0]

    def fails(numbers: Sequence[int]) -> bool:
        return violation(Replayed(numbers), safeguards).partition(":")[0] == kind

    numbers = shortest(drawn.made, fails)
    lines: list[str] = []
    try:
        with weakened(safeguards):
            play(Replayed(numbers), safeguards, lines.append)
    except (Violation, IllegalMove) as found:
        lines.append(str(found))
    return "\n".join([f"seed {seed}, choices {numbers}", *lines])
