"""A simulated product on a virtual clock: workers that are interrupted anywhere, held up, and killed.

What a worker does stands here; what it decides is decided by the product's own functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from brokers.types import ExecutionResult, Outcome
from execution import decisions
from execution.lanes import LEASE_SLACK
from execution.states import AT_VENUE, TERMINAL, UNRESOLVED, OrderState
from execution.transitions import Event
from tests.simulation.book import Book, Row
from tests.simulation.choices import Choices
from tests.simulation.venue import SETTLE_S, START, TIMEOUT_S, Silence, Venue

FRESH = timedelta(seconds=60)
ASK_AGAIN = timedelta(seconds=2)
S = OrderState
Worker = Iterator[None]
"""Every ``yield`` is a place where others run, time passes, or the worker dies."""


@dataclass(frozen=True)
class Safeguards:
    """What may be taken away, to prove that it is missed."""

    settle_window: bool = True
    looks: int = decisions.LOOKS_NEEDED
    conditional_move: bool = True


class World:
    """The orders of one story, the venue, and who is at work on them."""

    def __init__(self, choices: Choices, orders: int, safeguards: Safeguards) -> None:
        self.now = START
        self.venue = Venue(choices)
        self.book = Book(safeguards.conditional_move)
        self.book.rows = [Row(number, START + FRESH) for number in range(orders)]
        self.workers: list[tuple[str, Worker]] = []
        self.window = timedelta(seconds=SETTLE_S if safeguards.settle_window else 0)

    def start(self, name: str, number: int) -> None:
        work = {
            "lane": self._lane,
            "check": self._check,
            "cancel": self._cancel,
            "refuse": self._refuse,
        }
        self.workers.append((f"{name} {number}", work[name](number)))

    def step(self, which: int) -> None:
        """Let one worker go on to its next interruption."""
        try:
            next(self.workers[which][1])
        except StopIteration:
            self.workers.pop(which)

    def kill(self, which: int) -> str:
        return self.workers.pop(which)[0]

    def wait(self, seconds: float, *, stands_still: bool = False) -> None:
        """Time passes. A silent venue was asked all the while, unless the product ``stands_still``."""
        self.now += timedelta(seconds=seconds)
        for row in self.book.rows:
            is_due = row.next_check_at is not None and row.next_check_at < self.now
            if row.unanswered_since is not None and is_due and not stands_still:
                row.next_check_at = self.now

    def sweep(self) -> None:
        """Start what is due, whether or not somebody is at it."""
        for row in self.book.rows:
            due = row.next_check_at is None or row.next_check_at <= self.now
            if row.state == S.SUBMITTING:
                self.workers.append((f"sweep {row.number}", self._lose_sight(row.number)))
            elif row.state == S.PENDING and due:
                self.start("lane", row.number)
            elif row.state not in TERMINAL and due:
                self.start("check", row.number)

    def _lose_sight(self, number: int) -> Worker:
        order = self.book.read(number)
        if order.state != S.SUBMITTING or (order.lease_until or self.now) >= self.now:
            return
        yield
        self.book.move(order, Event.LOSE_SIGHT, self.now, next_check_at=self.now)

    def _lane(self, number: int) -> Worker:
        order = self.book.read(number)
        if order.state != S.PENDING:
            return
        yield
        if order.expires_at is not None and order.expires_at < self.now:
            self.book.move(order, Event.EXPIRE_UNSENT, self.now)
            return
        lease = self.now + timedelta(seconds=TIMEOUT_S) + LEASE_SLACK
        terms = {"lease_until": lease, "settle_at": self.now + self.window, "next_check_at": None}
        if not self.book.move(
            order, Event.CLAIM, self.now, attempt=order.attempt + 1, looks=0, **terms
        ):
            return
        order = self.book.read(number)
        yield
        result = ExecutionResult(Outcome.NOT_SENT, code="TOO_LATE", retry_after=1)
        if self.now < lease:
            result = self.venue.place(number, self.now)
        yield
        self._book_placement(order, result)

    def _refuse(self, number: int) -> Worker:
        """A lane that finds trading halted."""
        order = self.book.read(number)
        if order.state == S.PENDING:
            yield
            self.book.move(order, decisions.of_refusal(order.attempt), self.now)

    def _book_placement(self, order: Row, result: ExecutionResult) -> None:
        if result.report is not None:
            self.book.apply(order.number, result.report, self.now)
            return
        event = decisions.of_placement(result)
        soon = self.now + timedelta(seconds=1)
        changes = {"broker_order_id": result.broker_order_id, "next_check_at": soon}
        self.book.move(order, event, self.now, **changes)

    def _check(self, number: int) -> Worker:
        order = self.book.read(number)
        if order.state in TERMINAL | {S.PENDING, S.SUBMITTING}:
            return
        asked_at = self.now
        yield
        try:
            report = self.venue.ask(number, self.now)
        except Silence:
            yield
            row = self.book.rows[number]
            order.next_check_at, order.unanswered_since = row.next_check_at, row.unanswered_since
            event = decisions.of_silence(order, self.now)
            if event is not None:
                self.book.move(order, event, self.now)
            else:
                self.book.note_silence(order, self.now, next_check_at=self.now + ASK_AGAIN)
            return
        yield
        if report is not None:
            self.book.apply(number, report, self.now)
            order = self.book.read(number)
            event = decisions.of_half(order, report, self.now)
            if event is not None:
                self.book.move(order, event, self.now)
            if self.book.rows[number].state == S.CANCELING:
                yield
                self.venue.cancel(number, self.now)
        elif order.broker_order_id or order.state not in UNRESOLVED:
            self._vanished(order)
        else:
            self._not_found(order, asked_at)

    def _not_found(self, order: Row, asked_at: datetime) -> None:
        worth = decisions.look(order, asked_at)
        again = self.now + self.window
        if worth is decisions.Look.TOO_EARLY:
            self.book.rows[order.number].next_check_at = self.now + ASK_AGAIN
            return
        counted = self.book.count_look(order, settle_at=again, next_check_at=again)
        if counted and worth is decisions.Look.PROVES:
            event = decisions.of_absence(order, self.now, order.times_lost)
            self.book.move(order, event, self.now, next_check_at=None, unknown_since=None)

    def _vanished(self, order: Row) -> None:
        event = decisions.of_vanishing(order)
        row = self.book.rows[order.number]
        if event is None:
            row.looks, row.next_check_at = order.looks + 1, self.now + ASK_AGAIN
        elif order.state != S.NEEDS_OPERATOR:
            self.book.move(order, event, self.now)

    def _cancel(self, number: int) -> Worker:
        order = self.book.read(number)
        yield
        if order.state == S.PENDING and self.book.move(order, Event.CANCEL_UNSENT, self.now):
            return
        order = self.book.read(number)
        if order.state not in AT_VENUE - {S.CANCELING}:
            return
        if self.book.move(order, Event.REQUEST_CANCEL, self.now, next_check_at=self.now):
            yield
            self.venue.cancel(number, self.now)
