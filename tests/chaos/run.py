"""One run: build the installation, let the storm pass, lift it, let things settle, judge."""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import psycopg
from django.db import connections

from brokers.errors import BrokerError
from brokers.models import Account
from execution import reconcile
from execution.states import OrderState
from risk.types import Refusal
from tests.chaos.fleet import Fleet
from tests.chaos.guards import unguarded
from tests.chaos.installation import Installation
from tests.chaos.plan import ENCORES, Planner
from tests.chaos.points import BACKGROUND, CELLS
from tests.chaos.sender import Gate, Senders
from tests.chaos.story import story
from tests.chaos.trouble import EVERY, MarketMaker, Troubles
from tests.chaos.verdict import Auditor, Finding
from tests.venues.client import LedgerView, RunningVenue

BACKLOG = 80
"""Orders and alerts under way at which the senders pause."""
TROUBLES = 12
"""At least so many in a run."""
KILLED_BY = 0.9
"""Share of the alerts by which all kills have struck, lest the last ones strike nothing."""
ENCORE_LIMIT_S = 15
DRAIN_LIMIT_S = 60
"""In which what was accepted is dealt with while faults and kills go on."""
GUARD_LIMIT_S = 40
"""In which every position has its stops again after that."""
UNDER_WAY = """
SELECT (SELECT count(*) FROM execution_signal WHERE state = 'received')
     + (SELECT count(*) FROM execution_order
        WHERE state IN ('pending', 'submitting', 'unknown', 'canceling')
           OR (cancel_reason <> '' AND state IN ('open', 'partially_filled')))
"""


@dataclass
class Result:
    """The figures of a run."""

    orders: int = 0
    placed: int = 0
    acknowledged: int = 0
    storm_s: float = 0
    settling_s: float = 0
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


