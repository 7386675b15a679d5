"""From a stored signal to orders: facts, size, risk, and PENDING or DENIED rows, in one
transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.prepared_writes import change
from execution import amending, approvals, arrivals, cancels, metrics, protect
from execution.aims import is_plain
from execution.alerts import Action, Alert
from execution.clearing import SENDABLE, in_the_way, want_gone
from execution.dispositions import disposition
from execution.facts import Leg
from execution.legs import accounts_settled, has_moved, lane_legs, no_route, orders_from
from execution.models import Order, Route, Signal
from execution.orders import closed_since, create_order
from execution.precedence import announce_exit, let_exits_pass
from execution.queues import CLOSES_EVERYTHING, closes_everything, ended_by, key_of, undecided
from execution.routing import open_legs
from execution.states import HELD, TERMINAL, OrderState, SignalState
from execution.timeliness import (
    Ended,
    may_reduce,
    refuse_ended,
    refuse_on_arrival,
    refuse_outdated,
    refuse_overtaken,
)
from execution.under_way import alive_in, held_in, must_wait
from execution.watching import OWN_ALERT
from risk.limits import take_turns
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

CANCELABLE = (*HELD, *SENDABLE)
NOWHERE_YET = (OrderState.SUBMITTING, OrderState.UNKNOWN)
_REFUSED_AS = {
    ReasonCode.STALE: SignalState.EXPIRED,
    ReasonCode.INTERNAL_ERROR: SignalState.FAILED,
}


class Step(StrEnum):
    """How a decision ended: made, or postponed until the lane is quiet."""

    DECIDED = "decided"
    WAIT = "wait"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Decision:
    """What tasks need to go on: lanes with new orders, orders to cancel, orders to work in slices."""

    step: Step
    lanes: tuple[tuple[int, str], ...] = ()
    cancels: tuple[UUID, ...] = ()
    slicing: tuple[UUID, ...] = ()


def _voids_earlier(signal: Signal, alert: Alert) -> bool:
    return closes_everything(alert) and not approvals.is_wanted(signal, is_exit=True)


def _void_before_routing(closing: Signal, alert: Alert) -> bool:
    """Of a group of accounts the close goes where something is or comes: what was decided before it has
    its orders by then, and nothing opens elsewhere afterwards. Whether it is still to be decided.
    """
    legs = lane_legs(closing, alert)
    if not any(leg.route.group for leg in legs):
        return True
    with transaction.atomic():
        announce_exit({leg.account.pk for leg in legs})
        is_mine = _is_mine(closing, legs)
        if is_mine:
            _make_earlier_void(closing)
    return is_mine


def _make_earlier_void(closing: Signal) -> None:
    """What arrived before an alert that closes everything ends here, as entries still to be sent are
    cancelled: the exit does not wait for them. Orders there are already go on.
    """
    void = Refusal(ReasonCode.CANCELED_BY_SIGNAL, f"alert {closing.pk} closes the position")
    earlier = undecided(*key_of(closing)).filter(pk__lt=closing.pk)
    for signal in earlier.exclude(action=Action.CANCEL.value).select_related("strategy"):
        _refuse(signal, SignalState.IGNORED, void)


def _refuse(signal: Signal, state: SignalState, refusal: Refusal) -> Decision:
    """End a signal that is refused as a whole; call it under its locks.

    Orders it has made already stand, and its state follows them: only the accounts that have none,
    and the second half of a reversal, get a refused one.
    """
    mine = orders_from(signal.pk)
    if not mine:
        return _finish(signal, state, refusal)
    done = accounts_settled(mine)
    alert = Alert.from_json(signal.alert)
    for leg in lane_legs(signal, alert):
        if leg.account.pk not in done:
            order = create_order(signal, alert, replace(leg, refusal=refusal))
            protect.resume(order.account_id, order.symbol)
    _conclude(signal, orders_from(signal.pk))
    return Decision(Step.DECIDED)


def decide(signal: Signal) -> Decision:
    """Decide ``signal`` once. Safe to call twice and concurrently: the row's lock lets one through.

    Raises Crowded when too many of an account's alerts are being looked at already.
    """
    started = timezone.now()
    decision = _decide(signal)
    if decision.step is Step.DECIDED:
        now = timezone.now()
        metrics.stage_seconds["decide"].observe((now - started).total_seconds())
        metrics.processing_duration.observe((now - signal.received_at).total_seconds())
    return decision


def _decide(signal: Signal) -> Decision:
    alert = Alert.from_json(signal.alert)
    try:
        refuse_on_arrival(signal, alert)
        refuse_outdated(signal, alert)
    except Refusal as refusal:
        return refuse_alone(signal, refusal)
    if _voids_earlier(signal, alert) and not _void_before_routing(signal, alert):
        return Decision(Step.GONE)
    legs = open_legs(signal, alert)
    if not legs and not orders_from(signal.pk):
        return refuse_alone(signal, no_route())
    if throttled := _throttled(signal, alert, legs):
        return refuse_alone(signal, throttled)
    if legs and is_plain(alert) and all(leg.is_late for leg in legs):
        # Nothing could be decided nor cancelled under the locks; whoever ends a lane's order wakes it.
        return Decision(Step.WAIT)
    decision = decide_announced(signal, alert, legs)
    if decision.step is Step.DECIDED:
        logger.info("alert decided: %d lanes to send", len(decision.lanes))
    return decision


def decide_announced(
    signal: Signal, alert: Alert, legs: Sequence[Leg], elsewhere: Sequence[Leg] = ()
) -> Decision:
    """Decide ``legs`` under the locks, while ``elsewhere`` waits; an entry lets exits pass before."""
    accounts = {leg.account.pk for leg in legs}
    is_exit = any(leg.reduces for leg in legs)
    if not is_exit:
        let_exits_pass(accounts)
    with transaction.atomic():
        if is_exit:
            announce_exit(accounts)
        return decide_locked(signal, alert, [*legs, *elsewhere])


def refuse_alone(signal: Signal, refusal: Refusal) -> Decision:
    """Refuse under the locks of a decision: another worker may be making the alert's orders now."""
    with transaction.atomic():
        if not _is_mine(signal, lane_legs(signal, Alert.from_json(signal.alert))):
            return Decision(Step.GONE)
        return _refuse(signal, _REFUSED_AS.get(refusal.code, SignalState.DENIED), refusal)


