"""The order table: every pair of state and event, the journal, and races."""

from __future__ import annotations

from itertools import product

import pytest

from execution.models import Order, OrderEvent
from execution.states import TERMINAL, UNRESOLVED, OrderState
from execution.transitions import TABLE, Event, IllegalMove, move, target
from risk import audit
from risk.models import AuditEvent
from tests.factories import OrderFactory
from tests.threads import together

S, E = OrderState, Event
PAIRS = list(product(OrderState, Event))
VENUE_WORDS = {
    E.ACKNOWLEDGE: S.OPEN,
    E.FILL_PARTLY: S.PARTIALLY_FILLED,
    E.FILL: S.FILLED,
    E.CANCEL: S.CANCELED,
    E.EXPIRE: S.EXPIRED,
    E.REJECT: S.REJECTED,
}
CORRECTIONS = {
    (state, event): after
    for state in TERMINAL - {S.DENIED}
    for event, after in [*VENUE_WORDS.items(), (E.LATE_FILL, state)]
    if event is E.LATE_FILL or after is not state
}


def order_in(state: OrderState, **columns: object) -> Order:
    quantity = {} if state is not S.DENIED else {"quantity": 0}
    return OrderFactory.create(state=state, **quantity | columns)


@pytest.mark.django_db
@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in TABLE])
def test_a_move_of_the_table_leaves_one_journal_row(state: OrderState, event: Event) -> None:
    order = order_in(state)
    with audit.acting(audit.Actor("maria")):
        assert move(order, event, detail="why", evidence={"seen": "this"})
    assert order.state == Order.objects.get(pk=order.pk).state == TABLE[state, event]
    row = OrderEvent.objects.get()
    assert (row.order_id, row.event, row.from_state, row.to_state) == (
        order.pk,
        event.value,
        state.value,
        TABLE[state, event].value,
    )
    assert (row.actor, row.detail, row.evidence) == ("maria", "why", {"seen": "this"})
    assert not AuditEvent.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(("state", "event"), sorted(CORRECTIONS))
def test_a_venues_word_after_the_end_corrects_it_and_tells_an_operator(
    state: OrderState, event: Event
) -> None:
    order = order_in(state)
    assert move(order, event, detail="late news")
    assert order.state == Order.objects.get(pk=order.pk).state == CORRECTIONS[state, event]
    assert OrderEvent.objects.count() == 1
    told = AuditEvent.objects.get()
    assert (told.kind, told.subject) == ("order.corrected", f"order {order.pk}")
    assert (told.before, told.after) == ({"state": state.value}, {"state": order.state})
    assert told.reason == "late news"


@pytest.mark.parametrize(
    ("state", "event"), [pair for pair in PAIRS if pair not in TABLE and pair not in CORRECTIONS]
)
def test_every_other_move_is_a_defect_of_the_caller(state: OrderState, event: Event) -> None:
    order = OrderFactory.build(account=None, state=state)
    with pytest.raises(IllegalMove, match=f"{event.value} is not possible from {state.value}"):
        move(order, event)


def test_denied_is_final_whatever_a_venue_says() -> None:
    assert not [pair for pair in (*TABLE, *CORRECTIONS) if pair[0] is S.DENIED]


def test_no_plain_move_leaves_a_terminal_state() -> None:
    assert not [pair for pair in TABLE if pair[0] in TERMINAL]


@pytest.mark.parametrize("state", sorted(set(OrderState) - TERMINAL))
def test_every_open_state_can_reach_an_end(state: OrderState) -> None:
    reached, fresh = {state}, {state}
    while fresh:
        fresh = {after for (before, _), after in TABLE.items() if before in fresh} - reached
        reached |= fresh
    assert reached & TERMINAL


def test_nothing_but_a_claim_leads_to_submitting() -> None:
    assert [pair for pair, after in TABLE.items() if after is S.SUBMITTING] == [
        (S.PENDING, E.CLAIM)
    ]


