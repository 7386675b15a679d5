"""The conductor: Celery tasks that call the steps of signals and orders, and decide what comes next.

A message carries a row id and nothing else. Every task may run twice, beside itself, or not at all:
the rows say what is to be done, and ``periodic_tasks.sweep`` finds what was left behind. What is done
for whole accounts is in ``account_tasks``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from celery import Task, shared_task
from django.db import Error, InterfaceError
from django.db import OperationalError as DatabaseDown
from django.utils import timezone
from kombu.exceptions import OperationalError

from brokers.errors import BrokerError
from brokers.models import Account
from brokers.types import OrderReport
from execution import (
    adopting,
    ahead,
    alarms,
    bulkheads,
    dispatch,
    dispositions,
    draining,
    lanes,
    metrics,
    next_slice,
    pipeline,
    protect,
    queues,
    reconcile,
    releasing,
    resolving,
    sweeping,
    tracing,
)
from execution.bulkheads import Crowded
from execution.handing_out import EXITS, ORDERS, hand_out
from execution.models import Adoption, Order, Signal
from execution.pipeline import Step
from execution.states import TERMINAL, UNRESOLVED, UNSENT, OrderState
from execution.turns import Turns
from execution.under_way import held_in, trades_against
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

Kind = alarms.Kind

CANCEL_WITHIN = 10
"""Seconds a cancel may be under way: by then whoever still wants it has asked again, and an old message
must not cancel what is wanted by now."""
_Call = tuple["Task[..., None]", tuple[object, ...]]
LONGEST_SENDING = 15
"""Seconds after which who sends for a lane counts as hung: a placement is given up after ten."""
_deciding = Turns()
_sending = Turns(longest=LONGEST_SENDING)
_blocked: set[queues.Queue] = set()
"""Queues whose first alert waits for its lane: what ends there wakes it, not what comes behind it."""
_ASKED_BY = {
    ReasonCode.CANCELED_BY_SIGNAL: "a signal",
    ReasonCode.REPLACED: "the protection of the position",
}


@shared_task
def process_signal(signal_id: str) -> None:
    """Decide what waits in the signal's queue, in its order; then run the lanes it leads to.

    An exit the position covers does not wait for the entries before it.
    """
    place = next(iter(queues.places([signal_id])), None)
    if place is not None and not (place.may_overtake and _overtakes(place.signal_id)):
        process_queue(*place.queue)


@shared_task
def overtake(signal_id: str) -> None:
    """Decide an exit the position covers before the entries that came before it; any other alert keeps
    its turn.
    """
    _overtakes(UUID(signal_id))


def _overtakes(signal_id: UUID) -> bool:
    signal = queues.overtaking(signal_id)
    if signal is not None:
        _do(_decide_one(signal)[0])
    return signal is not None


@shared_task
def process_queue(strategy_id: int, symbol: str, account: str) -> None:
    """Decide what waits in a queue of alerts, in its order; then run the lanes it leads to."""
    queue = strategy_id, symbol, account
    turn = _deciding.take(queue)
    if turn is None:
        return
    try:
        calls = _decide_all(queue, [])
        while not (_deciding.leave(turn) or draining.has_begun()):
            calls = _decide_all(queue, calls)
    except BaseException:
        _deciding.drop(turn)
        raise
    _do(calls)


def _decide_all(queue: queues.Queue, calls: list[_Call]) -> list[_Call]:
    """Decide until nothing is left or the next must wait, and hand out ``calls`` once there is more to
    decide; returns what the last decision leads to. For what comes later its own nudge asks; for an
    exit behind one that waits also whoever looks at that one, lest a lost nudge hold it up as long.
    """
    goes_on = True
    while goes_on and (found := _next_to_decide(queue)) is not None:
        _hand_out(calls)
        _blocked.discard(queue)
        calls, step = _decide_one(found.signal)
        if step is Step.WAIT:
            _blocked.add(queue)
            behind = queues.exits_behind(found.signal) if found.has_more else ()
            calls += [(overtake, (str(signal_id),)) for signal_id in behind]
            calls = _go_on_elsewhere(queue, calls) if found.has_more else calls
        goes_on = step in (Step.DECIDED, Step.GONE) and found.has_more
    return calls


def _go_on_elsewhere(queue: queues.Queue, calls: list[_Call]) -> list[_Call]:
    """Decide what is behind one that waits, on the accounts where that does not; ``calls`` as in
    ``_decide_all``.
    """
    for signal, accounts in ahead.turns(queue):
        if draining.has_begun():
            break
        _hand_out(calls)
        calls = _decide_one(signal, accounts)[0]
    return calls


def _next_to_decide(queue: queues.Queue) -> queues.Next | None:
    return None if draining.has_begun() else queues.next_undecided(queue)


def _decide_one(signal: Signal, accounts: Collection[int] = ()) -> tuple[list[_Call], Step | None]:
    """What the decision leads to, on some ``accounts`` or all, and how it ended; no step where none
    could be made.
    """
    try:
        decision = _decided(signal, accounts)
    except Crowded as crowded:
        _later(crowded, process_signal, str(signal.pk))
        return [], None
    if decision is None:
        return [], None
    reason = ReasonCode.CANCELED_BY_SIGNAL.value
    calls: list[_Call] = [(run_lane, lane) for lane in decision.lanes]
    calls += [(cancel_order, (str(order_id), reason)) for order_id in decision.cancels]
    calls += [(work_slices, (str(order_id),)) for order_id in decision.slicing]
    return calls, decision.step


@shared_task
def process_signals(signal_ids: list[str]) -> None:
    """Wake a thread for each queue of alerts, so that none waits for another; the workers for exits see
    whether what may overtake does.
    """
    overtaking, waiting = queues.to_wake(signal_ids, _blocked)
    for signal_id in overtaking:
        overtake.apply_async((str(signal_id),), retry=False)
    for queue in waiting[1:]:
        if not _deciding.ask(queue):
            process_queue.apply_async(queue, retry=False)
    if waiting:
        process_queue(*waiting[0])


def _decided(signal: Signal, accounts: Collection[int]) -> pipeline.Decision | None:
    waited = timezone.now() - signal.received_at
    metrics.stage_seconds["queue"].observe(waited.total_seconds())
    with tracing.step("decide", signal.pk, symbol=signal.symbol):
        try:
            return ahead.decide(signal, accounts) if accounts else pipeline.decide(signal)
        except Crowded:
            raise
        except Exception as error:
            # The task boundary: a defect must not block the lane for ever, nor vanish.
            logger.exception("deciding a signal failed")
            if not isinstance(error, (InterfaceError, DatabaseDown)):
                pipeline.fail(signal, error)
            return None


def _later(
    crowded: Crowded, task: Task[..., None], *arguments: object, until: datetime | None = None
) -> None:
    """Do it once the account's venue holds fewer threads, if that is before ``until``; a lost message
    is the sweep's to find.
    """
    way: dict[str, Any] = {"queue": EXITS if crowded.is_exit else ORDERS, "expires": until}

    def wake() -> None:
        with suppress(OperationalError):
            task.apply_async(arguments, retry=False, **way)

    bulkheads.park(crowded, f"{task.name} {arguments}", wake, until)


def _do(calls: Sequence[_Call]) -> None:
    """One thing to do is done here and now; several are handed out, so that none waits for another."""
    if len(calls) == 1:
        [(task, arguments)] = calls
        task(*arguments)
    else:
        _hand_out(calls)


def _hand_out(calls: Iterable[_Call]) -> None:
    for task, arguments in calls:
        if not is_under_way(task, arguments):
            hand_out(task, *arguments)


def is_under_way(task: Task[..., None], arguments: tuple[object, ...]) -> bool:
    """Whether a thread of this process has the lane, and will look once more: no message is needed."""
    return task is run_lane and _sending.ask(arguments)


@shared_task
def run_lane(account_id: int, symbol: str) -> None:
    """Send what the lane holds, then settle the signals behind it and wake those that waited."""
    lane = account_id, symbol
    turn = _sending.take(lane)
    if turn is None:
        return
    try:
        handled = dispatch.run_lane(*lane)
        while not _sending.leave(turn):
            handled += dispatch.run_lane(*lane)
    except BaseException:
        _sending.drop(turn)
        raise
    after(handled)
    if handled:
        _wake_crowded_out(handled[0].account)
    for order in handled:
        if order.state not in TERMINAL and order.next_check_at is not None:
            hand_out(check_order, str(order.pk), countdown=0.1)


@shared_task
def release_order(order_id: str) -> None:
    """Judge an order a person approved anew, and let it into its lane."""
    rows = Order.objects.select_related("account", "strategy")
    order = rows.filter(pk=order_id, state=OrderState.APPROVED).first()
    if order is None:
        return
    try:
        with tracing.step("decide", order.signal_id, order=order_id):
            for in_the_way in releasing.release(order):
                hand_out(cancel_order, str(in_the_way), ReasonCode.CANCELED_BY_SIGNAL.value)
    except Crowded as crowded:
        _later(crowded, release_order, order_id)
        return
    except Error:
        raise
    except Exception as error:
        # The task boundary: a defect must not leave the order approved for ever, nor vanish.
        logger.exception("judging an approved order failed")
        releasing.give_up(order, error)
    if order.state == OrderState.PENDING:
        run_lane(order.account_id, order.symbol)
    elif order.state == OrderState.SLICING:
        work_slices(order_id)
    elif order.state in TERMINAL:
        after([order])


@shared_task
def work_slices(order_id: str) -> None:
    """Follow the slices of an order, and start the next one if it is due."""
    before = Order.objects.only("state", "role", "symbol", "account_id").get(pk=order_id)
    for stop in next_slice.stops_in_the_way(before.pk) if before.is_exit else ():
        cancel_order(str(stop), ReasonCode.REPLACED.value)
    try:
        made = next_slice.look(before.pk)
    except Crowded as crowded:
        _later(crowded, work_slices, order_id)
        return
    parent = Order.objects.get(pk=order_id)
    if parent.state == OrderState.SLICING and parent.cancel_reason:
        hand_out(cancel_order, order_id, parent.cancel_reason)
    if parent.state != before.state:
        after([parent])
    if made is not None:
        run_lane(made.account_id, made.symbol)


@shared_task
def check_order(order_id: str) -> None:
    """Ask the venue about a working or unknown order."""
    order = reconcile.with_account.first(order=UUID(order_id))
    if order is None or order.state in TERMINAL:
        return
    if order.state in UNSENT | {OrderState.SUBMITTING, OrderState.SLICING}:
        return
    state, filled = order.state, order.filled_quantity
    try:
        with _asking_about(order):
            reconcile.check_order(order)
    except Crowded as crowded:
        _later(crowded, check_order, order_id)
        return
    if _settled_doubt(order, state, filled):
        run_lane(order.account_id, order.symbol)


@shared_task
def adopt_order(adoption_id: int) -> None:
    """Ask the venue for the order an operator found there, and go on if it was taken over."""
    row = Adoption.objects.select_related("order__account").get(pk=adoption_id)
    order, state, filled = row.order, row.order.state, row.order.filled_quantity
    try:
        with _asking_about(order):
            adopting.carry_out(adoption_id)
    except Crowded as crowded:
        _later(crowded, adopt_order, adoption_id)
        return
    if _settled_doubt(order, state, filled):
        run_lane(order.account_id, order.symbol)


def book_report(order: Order, report: OrderReport) -> None:
    """Book what a venue's stream says of an order, and go on as after an answer."""
    state, filled = order.state, order.filled_quantity
    with tracing.step("stream", order.signal_id, order=str(order.pk)):
        reconcile.book(order, report, source="the venue's stream")
    if _settled_doubt(order, state, filled):
        hand_out(run_lane, order.account_id, order.symbol)