def _throttled(signal: Signal, alert: Alert, legs: Sequence[Leg]) -> Refusal | None:
    """Why the alert may open nothing: its strategy sends too many. What may reduce always passes, and
    what has begun is ended.
    """
    if alert.action is Action.CANCEL or signal.auth == OWN_ALERT:
        return None
    refusal = arrivals.over_limit(signal)
    if refusal is None or any(may_reduce(leg, alert) for leg in legs):
        return None
    return None if orders_from(signal.pk) else refusal


def decide_locked(signal: Signal, alert: Alert, legs: Sequence[Leg]) -> Decision:
    """The decision itself, under the locks of its accounts; call inside a transaction."""
    mine = _locked(signal, legs)
    if mine is None:
        return Decision(Step.GONE)
    if alert.action is Action.CANCEL:
        return _cancel_all(signal, legs)
    try:
        refuse_ended(signal, alert, legs, mine)
        for leg in legs:
            refuse_overtaken(signal, alert, leg)
    except Refusal as overtaken:
        for leg in legs:
            protect.resume(leg.account.pk, leg.symbol)
        return _refuse(signal, SignalState.IGNORED, overtaken)
    if alert.replaces:
        first = _without_old(signal, alert)
        if isinstance(first, Decision):
            return first
        alert = first
    if _voids_earlier(signal, alert):
        _make_earlier_void(signal)
    return _place(signal, alert, legs)


def _is_mine(signal: Signal, legs: Sequence[Leg]) -> bool:
    """Lock the legs' accounts, then the signal; whether it is still to be decided."""
    return _locked(signal, legs) is not None


def _locked(signal: Signal, legs: Sequence[Leg]) -> Ended | None:
    """As ``_is_mine``: what came after the signal and was carried out before it, if it is."""
    take_turns(signal.strategy_id)
    accounts = sorted({leg.account.pk for leg in legs})
    _locked_accounts(accounts=accounts)
    found = _locked_undecided.first(signal=signal.pk, now=timezone.now())
    return None if found is None else Ended(*found)


@Prepared
def _locked_accounts() -> QuerySet[Account, int]:
    rows = Account.objects.filter(pk__any=given("accounts")).order_by("pk")
    return rows.select_for_update(no_key=True).values_list("pk", flat=True)