def test_an_unknown_order_goes_back_to_its_lane_in_one_way_only() -> None:
    back = [pair for pair, after in TABLE.items() if after is S.PENDING]
    assert sorted(back) == [
        (S.APPROVED, E.RELEASE),
        (S.SUBMITTING, E.RETURN_UNSENT),
        (S.UNKNOWN, E.SEND_AGAIN),
    ]


def test_what_waits_for_approval_comes_to_its_lane_by_a_persons_word_alone() -> None:
    leaving = {pair: after for pair, after in TABLE.items() if pair[0] is S.AWAITING_APPROVAL}
    onwards = {event for (_, event), after in leaving.items() if after not in TERMINAL}
    assert onwards == {E.APPROVE, E.LOSE_SIGHT}
    assert leaving[S.AWAITING_APPROVAL, E.APPROVE] is S.APPROVED
    assert [pair for pair, after in TABLE.items() if after is S.APPROVED] == [
        (S.AWAITING_APPROVAL, E.APPROVE)
    ]


def test_a_cancel_under_way_outlasts_news_of_partial_fills() -> None:
    assert target(S.CANCELING, E.ACKNOWLEDGE) == (S.CANCELING, False)
    assert target(S.CANCELING, E.FILL_PARTLY) == (S.CANCELING, False)


@pytest.mark.django_db
def test_a_stale_copy_loses_and_learns_the_truth() -> None:
    order = order_in(S.PENDING)
    stale = Order.objects.get(pk=order.pk)
    assert move(order, E.CLAIM, attempt=1)
    assert not move(stale, E.CANCEL_UNSENT, reason="NEVER")
    assert (stale.state, stale.attempt, stale.reason) == (S.SUBMITTING, 1, "")
    assert OrderEvent.objects.count() == 1


@pytest.mark.django_db
def test_a_copy_from_an_earlier_attempt_loses_though_the_state_is_the_same() -> None:
    order = order_in(S.SUBMITTING, attempt=1)
    stale = Order.objects.get(pk=order.pk)
    move(order, E.LOSE_SIGHT)
    move(order, E.SEND_AGAIN)
    move(order, E.CLAIM, attempt=2)
    assert not move(stale, E.REJECT)
    order.refresh_from_db()
    assert (order.state, order.attempt) == (S.SUBMITTING, 2)


@pytest.mark.django_db(transaction=True)
def test_of_racing_moves_one_wins() -> None:
    order = order_in(S.OPEN)
    copies = [Order.objects.get(pk=order.pk) for _ in range(6)]
    events = [E.FILL, E.CANCEL, E.EXPIRE, E.REJECT, E.REQUEST_CANCEL, E.GIVE_UP]
    won = together(*(lambda c=c, e=e: move(c, e) for c, e in zip(copies, events, strict=True)))
    assert sum(won) == 1
    order.refresh_from_db()
    assert OrderEvent.objects.get().event == events[won.index(True)].value
    assert order.state == TABLE[S.OPEN, events[won.index(True)]]
    assert {copy.state for copy in copies} == {order.state}


@pytest.mark.django_db
def test_columns_that_follow_from_the_state() -> None:
    order = order_in(S.PENDING)
    move(order, E.CLAIM, lease_until=order.created_at)
    move(order, E.LOSE_SIGHT, next_check_at=order.created_at)
    order.refresh_from_db()
    assert order.lease_until is None
    since = order.unknown_since
    assert since is not None
    move(order, E.GIVE_UP)
    order.refresh_from_db()
    assert order.unknown_since == since
    assert order.state in UNRESOLVED
    move(order, E.PROVE_ABSENT)
    order.refresh_from_db()
    assert order.finished_at is not None
    assert order.next_check_at is None
    move(order, E.ACKNOWLEDGE)
    order.refresh_from_db()
    assert order.finished_at is None
