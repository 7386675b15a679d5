"""Where the accidents of a story come from: a seed, or the list an earlier story left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol


class Choices(Protocol):
    """``draw(n)`` is one of 0 to n - 1, where 0 is always the harmless one. Nothing harmful comes
    once they are ``spent``.
    """

    @property
    def spent(self) -> bool: ...

    def draw(self, kinds: int) -> int: ...


class Drawn:
    """Drawn from a seed and kept, so that the story can be told again."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random
        self.made: list[int] = []
        self.spent = False

    def draw(self, kinds: int) -> int:
        number = int(self._random() * kinds)
        self.made.append(number)
        return number


class Replayed:
    """The numbers of an earlier story; nothing but harmless choices once they are used up."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._left = list(reversed(numbers))

    @property
    def spent(self) -> bool:
        return not self._left

    def draw(self, kinds: int) -> int:
        return min(self._left.pop(), kinds - 1) if self._left else 0


def shortest(numbers: list[int], fails: Callable[[Sequence[int]], bool]) -> list[int]:
    """Numbers that still fail, with as many as possible left out or made harmless."""
    best, shrunk = numbers, True
    while shrunk:
        shrunk = False
        for size in (32, 8, 4, 2, 1):
            start = len(best)
            while start > 0:
                start = max(start - size, 0)
                chunk = best[start : start + size]
                shorter = best[:start] + best[start + size :]
                milder = best[:start] + [0] * len(chunk) + best[start + size :]
                if fails(shorter):
                    best, shrunk = shorter, True
                elif any(chunk) and fails(milder):
                    best, shrunk = milder, True
    return best
