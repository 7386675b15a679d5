"""What a soak sends, and what the venue does to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, cycle

from tests.chaos.plan import QUANTITIES, Step, lanes
from tests.venues.faults import Action, Fault, When

FAULTS = (
    Fault(Action.DROP, When.BEFORE, probability=0.02),
    Fault(Action.DROP, When.AFTER, probability=0.02),
    Fault(Action.STATUS, When.BEFORE, status=503, probability=0.02),
    Fault(Action.STATUS, When.AFTER, status=500, probability=0.02),
    Fault(Action.CUT_JSON, probability=0.01),
    Fault(Action.HANG, When.AFTER, seconds=1.3, probability=0.01),
)
"""One placement in ten."""


def stream() -> Iterator[Step]:
    """A buy in every lane, then a sale of it in every lane, for ever."""
    numbers = count()
    single = [lane for lane in lanes() if lane[0] != "pair"]
    for action in cycle(("buy", "sell")):
        for strategy, symbol in single:
            step = Step(next(numbers), strategy, symbol, {})
            quantity = QUANTITIES[symbol.partition("/")[0]]
            step.body.update(action=action, quantity=quantity, id=step.key, symbol=symbol)
            yield step
