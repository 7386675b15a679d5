"""From a stored signal to orders: facts, size, risk, and PENDING or DENIED rows, in one
transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from brokers.models import Account
from brokers.types import Side
from execution import amending, approvals, arrivals, cancels, metrics, protect
from execution.aims import depends_on_position, only_exits, wants_flat
from execution.alerts import Action, Alert, MarketPosition
from execution.legs import (
    accounts_done,
    alive_in,
    held_in,
    is_covered,
    lane_legs,
    no_route,
    open_legs,
    own_orders,
    reduces,
)
from execution.models import Order, Route, Signal, Strategy
from execution.orders import Leg, create_order, outdated
from execution.precedence import announce_exit, let_exits_pass
from execution.queues import closes_everything, is_plain, is_sized, key_of, undecided
from execution.states import AT_VENUE, HELD, TERMINAL, OrderState, SignalState
from execution.watching import OWN_ALERT
from risk import switch
from risk.limits import take_turns
from risk.models import TradingState
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

FUTURE_SKEW = timedelta(seconds=60)
SIGNED_MAX_AGE = 300
"""Seconds a signature's timestamp is good for, whatever the strategy allows."""
SENDABLE = (OrderState.PENDING, OrderState.OPEN, OrderState.PARTIALLY_FILLED)
CANCELABLE = (*HELD, *SENDABLE)
RESTING = (OrderState.OPEN, OrderState.PARTIALLY_FILLED)
NOWHERE_YET = (OrderState.SUBMITTING, OrderState.UNKNOWN)
IN_FLIGHT = (OrderState.PENDING, OrderState.SUBMITTING, OrderState.UNKNOWN, OrderState.CANCELING)


class Step(StrEnum):
    """How a decision ended: made, or postponed until the lane is quiet."""

    DECIDED = "decided"
    WAIT = "wait"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Decision:
    """What tasks need to go on: lanes with new orders, and orders to cancel."""

    step: Step
    lanes: tuple[tuple[int, str], ...] = ()
    cancels: tuple[UUID, ...] = ()


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
    mine = list(own_orders(signal.pk))
    if not mine:
        return _finish(signal, state, refusal)
    done = _settled_for(mine)
    alert = Alert.from_json(signal.alert)
    for leg in lane_legs(signal, alert):
        if leg.account.pk not in done:
            order = create_order(signal, alert, replace(leg, refusal=refusal))
            protect.resume(order.account_id, order.symbol)
    _conclude(signal, list(own_orders(signal.pk)))
    return Decision(Step.DECIDED)


def decide(signal: Signal) -> Decision:
    """Decide ``signal`` once. Safe to call twice and concurrently: the row's lock lets one through.

    Raises Crowded when too many of an account's alerts are being looked at already.
    """
    started = timezone.now()
    alert = Alert.from_json(signal.alert)
    try:
        _refuse_on_arrival(signal, alert)
        _refuse_outdated(signal, alert)
    except Refusal as refusal:
        state = SignalState.EXPIRED if refusal.code == ReasonCode.STALE else SignalState.DENIED
        return _refuse_alone(signal, state, refusal)
    legs = open_legs(signal, alert)
    if not legs and not own_orders(signal.pk).exists():
        return _refuse_alone(signal, SignalState.DENIED, no_route())
    if throttled := _throttled(signal, alert, legs):
        return _refuse_alone(signal, SignalState.DENIED, throttled)
    accounts = {leg.account.pk for leg in legs}
    is_exit = any(leg.reduces for leg in legs)
    if not is_exit:
        let_exits_pass(accounts)
    with transaction.atomic():
        if is_exit:
            announce_exit(accounts)
        decision = decide_locked(signal, alert, legs)
    if decision.step is Step.DECIDED:
        logger.info("alert decided: %d lanes to send", len(decision.lanes))
        now = timezone.now()
        metrics.stage_seconds["decide"].observe((now - started).total_seconds())
        metrics.processing_duration.observe((now - signal.received_at).total_seconds())
    return decision


def _refuse_alone(signal: Signal, state: SignalState, refusal: Refusal) -> Decision:
    """Refuse under the locks of a decision: another worker may be making the alert's orders now."""
    with transaction.atomic():
        if not _is_mine(signal, lane_legs(signal, Alert.from_json(signal.alert))):
            return Decision(Step.GONE)
        return _refuse(signal, state, refusal)


def _throttled(signal: Signal, alert: Alert, legs: Sequence[Leg]) -> Refusal | None:
    """Why the alert may open nothing: its strategy sends too many. What reduces always passes, and
    what has begun is ended.
    """
    if alert.action is Action.CANCEL or signal.auth == OWN_ALERT:
        return None
    refusal = arrivals.over_limit(signal)
    if refusal is None or any(reduces(leg.account, leg.symbol, alert) for leg in legs):
        return None
    return None if own_orders(signal.pk).exists() else refusal


