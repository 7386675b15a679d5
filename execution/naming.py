"""Which strategies there are, for the floor below, whose limits name them."""

from __future__ import annotations

from execution.models import Strategy
from risk import scopes


def is_strategy(slug: str) -> bool:
    return Strategy.objects.filter(slug=slug).exists()


scopes.has_strategy.append(is_strategy)