def _settled_doubt(order: Order, state: str, filled: Decimal) -> bool:
    """Go on after news of an order that was in ``state`` with so much ``filled``; whether its fate was
    unknown and is not any more, so that its lane is free.
    """
    now = reconcile.with_account(order=order.pk)[0]
    if (now.state, now.filled_quantity) == (state, filled):
        return False
    after([now])
    return state in UNRESOLVED and now.state not in UNRESOLVED


@shared_task(expires=CANCEL_WITHIN)
def cancel_order(order_id: str, reason: str = ReasonCode.CANCELED_BY_OPERATOR.value) -> None:
    """Cancel an order and read back how it ended. What its row says about a cancel goes first."""
    order = reconcile.with_account.first(order=UUID(order_id))
    if order is None or order.state in TERMINAL:
        return
    code = ReasonCode(order.cancel_reason or reason)
    before = order.state
    try:
        with _asking_about(order):
            asked_by = order.cancel_asked_by or _ASKED_BY.get(code, "an operator")
            reconcile.cancel(order, code, asked_by)
    except Crowded as crowded:
        _later(crowded, cancel_order, order_id, reason, until=_good_until())
        return
    # Waking those who wait for a cancel that changed nothing would make them ask for it again.
    if order.state != before:
        after([order])


def _good_until() -> datetime:
    """Of the cancel under way: what is parked grows no younger by it."""
    told = cancel_order.request.expires
    if told is None:
        return timezone.now() + timedelta(seconds=CANCEL_WITHIN)
    return datetime.fromisoformat(str(told))