def decide_locked(signal: Signal, alert: Alert, legs: Sequence[Leg]) -> Decision:
    """The decision itself, under the locks of its accounts; call inside a transaction."""
    if not _is_mine(signal, legs):
        return Decision(Step.GONE)
    if alert.action is Action.CANCEL:
        return _cancel_all(signal, legs)
    if alert.replaces:
        first = _without_old(signal, alert)
        if isinstance(first, Decision):
            return first
        alert = first
    if closes_everything(alert) and not approvals.is_wanted(signal, is_exit=True):
        _make_earlier_void(signal)
    return _place(signal, alert, legs)


def _is_mine(signal: Signal, legs: Sequence[Leg]) -> bool:
    """Lock the legs' accounts, then the signal; whether it is still to be decided."""
    take_turns(signal.strategy_id)
    accounts = sorted({leg.account.pk for leg in legs})
    rows = Account.objects.filter(pk__in=accounts).order_by("pk")
    list(rows.select_for_update(no_key=True).values_list("pk"))
    waiting = Signal.objects.filter(pk=signal.pk, state=SignalState.RECEIVED)
    return waiting.select_for_update(no_key=True).exists()


def _place(signal: Signal, alert: Alert, legs: Sequence[Leg]) -> Decision:
    """An order for each leg. One that is late, or whose lane is not quiet, holds up no other: it is
    decided the next time.
    """
    mine = list(own_orders(signal.pk))
    done = _settled_for(mine)
    legs = [leg for leg in legs if leg.account.pk not in done]
    waits = approvals.is_wanted(signal, is_exit=True)
    ready, to_cancel = _sorted_out(signal, legs, alert, clears=not waits)
    if ready and not mine:
        _note_gap(signal, alert, ready)
    made = [_next_order(signal, alert, leg, mine) for leg in ready]
    for order in made:
        if order and order.state == OrderState.DENIED:
            protect.resume(order.account_id, order.symbol)
    lanes = {(o.account_id, o.symbol) for o in made if o and o.state == OrderState.PENDING}
    orders = list(own_orders(signal.pk)) if mine else [order for order in made if order]
    if _is_half_done(orders) or len(ready) < len(legs):
        return Decision(Step.WAIT, tuple(sorted(lanes)), to_cancel)
    _conclude(signal, orders)
    return Decision(Step.DECIDED, lanes=tuple(sorted(lanes)))


def _settled_for(orders: Sequence[Order]) -> set[int]:
    """Accounts whose part is decided, or waits for a person to agree."""
    return accounts_done(orders) | {one.account_id for one in orders if one.state in HELD}


def _conclude(signal: Signal, orders: Sequence[Order]) -> None:
    """Nothing is left to decide: from here on the signal's state follows its ``orders``."""
    now = timezone.now()
    state, reason, detail = _disposition(orders)
    finished = None if state is SignalState.WORKING else now
    Signal.objects.filter(pk=signal.pk, state=SignalState.RECEIVED).update(
        state=state, reason=reason, detail=detail, decided_at=now, finished_at=finished
    )


def _sorted_out(
    signal: Signal, legs: Sequence[Leg], alert: Alert, *, clears: bool
) -> tuple[list[Leg], tuple[UUID, ...]]:
    """The legs that can be decided now, and the orders to cancel before others can: none while it
    takes a person to agree to the exit they are in the way of (not ``clears``), but entries that wait
    for one themselves.
    """
    ready: list[Leg] = []
    to_cancel: list[UUID] = []
    for leg in legs:
        lane = alive_in(leg)
        first = in_the_way(signal, leg, alert, lane, clears=clears)
        to_cancel += first
        if not first and not leg.is_late and not must_wait(leg, alert, lane):
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
    """Before the first order of an alert: does the sender start from where we are?"""
    if alert.prev_market_position is None:
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
    return create_order(signal, alert, leg, exited=first.filled_quantity)


def _has_other_half(first: Order, orders: Sequence[Order]) -> bool:
    return any(
        order.account_id == first.account_id and order.role == Order.Role.ENTRY for order in orders
    )


def refuse_signal(signal: Signal, alert: Alert) -> None:
    """Reasons that concern the alert as a whole. Raises Refusal."""
    _refuse_on_arrival(signal, alert)
    if late := outdated(signal, alert):
        raise late


