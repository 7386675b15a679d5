"""Whatever the venue, the network and the workers do: no order twice, no fill lost, no state guessed.

A venue that forgets nothing and dedupes nothing stands for the truth. Answers to it get lost, workers
die around it, it shows orders late; the book must still end up saying what the venue says.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from brokers.errors import QueryFailedError
from brokers.types import (
    CancelResult,
    ExecutionResult,
    OrderRef,
    OrderReport,
    OrderRequest,
    Outcome,
    VenueStatus,
)
from execution import dispatch, fills, lanes, reconcile
from execution.models import Fill, Order, OrderEvent, Position
from execution.states import AT_VENUE, TERMINAL, UNRESOLVED, OrderState
from execution.transitions import Event, target
from risk import breakers, switch
from risk.models import TradingState
from risk.types import ReasonCode
from tests.brokers.scripted import (
    AT,
    CAPABILITIES,
    Script,
    accepted,
    follow,
    registered,
    report_of,
    trade,
)
from tests.factories import OrderFactory

LANE = "BTC/USDT"
WINDOW = CAPABILITIES.settle_window
STEP = Decimal("0.001")
LIVE = (VenueStatus.OPEN, VenueStatus.PARTIALLY_FILLED)


class Killed(BaseException):
    """The worker is gone: nothing after this line of it runs."""


@dataclass(slots=True)
class TrueVenue(Script):
    """Places whatever reaches it, as often as it comes; ``mood`` says what happens on the way."""

    mood: str = "well"
    silent: bool = False
    placed: Counter[str] = field(default_factory=Counter)
    shown_from: dict[str, datetime] = field(default_factory=dict)
    trades: int = 0

    def place(self, request: OrderRequest) -> ExecutionResult:
        self.sent.append(request)
        mood, self.mood = self.mood, "well"
        if mood == "killed before":
            raise Killed
        if mood == "dropped":
            return ExecutionResult(Outcome.UNKNOWN, code="VENUE_UNREACHABLE")
        if mood == "busy":
            return ExecutionResult(Outcome.NOT_SENT, code="VENUE_UNREACHABLE", retry_after=2)
        if mood == "refused":
            return ExecutionResult(Outcome.REJECTED, code="VENUE_REJECTED")
        self.placed[request.identity] += 1
        self.reports[request.identity] = report_of(request, VenueStatus.OPEN)
        late = timedelta(seconds=WINDOW - 1 if mood == "shown late" else 0)
        self.shown_from[request.identity] = timezone.now() + late
        if mood == "killed after":
            raise Killed
        if mood == "defect":
            raise KeyError("a defect after sending")
        if mood in ("answer lost", "shown late"):
            return ExecutionResult(Outcome.UNKNOWN, code="VENUE_UNREACHABLE")
        if mood == "filled":
            self.fill(request.identity, request.quantity)
        return accepted(self.reports[request.identity])

    def fill(self, identity: str, quantity: Decimal) -> None:
        report = self.reports[identity]
        self.trades += 1
        part = trade(f"T{self.trades}-{identity[-6:]}", quantity)
        filled = report.filled_quantity + quantity
        whole = filled >= report.quantity
        self.reports[identity] = replace(
            report,
            fills=(*report.fills, part),
            filled_quantity=filled,
            status=VenueStatus.FILLED if whole else VenueStatus.PARTIALLY_FILLED,
        )

    def cancel(self, ref: OrderRef) -> CancelResult:
        mood, self.mood = self.mood, "well"
        if mood == "killed before":
            raise Killed
        report = self.reports.get(ref.identity)
        if mood != "dropped" and report is not None and report.status in LIVE:
            self.reports[ref.identity] = replace(report, status=VenueStatus.CANCELED)
        return CancelResult(Outcome.UNKNOWN if mood != "well" else Outcome.ACCEPTED)

    def find(self, ref: OrderRef) -> OrderReport | None:
        if self.silent:
            raise QueryFailedError("no answer")
        if ref.identity in self.reports and timezone.now() >= self.shown_from[ref.identity]:
            return self.reports[ref.identity]
        return None

    def position(self, orders: dict[str, Order]) -> Decimal:
        signed = (
            report.filled_quantity * report.side.sign
            for identity, report in self.reports.items()
            if identity in orders
        )
        return sum(signed, Decimal(0))


MOODS = (
    *("well", "well", "filled", "filled", "refused", "busy"),
    *("answer lost", "shown late", "dropped", "defect", "killed before", "killed after"),
)
ROLES = st.booleans()
PAUSES = st.sampled_from((0, 1, 3, WINDOW))


class OrderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registration = registered()
        self.clock = time_machine.travel(AT, tick=False)
        self.now = self.clock.start()
        self.account = self.registration.__enter__()()
        self.venue = TrueVenue()
        follow(self.account, self.venue)
        self.filled: dict[Any, Decimal] = {}
        self.old_reports: list[tuple[Order, OrderReport]] = []

    def teardown(self) -> None:
        try:
            self.come_to_rest()
            self.book_equals_venue()
        finally:
            self.clock.stop()
            self.registration.__exit__(None, None, None)

    @property
    def rows(self) -> list[Order]:
        return list(Order.objects.filter(account=self.account).select_related("account"))

    def draw_order(self, data: st.DataObject) -> Order:
        return data.draw(st.sampled_from(self.rows))

    # --- what happens -----------------------------------------------------------------------------

    @initialize(story=st.lists(st.tuples(ROLES, st.sampled_from(MOODS), PAUSES), min_size=5))
    def begin(self, story: list[tuple[bool, str, int]]) -> None:
        """Every example tells at least a short story; the other rules disturb it."""
        for is_exit, mood, seconds in story[:12]:
            self.decide(is_exit=is_exit, steps=3, fresh=70)
            self.the_sweep_comes(mood=mood, seconds=seconds)

    @rule(is_exit=ROLES, steps=st.integers(1, 5), fresh=st.integers(5, 90))
    def decide(self, is_exit: bool, steps: int, fresh: int) -> None:
        OrderFactory.create(
            account=self.account,
            role=Order.Role.EXIT if is_exit else Order.Role.ENTRY,
            side="sell" if is_exit else "buy",
            type="limit",
            price="60000",
            quantity=STEP * steps,
            expires_at=None if is_exit else timezone.now() + timedelta(seconds=fresh),
        )

    @rule(mood=st.sampled_from(MOODS), seconds=PAUSES)
    def the_sweep_comes(self, mood: str, seconds: int) -> None:
        self.now.shift(seconds)
        self.old_reports += [
            (order, self.venue.reports[order.identity])
            for order in self.rows
            if order.identity in self.venue.reports
        ]
        for order in lanes.lease_ended_before(timezone.now()):
            lanes.lose_sight(order)
        self.ask_about_all()
        self.run_lane(mood)

    @rule(mood=st.sampled_from(("answer lost", "shown late", "dropped", "killed after")))
    def a_placement_goes_wrong(self, mood: str) -> None:
        self.the_sweep_comes(mood=mood, seconds=WINDOW)

    @rule(first=st.sampled_from((1, WINDOW)), second=st.sampled_from((1, WINDOW)))
    def the_sweep_comes_twice(self, first: int, second: int) -> None:
        self.the_sweep_comes(mood="filled", seconds=first)
        self.the_sweep_comes(mood="well", seconds=second)

    def ask_about_all(self) -> None:
        for order in self.rows:
            if order.state in AT_VENUE | UNRESOLVED:
                reconcile.check_order(order)

    def run_lane(self, mood: str) -> None:
        self.venue.mood = mood
        with suppress(Killed):
            dispatch.run_lane(self.account.pk, LANE)
        self.venue.mood = "well"

    @rule(data=st.data(), mood=st.sampled_from(("well", "dropped", "answer lost", "killed before")))
    def cancel(self, data: st.DataObject, mood: str) -> None:
        self.venue.mood = mood
        with suppress(Killed):
            dispatch.cancel(
                self.draw_order(data), reason=ReasonCode.CANCELED_BY_OPERATOR, detail="enough"
            )
        self.venue.mood = "well"

    @rule(data=st.data(), steps=st.integers(0, 3))
    def the_venue_trades_or_cancels(self, data: st.DataObject, steps: int) -> None:
        identity = self.draw_order(data).identity
        report = self.venue.reports.get(identity)
        if report is None or report.status not in LIVE:
            return
        if steps:
            self.venue.fill(identity, min(STEP * steps, report.quantity - report.filled_quantity))
        else:
            self.venue.reports[identity] = replace(report, status=VenueStatus.CANCELED)

    @rule(seconds=st.sampled_from((1, WINDOW, 301)))
    def the_venue_is_silent(self, seconds: int) -> None:
        self.venue.silent = True
        self.ask_about_all()
        self.now.shift(seconds)
        self.ask_about_all()
        self.venue.silent = False

    @rule()
    def two_ask_at_once(self) -> None:
        copies = [row for row in self.rows if row.state in AT_VENUE | UNRESOLVED]
        self.ask_about_all()
        for stale in copies:
            reconcile.check_order(stale)

    @precondition(lambda self: self.old_reports)
    @rule(data=st.data())
    def a_late_report_arrives_twice(self, data: st.DataObject) -> None:
        order, report = data.draw(st.sampled_from(self.old_reports))
        for _ in range(2):
            fills.apply_report(order, report, source="late")

    @rule()
    def trading_is_halted_for_a_while(self) -> None:
        switch.change(TradingState.State.HALTED, reason="test")
        sent = len(self.venue.sent)
        if len(self.rows) > 4:
            self.the_sweep_comes(mood="well", seconds=3)
        else:
            self.ask_about_all()
        assert len(self.venue.sent) == sent
        switch.change(TradingState.State.ACTIVE, reason="test")

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def no_order_is_placed_twice(self) -> None:
        assert not [identity for identity, count in self.venue.placed.items() if count > 1]

    @invariant()
    def the_position_is_the_sum_of_the_fills(self) -> None:
        booked = Fill.objects.filter(account=self.account).values_list("side", "quantity")
        total = sum((q if side == "buy" else -q for side, q in booked), Decimal(0))
        row = Position.objects.filter(account=self.account).first()
        assert (row.quantity if row else Decimal(0)) == total

    @invariant()
    def fills_never_shrink_nor_outgrow_the_order(self) -> None:
        for order in self.rows:
            assert self.filled.get(order.pk, 0) <= order.filled_quantity <= order.quantity
            self.filled[order.pk] = order.filled_quantity

    @invariant()
    def the_journal_tells_the_whole_story(self) -> None:
        for order in self.rows:
            state = OrderState.PENDING
            for row in OrderEvent.objects.filter(order=order).order_by("id"):
                assert row.from_state == state
                if row.event not in ("look", "cancel_sent"):
                    assert target(state, Event(row.event))[0] == row.to_state
                state = OrderState(row.to_state)
            assert order.state == state

    @invariant()
    def absence_is_never_guessed(self) -> None:
        for order in self.rows:
            if order.state == OrderState.NOT_PLACED:
                assert self.venue.placed[order.identity] == 0

    @invariant()
    def an_end_is_final_and_has_a_reason(self) -> None:
        for order in self.rows:
            assert (order.finished_at is not None) == (order.state in TERMINAL)
            if order.state in ("denied", "rejected", "not_placed"):
                assert order.reason
            if order.state in ("open", "partially_filled", "filled"):
                assert not order.reason

    # --- the end ----------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """The network heals and time passes: everything finds its place."""
        for breaker in (breakers.of_account(self.account.pk), breakers.of_venue(self.account)):
            breakers.reset(breaker, "test")
        for _ in range(40):
            self.the_sweep_comes(mood="well", seconds=WINDOW)
            if not self.under_way():
                return
        raise AssertionError(f"still under way: {self.under_way()}")

    def under_way(self) -> list[Order]:
        """Orders that have neither ended nor rest at the venue."""
        resting = (OrderState.OPEN, OrderState.PARTIALLY_FILLED)
        return [order for order in self.rows if order.state not in (*TERMINAL, *resting)]

    def book_equals_venue(self) -> None:
        orders = {order.identity: order for order in self.rows}
        for identity, order in orders.items():
            report = self.venue.reports.get(identity)
            if report is None:
                assert order.state in TERMINAL
                assert order.filled_quantity == 0
            else:
                assert (order.state, order.filled_quantity) == (
                    report.status.value,
                    report.filled_quantity,
                )
        row = Position.objects.filter(account=self.account).first()
        assert (row.quantity if row else Decimal(0)) == self.venue.position(orders)


@pytest.mark.timeout(300)
@pytest.mark.django_db
def test_the_book_ends_up_saying_what_the_venue_says() -> None:
    run_state_machine_as_test(
        OrderMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