@contextmanager
def _asking_about(order: Order) -> Iterator[None]:
    """A place at the account's venue; what is logged meanwhile names the order's signal."""
    leaves = order.role != Order.Role.ENTRY
    with (
        bulkheads.place([order.account_id], is_exit=leaves),
        tracing.step("ask", order.signal_id, order=str(order.pk)),
    ):
        yield


def after(orders: Iterable[Order]) -> None:
    """Settle the signals of ``orders`` and wake signals that waited for their lanes."""
    for signal_id in {order.signal_id for order in orders if order.signal_id}:
        dispositions.settle(signal_id)
    resolving.follow(orders)
    protect.resume_after(orders)
    for parent_id in {order.parent_id for order in orders if order.parent_id}:
        hand_out(work_slices, str(parent_id))
    touched = {(order.account_id, order.symbol) for order in orders}
    accounts = {
        order.account_id: order.account for order in orders if Order.account.is_cached(order)
    }
    accounts |= Account.objects.in_bulk({account for account, _ in touched} - accounts.keys())
    for account_id, symbol in touched:
        _wake(accounts[account_id], symbol)
        _guard(accounts[account_id], symbol)


@shared_task
def guard(account_id: int, symbol: str) -> None:
    """Bring a position's stop in line with it."""
    _guard(Account.objects.get(pk=account_id), symbol)


