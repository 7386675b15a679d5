"""What accounts are worth over time: each of them, and those together whose money is of one kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from heapq import merge

from brokers.models import Account
from execution import equity
from execution.performance import Point
from fks_site import charts

MOST_CURVES = 12
"""Drawn one by one; more accounts become rows of a table, each with a small curve."""


@dataclass(frozen=True, slots=True)
class Worth:
    """An account with samples. ``points`` are what changed since the first of them."""

    account: Account
    last: Decimal
    points: list[Point]
    line: charts.Line | None

    @property
    def money(self) -> tuple[str, str]:
        """Its kind: environment and currency."""
        return self.account.environment, self.account.quote_currency

    @property
    def change(self) -> Decimal:
        return self.points[-1].total

    @property
    def is_loss(self) -> bool:
        return self.change < 0


@dataclass(frozen=True, slots=True)
class Together:
    """Several accounts of one environment and one currency: paper is never added to money."""

    environment: str
    currency: str
    accounts: int
    last: Decimal
    change: Decimal
    line: charts.Line | None

    @property
    def is_loss(self) -> bool:
        return self.change < 0


def worths(accounts: Iterable[Account], since: datetime | None, now: datetime) -> list[Worth]:
    """The accounts in use that have samples; of each kind of money the largest gain first."""
    shown = [account for account in accounts if account.is_active]
    samples = equity.curves(shown, since, now)
    found = [_worth(account, samples[account.pk]) for account in shown if samples[account.pk]]
    return sorted(found, key=lambda one: (*one.money, -one.change, one.account.name))


def together(each: Iterable[Worth]) -> list[Together]:
    """Where two or more accounts have money of one kind."""
    kinds: dict[tuple[str, str], list[Worth]] = {}
    for one in each:
        kinds.setdefault(one.money, []).append(one)
    return [_together(*kind, several) for kind, several in sorted(kinds.items()) if several[1:]]


def _worth(account: Account, samples: list[Point]) -> Worth:
    start = samples[0].total
    moved = [Point(one.at, one.total - start) for one in samples]
    return Worth(account, samples[-1].total, moved, charts.line(moved))


def _together(environment: str, currency: str, several: list[Worth]) -> Together:
    """The sum of what changed: an account that came later adds what it won and lost, not its money."""
    steps = [
        [
            (now.at, now.total - before.total)
            for before, now in zip([one.points[0], *one.points], one.points, strict=False)
        ]
        for one in several
    ]
    points, total = [], Decimal(0)
    for at, change in merge(*steps, key=lambda step: step[0]):
        total += change
        points.append(Point(at, total))
    worth = sum((one.last for one in several), Decimal(0))
    return Together(environment, currency, len(several), worth, total, charts.line(points))