def _refuse_on_arrival(signal: Signal, alert: Alert) -> None:
    """Reasons that were there when the alert came, and a strategy that has been disabled since."""
    strategy = signal.strategy
    refuse_disabled(signal)
    sent_at = alert.sent_at or signal.received_at
    age = signal.received_at - sent_at
    signed = signal.auth == Strategy.Auth.HMAC
    allowed = min(strategy.max_age, alert.max_age or strategy.max_age)
    most = min(allowed, SIGNED_MAX_AGE) if signed else allowed
    if age > timedelta(seconds=most):
        seconds = str(int(age.total_seconds()))
        raise Refusal(
            ReasonCode.STALE,
            f"the alert was {seconds} s old when it arrived; the most is {most} s",
            {"age": seconds, "max_age": str(most)},
        )
    if -age > FUTURE_SKEW:
        raise Refusal(
            ReasonCode.FROM_THE_FUTURE,
            f"the alert's time is {int(-age.total_seconds())} s ahead of this clock",
        )


def _refuse_outdated(signal: Signal, alert: Alert) -> None:
    """One that waited here too long opens nothing any more. Raises Refusal where it can do no more than
    that; an exit is not lost for having waited.
    """
    late = outdated(signal, alert)
    if late is None:
        return
    begun = {order.account_id for order in own_orders(signal.pk)}
    legs = [leg for leg in lane_legs(signal, alert) if leg.account.pk not in begun]
    if not any(_may_reduce(leg, alert) for leg in legs):
        raise late


def _may_reduce(leg: Leg, alert: Alert) -> bool:
    """Whether the alert takes off something that is held, or may be held once entries under way have
    ended. The lane is read first: what fills between the two questions is in the position.
    """
    moving = [order for order in _moving(alive_in(leg)) if order.role == Order.Role.ENTRY]
    is_met = any(order.side == _side_of(alert).opposite.value for order in moving)
    return is_met or reduces(leg.account, leg.symbol, alert)


def refuse_disabled(signal: Signal) -> None:
    """Disabling a strategy must not leave its positions without their targets and stops."""
    strategy = signal.strategy
    if not strategy.is_enabled and signal.auth != OWN_ALERT:
        raise Refusal(ReasonCode.STRATEGY_DISABLED, f"the strategy {strategy.slug} is disabled")


def must_wait(leg: Leg, alert: Alert, lane: Sequence[Order]) -> bool:
    """Whether the leg's size depends on orders still under way: decide it when the lane is quiet."""
    moving = _moving(lane)
    if not moving:
        return False
    if depends_on_position(alert):
        return True
    if is_plain(alert) and is_sized(alert):
        quantity = alert.quantity or Decimal(0)
        if is_covered(leg, alert.action, quantity, lane):
            return False
    other_side = _side_of(alert).opposite.value
    leaving = (Order.Role.EXIT, Order.Role.FLATTEN)
    return any(order.side == other_side or order.role in leaving for order in moving)


def _moving(lane: Sequence[Order]) -> list[Order]:
    """Orders that may change the position at any moment."""
    return [
        order
        for order in lane
        if order.state in IN_FLIGHT or (order.state in AT_VENUE and order.is_immediate)
    ]


def _side_of(alert: Alert) -> Side:
    return Side.BUY if alert.action is Action.BUY else Side.SELL


def in_the_way(
    signal: Signal, leg: Leg, alert: Alert, lane: Sequence[Order], *, clears: bool = True
) -> list[UUID]:
    """Orders to cancel before an exit can be decided: entries that could open again what is being
    closed, resting exits that would sell it twice, and stops that hold the coins it needs.

    Of an exit that waits for a person (not ``clears``), only the entries that wait for one as well.
    """
    if leg.is_late or not reduces(leg.account, leg.symbol, alert) or _is_halted(leg):
        return []
    overtaken = [order for order in lane if _is_overtaken(order, signal, alert)]
    _want_gone(signal, overtaken)
    found = [order.pk for order in overtaken]
    if not clears:
        return found
    if wants_flat(alert):
        closes_all = alert.quantity is None or alert.market_position is MarketPosition.FLAT
        _want_gone(signal, [order for order in lane if order.role == Order.Role.ENTRY])
        for order in lane:
            entry = order.role == Order.Role.ENTRY and order.state in SENDABLE
            exits = order.role == Order.Role.EXIT and order.state in RESTING
            if entry or (closes_all and exits and not order.is_immediate):
                found.append(order.pk)
    others = [order for order in lane if order.role != Order.Role.STOP_LOSS]
    waits = bool(found) or must_wait(leg, alert, others)
    if leg.market and leg.market.plugin.capabilities.locks_balance and not waits:
        found += protect.suspend(leg.account, leg.symbol)
    return found


def _is_overtaken(order: Order, signal: Signal, alert: Alert) -> bool:
    """Whether ``order`` is an entry that waits for a person while its exit has come: what they agree to
    then would be left open. An exit of one side overtakes its own strategy's entries, a close all.
    """
    if order.role != Order.Role.ENTRY or order.state not in HELD:
        return False
    other_side = order.strategy_id == signal.strategy_id and order.side != alert.action.value
    return wants_flat(alert) or (only_exits(alert) and other_side)


