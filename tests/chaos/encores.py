"""Further orders for the cells that no order has met yet."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from tests.chaos.plan import Cell, Step

ABREAST = 2
"""Orders for a cell that are sent at once; the cell strikes one of them."""
AGAIN_S = 5.0
"""In which an order gets to its point where the machine keeps up."""


class Encores:
    """Says what is to be sent now. Times are seconds of a clock that never goes back."""

    def __init__(self, tries: Mapping[Cell, Sequence[Sequence[Step]]]) -> None:
        self._left = {cell: list(steps) for cell, steps in tries.items()}
        self._again_at = dict.fromkeys(tries, 0.0)
        self._cancels: dict[int, list[Step]] = {}

    @property
    def to_cancel(self) -> list[int]:
        """The steps whose orders are to be cancelled once they are at the venue."""
        return list(self._cancels)

    def due(self, met: Container[Cell], working: Iterable[int], now: float) -> list[Step]:
        """The next orders for each cell not ``met`` so far, and the cancels of those ``working``."""
        due = [cancel for step in working for cancel in self._cancels.pop(step)]
        for cell, left in self._left.items():
            if cell in met or now < self._again_at[cell]:
                continue
            self._again_at[cell] = now + AGAIN_S
            for order, *cancels in left[:ABREAST]:
                due.append(order)
                if cancels:
                    self._cancels[order.index] = cancels
            del left[:ABREAST]
        return due

    def are_over(self, met: Container[Cell], now: float) -> bool:
        """Whether every cell is ``met``, or has had all its orders and the time to be."""
        return all(
            cell in met or not (left or now < self._again_at[cell])
            for cell, left in self._left.items()
        )