def _guard(account: Account, symbol: str) -> None:
    try:
        with bulkheads.place([account.pk], is_exit=True):
            step = protect.align(account, symbol)
    except Crowded as crowded:
        _later(crowded, guard, account.pk, symbol)
        return
    except Error:
        raise
    except Exception as error:
        # The boundary to foreign code: whatever went wrong, somebody must hear of the position.
        is_defect = not isinstance(error, (BrokerError, Refusal))
        logger.warning(
            "%s on %s cannot be guarded now: %s", symbol, account.name, error, exc_info=is_defect
        )
        protect.cannot_align(account, symbol, str(error) or type(error).__name__)
        return
    for order_id in step.cancels:
        hand_out(cancel_order, str(order_id), ReasonCode.REPLACED.value)
    if step.run_lane:
        hand_out(run_lane, account.pk, symbol, queue=EXITS)


def _wake_crowded_out(account: Account) -> None:
    """Lanes of the account that may have found it crowded try again."""
    if lanes.was_crowded(account):
        _hand_out((run_lane, lane) for lane in sweeping.lanes_of(account.pk)[: lanes.MAX_UNDER_WAY])


def _wake(account: Account, symbol: str) -> None:
    for last in queues.waiting_for(account, symbol):
        if not _deciding.ask(last.queue):
            hand_out(process_queue, *last.queue)
        # Whoever decides the queue goes on with its first; an exit covered by now does not wait.
        leaves = last.closes or trades_against(held_in(account, symbol), last.action)
        if leaves and queues.may_overtake(last.signal_id):
            hand_out(overtake, str(last.signal_id))