@Prepared
def _locked_undecided() -> QuerySet[Signal, tuple[UUID | None, UUID | None]]:
    waiting = Signal.objects.filter(pk=given("signal"), state=SignalState.RECEIVED)
    ended = {
        "closed_by": ended_by(CLOSES_EVERYTHING),
        "canceled_by": ended_by(Q(action=Action.CANCEL.value)),
    }
    return waiting.select_for_update(no_key=True).annotate(**ended).values_list(*ended)


def _place(signal: Signal, alert: Alert, legs: Sequence[Leg]) -> Decision:
    """An order for each leg. One that is late, or whose lane is not quiet, holds up no other: it is
    decided the next time.
    """
    mine = orders_from(signal.pk)
    done = accounts_settled(mine)
    legs = [leg for leg in legs if leg.account.pk not in done]
    ready, to_cancel = _sorted_out(signal, legs, alert)
    if ready and not mine:
        _note_gap(signal, alert, ready)
    made = [_next_order(signal, alert, leg, mine) for leg in ready]
    for order in made:
        if order and order.state == OrderState.DENIED:
            protect.resume(order.account_id, order.symbol)
    lanes = {(o.account_id, o.symbol) for o in made if o and o.state == OrderState.PENDING}
    begun = tuple(o.pk for o in made if o and o.state == OrderState.SLICING)
    orders = orders_from(signal.pk) if mine else [order for order in made if order]
    if _is_half_done(orders) or len(ready) < len(legs):
        return Decision(Step.WAIT, tuple(sorted(lanes)), to_cancel, begun)
    _conclude(signal, orders)
    return Decision(Step.DECIDED, lanes=tuple(sorted(lanes)), slicing=begun)


def _conclude(signal: Signal, orders: Sequence[Order]) -> None:
    """Nothing is left to decide: from here on the signal's state follows its ``orders``."""
    now = timezone.now()
    state, reason, detail = disposition(orders)
    finished = None if state is SignalState.WORKING else now
    _end_waiting(signal, state, reason, detail, decided_at=now, finished_at=finished)


def _sorted_out(
    signal: Signal, legs: Sequence[Leg], alert: Alert
) -> tuple[list[Leg], tuple[UUID, ...]]:
    """The legs that can be decided now, and the orders to cancel before others can."""
    ready: list[Leg] = []
    to_cancel: list[UUID] = []
    for leg in legs:
        if has_moved(leg, alert):
            continue
        lane = alive_in(leg)
        first = in_the_way(signal, leg, alert, lane)
        to_cancel += first.orders
        waits = first or leg.is_late or must_wait(leg, alert, lane)
        if not waits or not leg.has_plugin:
            ready.append(leg)
    return ready, tuple(to_cancel)


def _is_half_done(orders: Sequence[Order]) -> bool:
    """Whether the other half of a reversal is still to be made; one that waits for approval is made
    known when it is let go (``releasing``).
    """
    return any(
        order.reverses and order.state not in HELD and not _has_other_half(order, orders)
        for order in orders
    )


def _note_gap(signal: Signal, alert: Alert, legs: Sequence[Leg]) -> None:
    """Before the first order of an alert: does the sender start from where we are? Of a group one
    account alone says nothing; an alert of FKS's own names what it closes.
    """
    if signal.auth == OWN_ALERT:
        return
    legs = [leg for leg in legs if not leg.route.group]
    if alert.prev_market_position is None or not legs:
        return
    fixed = all(leg.route.sizing == Route.Sizing.FIXED_QUANTITY for leg in legs)
    held = [(leg.account.name, held_in(leg.account, leg.symbol)) for leg in legs]
    if found := arrivals.gap(alert, held, compares_size=fixed):
        Signal.objects.filter(pk=signal.pk).update(gap=found)


def _next_order(signal: Signal, alert: Alert, leg: Leg, mine: Sequence[Order]) -> Order | None:
    """The leg's order; the second half of a reversal once its first half has ended; else nothing."""
    first = next((order for order in mine if order.account_id == leg.account.pk), None)
    if first is None:
        return create_order(signal, alert, leg)
    if first.state not in TERMINAL:
        return None
    return create_order(signal, alert, leg, exited=closed_since(first))