class Run:
    """Drives an installation whose zygote is up."""

    def __init__(
        self, options: Namespace, plan: Planner, place: Installation, venue: RunningVenue
    ) -> None:
        self.options = options
        self.plan = plan
        self.steps = plan.steps
        self.place = place
        self.venue = venue
        self.fleet = Fleet(place.zygote, options.seed)
        self.gate = Gate()
        self.senders = Senders(place.port, place.paths, self.gate)
        self.market = MarketMaker(venue.control, options.seed)
        self.troubles = Troubles(
            self.fleet,
            place.postgres,
            place.valkey,
            place.urls.redis,
            Random(options.seed),
            place.clock,
            venue.control,
        )
        self.over = threading.Event()
        self.under_way = 0
        self.unguarded: list[str] = []
        self.sent = list(plan.steps)

    def carry_out(self) -> Result:
        """Everything, in order; the result holds what was found."""
        result = Result()
        started = time.monotonic()
        self._begin()
        self._make_trouble(started)
        self._give_encores(started)
        self._lift()
        result.storm_s = time.monotonic() - started
        self._settle()
        result.settling_s = time.monotonic() - started - result.storm_s
        self._judge(result)
        return result

    def _begin(self) -> None:
        self.venue.control.set_fault_rates(*BACKGROUND)
        self.venue.control.set_visibility_delay(self.options.hidden_ms)
        self.fleet.start()
        self.senders.send(self.steps)
        self.market.thread.start()
        threading.Thread(target=self._hold_back, daemon=True).start()

    def _make_trouble(self, started: float) -> None:
        """Until all alerts are sent and dealt with. Random kills make up what the planned ones have
        not reached, in step with the alerts that are done.
        """
        wanted = len(self.steps) or 1
        troubles, every = 0, min(EVERY, wanted // TROUBLES + 1)
        deadline = started + self.options.minutes * 60
        while self.senders.busy or self.under_way > len(self.steps) // 50:
            done = len(self.senders.acknowledged) - self.under_way
            struck = self.place.fuses.kills() + self.fleet.random_kills.total()
            if struck < self.options.kills * min(done / (wanted * KILLED_BY), 1):
                self.fleet.kill_one()
            if len(self.senders.acknowledged) > (troubles + 1) * every:
                self.troubles.strike(troubles)
                troubles += 1
            if time.monotonic() > deadline:
                self.gate.closed_for_good.set()
            if time.monotonic() > deadline + DRAIN_LIMIT_S:
                return
            time.sleep(0.05)

    def _give_encores(self, started: float) -> None:
        """Orders for the cells that nothing has met yet, as long as there is time."""
        for number in range(ENCORES):
            met = self.place.fuses.cells()
            encores = [
                step
                for cell, tries in self.plan.encores.items()
                if cell not in met
                for step in tries[number]
            ]
            if not encores or time.monotonic() > started + self.options.minutes * 60:
                return
            self.sent += encores
            self.senders.send(step for step in encores if step.makes_an_order)
            self._wait_for_the_senders()
            self.senders.send(step for step in encores if not step.makes_an_order)
            self._wait_for_the_senders()

    def _wait_for_the_senders(self) -> None:
        """Until nearly everything sent is dealt with, within the time such orders take."""
        deadline = time.monotonic() + ENCORE_LIMIT_S
        time.sleep(1)
        while self.senders.busy or self.under_way:
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)

    def _hold_back(self) -> None:
        while not self.over.wait(0.3):
            self.under_way = self._count_under_way()
            (self.gate.open.clear if self.under_way > BACKLOG else self.gate.open.set)()

    def _count_under_way(self) -> int:
        """How much is not resolved; more than any limit while the database does not answer."""
        try:
            with psycopg.connect(self.place.urls.database, connect_timeout=2) as database:
                row = database.execute(UNDER_WAY).fetchone()
        except psycopg.Error:
            return 1 << 30
        return int(row[0]) if row else 0

    def _lift(self) -> None:
        self.over.set()
        self.troubles.wait()
        self.market.stopping.set()
        self.market.thread.join(10)
        self.place.fuses.lift()
        self.venue.control.clear_faults()
        self.venue.control.set_visibility_delay(0)

    def _settle(self) -> None:
        """Until the product itself has resolved everything; then one reconciliation, as asked for
        by an operator, and what follows from it.
        """
        self._wait_until_resolved()
        connections.close_all()
        self.place.clock.follow()
        deadline = time.monotonic() + GUARD_LIMIT_S
        while (left := unguarded(self._ledgers())) and time.monotonic() < deadline:
            time.sleep(1)
        self.unguarded = left
        for account in Account.objects.all():
            with suppress(BrokerError, Refusal):
                reconcile.reconcile_account(account)
        self._wait_until_resolved()

    def _wait_until_resolved(self) -> None:
        deadline = time.monotonic() + self.options.patience
        while (left := self._count_under_way()) and time.monotonic() < deadline:
            time.sleep(0.5)
        self.under_way = left

    def _ledgers(self) -> dict[str, LedgerView]:
        return {name: self.venue.control.ledger(name) for name in ("binance", "kraken")}

    def _judge(self, result: Result) -> None:
        ledgers = self._ledgers()
        auditor = Auditor(ledgers)
        if not self.senders.acknowledged:
            auditor.add("wrong", "no alert was acknowledged: nothing was tested")
        if self.under_way:
            auditor.add(
                "unsettled", f"{self.under_way} still under way after {self.options.patience} s"
            )
        auditor.alerts(self.sent, self.senders.acknowledged)
        auditor.cancels(self.sent, self.senders.acknowledged)
        auditor.order_by_order()
        auditor.positions(ledgers)
        auditor.journals(self.troubles.halts)
        for plan in self.unguarded:
            auditor.add("wrong", plan)
        for surprise in self.senders.surprises:
            auditor.add("wrong", surprise)
        self._count(result, ledgers, auditor)
        named = [finding.order for finding in auditor.findings if finding.order]
        if named:
            result.story = story(named[0], self.venue.control, ledgers)

    def _count(self, result: Result, ledgers: Mapping[str, LedgerView], auditor: Auditor) -> None:
        result.findings = auditor.findings
        result.orders = len(auditor.orders)
        result.placed = len(auditor.placed)
        result.states = Counter(str(order.state) for order in auditor.orders.values())
        result.unsent = Counter(
            f"{order.state} {order.reason}"
            for order in auditor.orders.values()
            if order.state in (OrderState.NOT_PLACED, OrderState.DENIED, OrderState.EXPIRED)
        )
        result.acknowledged = len(self.senders.acknowledged)
        result.answers = self.senders.answers
        result.troubles = self.troubles.counts + self.place.killed + self.market.moves
        fuses = self.place.fuses
        met = set(fuses.cells())
        result.cells = len(met & set(CELLS))
        missed = [cell for cell in self.plan.encores if cell not in met]
        result.cells_missed = sorted(f"{point} x {fault}" for point, fault in missed)
        result.stalls = len(fuses.struck()) - fuses.kills()
        result.kills["at named points"] = fuses.kills()
        for role, count in self.fleet.random_kills.items():
            result.kills[f"{role} at random"] = count
        for ledger in ledgers.values():
            for name, count in ledger.counts.items():
                if name.startswith("fault "):
                    result.faults[name.removeprefix("fault ")] += count
