"""One run: build the installation, let the storm pass, lift it, let things settle, judge."""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import Any, LiteralString

import psycopg
from django.db import connections

from brokers.errors import BrokerError
from brokers.models import Account
from execution import reconcile
from risk.types import Refusal
from tests.chaos.effort import spent
from tests.chaos.encores import Encores
from tests.chaos.fleet import Fleet
from tests.chaos.guards import unguarded
from tests.chaos.installation import Installation
from tests.chaos.plan import Cell, Planner
from tests.chaos.points import BACKGROUND, CELLS
from tests.chaos.result import Result
from tests.chaos.sender import Gate, Senders
from tests.chaos.story import story
from tests.chaos.trouble import EVERY, MarketMaker, Troubles
from tests.chaos.verdict import Auditor
from tests.venues.client import LedgerView, RunningVenue

BACKLOG = 200
"""Orders and alerts under way at which the senders pause."""
TROUBLES = 12
"""At least so many in a run."""
KILLED_BY = 0.9
"""Share of the alerts by which all kills and troubles have been, lest the last ones strike nothing."""
ENCORES_FROM = 0.8
"""Share of the alerts, carried out, after which cells that nothing has met get further orders: what was
planned for them is over, and the last alerts keep the machine busy meanwhile."""
LOOK_EVERY_S = 2
GUARD_LIMIT_S = 40
"""Without progress, in which every position has its stops again after that."""
UNDER_WAY = """
SELECT (SELECT count(*) FROM execution_signal WHERE state = 'received')
     + (SELECT count(*) FROM execution_order
        WHERE state IN ('pending', 'submitting', 'unknown', 'canceling')
           OR (cancel_reason <> '' AND state IN ('open', 'partially_filled')))
"""
WORKING = """
SELECT signal_id FROM execution_order
WHERE signal_id = ANY(%s::uuid[]) AND state IN ('open', 'partially_filled')
"""