def _has_other_half(first: Order, orders: Sequence[Order]) -> bool:
    return any(
        order.account_id == first.account_id and order.role == Order.Role.ENTRY for order in orders
    )


def _without_old(signal: Signal, alert: Alert) -> Decision | Alert:
    """What an amend still places, once the order it replaces has ended. One that waits for a person
    leaves that order alone until they agree.
    """
    try:
        if not approvals.is_wanted(signal, is_exit=alert.reduce_only):
            old = amending.end_old(signal, alert)
            if old:
                return Decision(Step.WAIT, cancels=old)
        return amending.rest_of(alert)
    except Refusal as too_late:
        return _finish(signal, SignalState.IGNORED, too_late)


def _cancel_all(signal: Signal, legs: Sequence[Leg]) -> Decision:
    """Cancel what works in the signal's lanes; an order just being sent must be known first, and what
    came before the signal decided where its leg is late.

    The signal is done once every cancel is on its order's row: a worker may die before it gets there.
    """
    here = [leg for leg in legs if not leg.is_late]
    working: list[UUID] = []
    is_known = len(here) == len(legs)
    canceled = False
    for leg in here:
        alive = [order for order in alive_in(leg) if _is_meant(signal, order)]
        want_gone(signal, alive)
        canceled |= any(
            order.state == OrderState.NEEDS_OPERATOR or not leg.has_plugin for order in alive
        )
        if not leg.has_plugin:
            continue
        working += [order.pk for order in alive if order.state in CANCELABLE]
        is_known &= not any(order.state in NOWHERE_YET for order in alive)
        mine = Q(symbol=leg.symbol) | Q(cancel_asked_by=cancels.by_alert(signal))
        lane = Order.objects.filter(mine, account=leg.account)
        lane = lane.exclude(role=Order.Role.STOP_LOSS)
        canceled |= lane.filter(
            reason=ReasonCode.CANCELED_BY_SIGNAL.value, updated_at__gte=signal.received_at
        ).exists()
    if working or not is_known:
        return Decision(Step.WAIT, cancels=tuple(working))
    if not canceled:
        nothing = Refusal(ReasonCode.NOTHING_TO_CANCEL, "no working order in this symbol")
        return _finish(signal, SignalState.IGNORED, nothing)
    return _finish(signal, SignalState.EXECUTED, None)


def _is_meant(cancel: Signal, order: Order) -> bool:
    """Whether the cancel is for ``order``: what was asked for before it, and rests, may rest, or is
    worked in slices. Stops, and exits that never rest, are not.
    """
    is_leaving = order.is_exit and order.is_immediate and order.state != OrderState.SLICING
    if order.role == Order.Role.STOP_LOSS or is_leaving:
        return False
    return (order.signal_id or order.pk) < cancel.pk


def _finish(signal: Signal, state: SignalState, refusal: Refusal | None) -> Decision:
    now = timezone.now()
    reason, detail = (refusal.code.value, refusal.detail) if refusal else ("", "")
    _end_waiting(signal, state, reason, detail, decided_at=now, finished_at=now)
    logger.info("alert %s: %s", state.value, refusal.code.value if refusal else "nothing to do")
    return Decision(Step.DECIDED)


def _end_waiting(
    signal: Signal, state: SignalState, reason: str, detail: str, **moments: datetime | None
) -> None:
    waiting = {"pk": signal.pk, "state": SignalState.RECEIVED}
    change(Signal, waiting, {"state": state, "reason": reason, "detail": detail, **moments})


def fail(signal: Signal, error: Exception) -> None:
    """Count a decision that ended in a defect of ours; the third one fails the signal, visibly."""
    Signal.objects.filter(pk=signal.pk).update(tries=F("tries") + 1)
    signal.refresh_from_db()
    if signal.tries >= 3:
        detail = f"FKS could not decide this: {type(error).__name__}"
        _give_up(signal, Refusal(ReasonCode.INTERNAL_ERROR, detail))


def _give_up(signal: Signal, refusal: Refusal) -> None:
    """Without orders the signal's row is all there is to end: whatever the defect is, reading the alert
    and its accounts once more would only meet it again, and the queue would wait for ever.
    """
    with transaction.atomic():
        if not _is_mine(signal, ()):
            return
        if not orders_from(signal.pk):
            _finish(signal, SignalState.FAILED, refusal)
            return
    refuse_alone(signal, refusal)
