from __future__ import annotations

from tests.chaos.encores import ABREAST, AGAIN_S, Encores
from tests.chaos.plan import Planner, Step
from tests.chaos.points import NO_FAULT, Point

CELL = (Point.CLAIMED, NO_FAULT)
CANCELED = (Point.CANCELED, NO_FAULT)


def tries(*cells: tuple[Point, str]) -> dict[tuple[Point, str], list[list[Step]]]:
    plan = Planner(1)
    plan.everything(500)
    return {cell: plan.encores[cell] for cell in cells}


def test_a_cell_gets_further_orders_until_one_has_met_it() -> None:
    steps = tries(CELL)[CELL]
    encores = Encores({CELL: steps})
    assert encores.due(set(), [], 100.0) == [one for [one] in steps[:ABREAST]]
    assert encores.due(set(), [], 100.0 + AGAIN_S / 2) == []
    assert encores.due(set(), [], 100.0 + AGAIN_S) == [one for [one] in steps[ABREAST:][:ABREAST]]
    assert encores.due({CELL}, [], 100.0 + 2 * AGAIN_S) == []


def test_encores_are_over_once_every_cell_is_met_or_has_had_its_orders_and_their_time() -> None:
    encores = Encores({cell: steps[:1] for cell, steps in tries(CELL, CANCELED).items()})
    assert not encores.are_over(set(), 100.0)
    assert encores.are_over({CELL, CANCELED}, 100.0)
    encores.due({CELL}, [], 100.0)
    assert not encores.are_over({CELL}, 100.0)
    assert encores.are_over({CELL}, 100.0 + AGAIN_S)


def test_an_encore_is_cancelled_once_its_order_works_at_the_venue() -> None:
    [order, cancel] = tries(CANCELED)[CANCELED][0]
    encores = Encores({CANCELED: [[order, cancel]]})
    assert encores.due(set(), encores.to_cancel, 100.0) == [order]
    assert encores.to_cancel == [order.index]
    assert encores.due(set(), [], 101.0) == []
    assert encores.due(set(), [order.index], 102.0) == [cancel]
    assert encores.to_cancel == []