class Doubled(Exception):
    """The storm need not go on."""


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
        self.database: psycopg.Connection[tuple[Any, ...]] | None = None
        self.asking = threading.Lock()
        self.looked_at = 0.0
        self.unguarded: list[str] = []
        self.sent = list(plan.steps)
        self.encores = Encores(plan.encores)

    def carry_out(self) -> Result:
        """Everything, in order; the result holds what was found."""
        result = Result()
        phases: dict[str, Callable[[], None]] = {
            "alerts": self._make_trouble,
            "encores": self._give_encores,
            "last troubles": self._lift,
            "settling": self._settle,
            "judgement": lambda: self._judge(result),
        }
        self.deadline = time.monotonic() + self.options.minutes * 60
        self._begin()
        try:
            for name, act in phases.items():
                before = time.monotonic()
                act()
                result.phases[name] = round(time.monotonic() - before, 1)
        except Doubled:
            self._judge_the_doubled(result)
        result.processor_s = spent(
            self.fleet.used, self.fleet.pids() | self.place.servers() | {self.venue.pid: "venue"}
        )
        return result

    def _begin(self) -> None:
        self.venue.control.set_fault_rates(*BACKGROUND)
        self.venue.control.set_visibility_delay(self.options.hidden_ms)
        self.fleet.start()
        self.senders.send(self.steps)
        self.market.thread.start()
        threading.Thread(target=self._hold_back, daemon=True).start()

    def _make_trouble(self) -> None:
        """Until all alerts are acknowledged, every trouble has been and all kills have struck."""
        while self.senders.busy or self._is_wanting():
            self._go_on()
            if self._done > ENCORES_FROM:
                self._send_encores(self.place.fuses.cells())
            if time.monotonic() > self.deadline:
                self.gate.closed_for_good.set()
                return

    def _is_wanting(self) -> bool:
        missing = self.troubles.kinds().keys() - self.troubles.counts
        return self.struck < self.options.kills or bool(missing)

    def _go_on(self) -> None:
        """Random kills make up what the planned ones have not reached, in step with the alerts that
        are done; troubles strike in step with those that are acknowledged.
        """
        wanted, acknowledged = len(self.steps) or 1, len(self.senders.acknowledged)
        share = self._done / KILLED_BY if self.senders.busy else 1
        if self.struck < self.options.kills * min(share, 1):
            self.fleet.kill_one()
        number = self.troubles.counts.total()
        every = min(EVERY, round(wanted * KILLED_BY) // TROUBLES + 1)
        if acknowledged > (number + 1) * every or (
            share == 1 and number < len(self.troubles.kinds())
        ):
            self.troubles.strike(number)
        if self.options.until_doubled:
            self._look_for_doubled()
        time.sleep(0.05)

    @property
    def _done(self) -> float:
        """The share of the alerts that is carried out; negative while that is not known."""
        return (len(self.senders.acknowledged) - self.under_way) / (len(self.steps) or 1)

    @property
    def struck(self) -> int:
        return self.place.fuses.kills() + self.fleet.random_kills.total()

    def _give_encores(self) -> None:
        """Orders for the cells that nothing has met yet, as long as there is time."""
        while (now := time.monotonic()) < self.deadline:
            met = self.place.fuses.cells()
            if self.encores.are_over(met, now):
                return
            self._send_encores(met)
            self._go_on()
            time.sleep(0.2)

    def _send_encores(self, met: Container[Cell]) -> None:
        working = self._at_the_venue(self.encores.to_cancel)
        steps = self.encores.due(met, working, time.monotonic())
        self.sent += steps
        self.senders.send(steps)

    def _at_the_venue(self, steps: Iterable[int]) -> list[int]:
        """Those of ``steps`` whose orders are known to work there."""
        signals = {self.senders.acknowledged.get(step): step for step in steps}
        known = [signal for signal in signals if signal]
        rows = self._ask(WORKING, known) if known else []
        return [signals[str(signal)] for (signal,) in rows or []]

    def _hold_back(self) -> None:
        while not self.over.wait(0.3):
            self.under_way = self._count_under_way()
            (self.gate.open.clear if self.under_way > BACKLOG else self.gate.open.set)()

    def _count_under_way(self) -> int:
        """How much is not resolved; more than any limit while the database does not answer."""
        rows = self._ask(UNDER_WAY)
        return 1 << 30 if rows is None else int(rows[0][0])

    def _ask(self, question: LiteralString, *given: object) -> list[tuple[Any, ...]] | None:
        """``None`` while the database does not answer."""
        with self.asking:
            try:
                if self.database is None:
                    self.database = psycopg.connect(
                        self.place.urls.database, connect_timeout=2, autocommit=True
                    )
                return self.database.execute(question, given).fetchall()
            except psycopg.Error:
                self.database = None
                return None

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
        self._wait_for_nothing(self._count_unguarded, min(GUARD_LIMIT_S, self.options.patience))
        for account in Account.objects.all():
            with suppress(BrokerError, Refusal):
                reconcile.reconcile_account(account)
        self._wait_until_resolved()

    def _count_unguarded(self) -> int:
        self.unguarded = unguarded(self._ledgers())
        return len(self.unguarded)

    def _wait_until_resolved(self) -> None:
        self.under_way = self._wait_for_nothing(self._count_under_way, self.options.patience)

    def _wait_for_nothing(self, count: Callable[[], int], patience: float) -> int:
        """Until ``count`` is 0, or has not become less for so many seconds; returns what is left."""
        least, since = 1 << 31, time.monotonic()
        while (left := count()) and time.monotonic() < since + patience:
            if left < least:
                least, since = left, time.monotonic()
            time.sleep(0.3)
        return left

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
        auditor.doubled()
        auditor.order_by_order()
        auditor.positions(ledgers)
        auditor.journals(self.troubles.halts)
        for plan in self.unguarded:
            auditor.add("wrong", plan)
        for surprise in self.senders.surprises:
            auditor.add("wrong", surprise)
        self._conclude(result, auditor, ledgers)

    def _judge_the_doubled(self, result: Result) -> None:
        connections.close_all()
        ledgers = self._ledgers()
        auditor = Auditor(ledgers)
        auditor.doubled()
        self._conclude(result, auditor, ledgers)

    def _conclude(
        self, result: Result, auditor: Auditor, ledgers: Mapping[str, LedgerView]
    ) -> None:
        result.read(auditor, ledgers)
        self._count(result)
        named = [finding.order for finding in auditor.findings if finding.order]
        if named:
            result.story = story(named[0], self.venue.control, ledgers)

    def _look_for_doubled(self) -> None:
        """Raises Doubled: whatever follows, the venue holds an order twice."""
        if time.monotonic() < self.looked_at + LOOK_EVERY_S:
            return
        ledgers, self.looked_at = self._ledgers(), time.monotonic()
        placed = Counter(row.client_id for ledger in ledgers.values() for row in ledger.orders)
        if max(placed.values(), default=0) > 1:
            raise Doubled

    def _count(self, result: Result) -> None:
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