def _is_halted(leg: Leg) -> bool:
    """Whether an exit will be denied, so that nothing may be cancelled for it."""
    standing = switch.standing(
        account=leg.account.name,
        venue=leg.account.venue,
        symbol=leg.symbol,
        strategy=leg.route.strategy.slug,
    )
    return standing is not None and standing.state == TradingState.State.HALTED


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


def _want_gone(signal: Signal, orders: Sequence[Order]) -> None:
    """Note on the rows that the alert cancels them, also those of unknown fate: whatever turns up of
    them is cancelled then, and no amend takes their place.
    """
    mine = cancels.by_alert(signal)
    new = [order.pk for order in orders if order.cancel_asked_by != mine]
    if new:
        cancels.want(Order.objects.filter(pk__in=new), ReasonCode.CANCELED_BY_SIGNAL, mine)


def _cancel_all(signal: Signal, legs: Sequence[Leg]) -> Decision:
    """Cancel what works in the signal's lanes; an order just being sent must be known first.

    The signal is done once every cancel is on its order's row: a worker may die before it gets there.
    """
    working: list[UUID] = []
    is_known = True
    canceled = False
    for leg in legs:
        alive = [order for order in alive_in(leg) if _is_meant(signal, order)]
        _want_gone(signal, alive)
        working += [order.pk for order in alive if order.state in CANCELABLE]
        canceled |= any(order.state == OrderState.NEEDS_OPERATOR for order in alive)
        is_known &= not any(order.state in NOWHERE_YET for order in alive)
        lane = Order.objects.filter(account=leg.account, symbol=leg.symbol)
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
    """Whether the cancel is for ``order``: what was asked for before it, and rests or may rest. Stops,
    and exits that never rest, are not.
    """
    if order.role == Order.Role.STOP_LOSS or (order.is_exit and order.is_immediate):
        return False
    return (order.signal_id or order.pk) < cancel.pk


def _finish(signal: Signal, state: SignalState, refusal: Refusal | None) -> Decision:
    now = timezone.now()
    Signal.objects.filter(pk=signal.pk, state=SignalState.RECEIVED).update(
        state=state,
        reason=refusal.code.value if refusal else "",
        detail=refusal.detail if refusal else "",
        decided_at=now,
        finished_at=now,
    )
    logger.info("alert %s: %s", state.value, refusal.code.value if refusal else "nothing to do")
    return Decision(Step.DECIDED)


def settle(signal_id: UUID) -> SignalState | None:
    """Bring a decided signal's disposition in line with its orders; ``None`` if nothing changed."""
    orders = list(own_orders(signal_id))
    if not orders:
        return None
    state, reason, detail = _disposition(orders)
    finished = None if state is SignalState.WORKING else timezone.now()
    changed = (
        Signal.objects.filter(pk=signal_id)
        .exclude(state__in=(SignalState.RECEIVED, state))
        .update(state=state, reason=reason, detail=detail, finished_at=finished)
    )
    return state if changed else None


def _disposition(orders: Sequence[Order]) -> tuple[SignalState, str, str]:
    """A signal's state, reason and detail from its orders: the worst news first, fills before all."""
    by_state = {OrderState(order.state): order for order in reversed(orders)}
    if any(state not in TERMINAL for state in by_state):
        return SignalState.WORKING, "", ""
    if any(order.filled_quantity > 0 for order in orders):
        return SignalState.EXECUTED, "", ""
    for state, disposition in (
        (OrderState.REJECTED, SignalState.FAILED),
        (OrderState.NOT_PLACED, SignalState.FAILED),
        (OrderState.EXPIRED, SignalState.EXPIRED),
        (OrderState.CANCELED, SignalState.IGNORED),
        (OrderState.DENIED, SignalState.DENIED),
    ):
        if state in by_state:
            order = by_state[state]
            return _softened(disposition, order), order.reason, order.detail
    raise AssertionError("an order is in no known state")


def _softened(disposition: SignalState, order: Order) -> SignalState:
    """Nothing to do is no denial: the sender asked for what is already so."""
    if order.reason in (ReasonCode.NOTHING_TO_CLOSE, ReasonCode.ALREADY_AT_TARGET):
        return SignalState.IGNORED
    return disposition


def fail(signal: Signal, error: Exception) -> None:
    """Count a decision that ended in a defect of ours; the third one fails the signal, visibly."""
    Signal.objects.filter(pk=signal.pk).update(tries=F("tries") + 1)
    signal.refresh_from_db()
    if signal.tries >= 3:
        detail = f"FKS could not decide this: {type(error).__name__}"
        _refuse_alone(signal, SignalState.FAILED, Refusal(ReasonCode.INTERNAL_ERROR, detail))
