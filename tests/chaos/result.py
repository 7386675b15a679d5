"""The figures of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from execution.states import OrderState

if TYPE_CHECKING:
    from tests.chaos.verdict import Auditor, Finding
    from tests.venues.client import LedgerView

UNSENT = (OrderState.NOT_PLACED, OrderState.DENIED, OrderState.EXPIRED)


@dataclass
class Result:
    """The figures of a run."""

    orders: int = 0
    placed: int = 0
    acknowledged: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds from the first alert to the judgement."""
    processor_s: Counter[str] = field(default_factory=Counter)
    """Seconds of processor time, by what used them."""
    stalls: int = 0
    cells: int = 0
    cells_missed: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    unsent: Counter[str] = field(default_factory=Counter)
    """Why orders ended without having been at the venue."""
    findings: list[Finding] = field(default_factory=list)
    story: str = ""

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)

    def read(self, auditor: Auditor, ledgers: Mapping[str, LedgerView]) -> None:
        """Take over what our rows and the venue's say."""
        orders = auditor.orders.values()
        self.findings = auditor.findings
        self.orders, self.placed = len(orders), len(auditor.placed)
        self.states = Counter(str(order.state) for order in orders)
        self.unsent = Counter(f"{one.state} {one.reason}" for one in orders if one.state in UNSENT)
        for ledger in ledgers.values():
            for name, count in ledger.counts.items():
                if name.startswith("fault "):
                    self.faults[name.removeprefix("fault ")] += count
