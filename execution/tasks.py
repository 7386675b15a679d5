"""The conductor: Celery tasks that call the steps and decide what comes next.

A message carries a row id and nothing else. Every task may run twice, beside itself, or not at all:
the rows say what is to be done, and ``sweep`` finds what was left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from decimal import Decimal

from celery import Task, shared_task
from django.db import Error, InterfaceError
from django.db import OperationalError as DatabaseDown
from django.utils import timezone
from kombu.exceptions import OperationalError

from brokers.errors import BrokerError, CredentialError
from brokers.models import Account
from brokers.types import OrderReport
from execution import (
    adopting,
    adoptions,
    alarms,
    approvals,
    bulkheads,
    differences,
    dispatch,
    dispositions,
    draining,
    keys,
    lanes,
    liveness,
    metrics,
    next_slice,
    notify,
    outlived,
    parents,
    pipeline,
    probing,
    protect,
    queues,
    reconcile,
    releasing,
    resolving,
    silence,
    spreads,
    sweeping,
    tracing,
    venue_logins,
    watched_stops,
    watching,
    weekly,
    winding_down,
)
from execution.bulkheads import Crowded
from execution.exclusive import Work, exclusive
from execution.handing_out import hand_out
from execution.models import Adoption, Difference, Order, Signal
from execution.nudge import Nudger
from execution.pipeline import Step
from execution.states import AT_VENUE, TERMINAL, UNRESOLVED, UNSENT, OrderState
from execution.turns import Turns
from risk import breakers, proposals, ratelimit, sealing
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

Kind = alarms.Kind

EXITS, ORDERS = "exits", "orders"
"""Queues; workers look into the first one first."""
GUARD_EVERY = timedelta(seconds=3)
CANCEL_WITHIN = 10
"""Seconds a cancel may be under way: by then whoever still wants it has asked again, and an old message
must not cancel what is wanted by now."""
_Call = tuple["Task[..., None]", tuple[object, ...]]
LONGEST_SENDING = 15
"""Seconds after which who sends for a lane counts as hung: a placement is given up after ten."""
_deciding = Turns()
_sending = Turns(longest=LONGEST_SENDING)
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
    if place is None:
        return
    if overtaking := queues.overtaking(place):
        _do(_decide_one(overtaking)[0])
        return
    queue = place.queue
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
    decide; returns what the last decision leads to.
    """
    goes_on = True
    while goes_on and (signal := _next_to_decide(queue)) is not None:
        _hand_out(calls)
        calls, goes_on = _decide_one(signal)
    return calls


def _next_to_decide(queue: queues.Queue) -> Signal | None:
    return None if draining.has_begun() else queues.next_undecided(queue)


def _decide_one(signal: Signal) -> tuple[list[_Call], bool]:
    """What the decision leads to, and whether the next one in the queue can be made."""
    try:
        decision = _decided(signal)
    except Crowded as crowded:
        _later(crowded, process_signal, str(signal.pk))
        return [], False
    if decision is None:
        return [], False
    reason = ReasonCode.CANCELED_BY_SIGNAL.value
    calls: list[_Call] = [(run_lane, lane) for lane in decision.lanes]
    calls += [(cancel_order, (str(order_id), reason)) for order_id in decision.cancels]
    calls += [(work_slices, (str(order_id),)) for order_id in decision.slicing]
    return calls, decision.step is not Step.WAIT


@shared_task
def process_signals(signal_ids: list[str]) -> None:
    """Wake a thread for each queue of alerts, so that none waits for another; what may overtake goes to
    the workers for exits.
    """
    overtaking, first = queues.to_wake(signal_ids)
    for signal_id in overtaking:
        process_signal.apply_async((str(signal_id),), retry=False, queue=EXITS)
    for signal_id in first[1:]:
        process_signal.apply_async((str(signal_id),), retry=False)
    if first:
        process_signal(str(first[0]))


def _decided(signal: Signal) -> pipeline.Decision | None:
    waited = timezone.now() - signal.received_at
    metrics.stage_seconds["queue"].observe(waited.total_seconds())
    with tracing.step("decide", signal.pk, symbol=signal.symbol):
        try:
            return pipeline.decide(signal)
        except Crowded:
            raise
        except Exception as error:
            # The task boundary: a defect must not block the lane for ever, nor vanish.
            logger.exception("deciding a signal failed")
            if not isinstance(error, (InterfaceError, DatabaseDown)):
                pipeline.fail(signal, error)
            return None


def _later(crowded: Crowded, task: Task[..., None], *arguments: object) -> None:
    """Do it once the account's venue holds fewer threads; a lost message is the sweep's to find."""

    def wake() -> None:
        with suppress(OperationalError):
            task.apply_async(arguments, retry=False, queue=EXITS if crowded.is_exit else ORDERS)

    bulkheads.park(crowded, f"{task.name} {arguments}", wake)


def _do(calls: Sequence[_Call]) -> None:
    """One thing to do is done here and now; several are handed out, so that none waits for another."""
    if len(calls) == 1:
        [(task, arguments)] = calls
        task(*arguments)
    else:
        _hand_out(calls)


def _hand_out(calls: Iterable[_Call]) -> None:
    for task, arguments in calls:
        if not _is_under_way(task, arguments):
            hand_out(task, *arguments)


def _is_under_way(task: Task[..., None], arguments: tuple[object, ...]) -> bool:
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
    _after(handled)
    if handled:
        _wake_crowded_out(account_id)
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
        _after([order])


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
        _after([parent])
    if made is not None:
        run_lane(made.account_id, made.symbol)


@shared_task
def check_order(order_id: str) -> None:
    """Ask the venue about a working or unknown order."""
    order = Order.objects.select_related("account").filter(pk=order_id).first()
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
    order.refresh_from_db()
    if (order.state, order.filled_quantity) == (state, filled):
        return False
    _after([order])
    return state in UNRESOLVED and order.state not in UNRESOLVED


@shared_task(expires=CANCEL_WITHIN)
def cancel_order(order_id: str, reason: str = ReasonCode.CANCELED_BY_OPERATOR.value) -> None:
    """Cancel an order and read back how it ended. What its row says about a cancel goes first."""
    order = Order.objects.select_related("account").filter(pk=order_id).first()
    if order is None or order.state in TERMINAL:
        return
    code = ReasonCode(order.cancel_reason or reason)
    before = order.state
    try:
        with _asking_about(order):
            asked_by = order.cancel_asked_by or _ASKED_BY.get(code, "an operator")
            reconcile.cancel(order, code, asked_by)
    except Crowded as crowded:
        _later(crowded, cancel_order, order_id, reason)
        return
    # Waking those who wait for a cancel that changed nothing would make them ask for it again.
    if order.state != before:
        _after([order])


@contextmanager
def _asking_about(order: Order) -> Iterator[None]:
    """A place at the account's venue; what is logged meanwhile names the order's signal."""
    leaves = order.role != Order.Role.ENTRY
    with (
        bulkheads.place([order.account_id], is_exit=leaves),
        tracing.step("ask", order.signal_id, order=str(order.pk)),
    ):
        yield


@shared_task
def wind_down(account_id: int) -> None:
    """Do what the kill switch and operators want of an account: cancel, close.

    One thread per account: a venue that hangs must not hold them all.
    """
    account = Account.objects.get(pk=account_id)
    with exclusive(Work.WIND_DOWN, account_id) as mine:
        done, symbols = winding_down.step(account) if mine else ([], [])
    _after(done)
    for symbol in symbols:
        hand_out(run_lane, account_id, symbol, queue=EXITS)


def _after(orders: Iterable[Order]) -> None:
    """Settle the signals of ``orders`` and wake signals that waited for their lanes."""
    for signal_id in {order.signal_id for order in orders if order.signal_id}:
        dispositions.settle(signal_id)
    for order in orders:
        # An exit that rests at the venue holds the coins it needs already.
        if order.role == Order.Role.EXIT and order.state in TERMINAL | AT_VENUE:
            protect.resume(order.account_id, order.symbol)
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


@shared_task
def watch(account_id: int) -> None:
    """Look whether the market has reached a target, or passed a stop that is not at the venue.

    One thread per account: a venue that hangs must not hold them all.
    """
    with exclusive(Work.WATCH, account_id) as mine:
        sent = watching.watch(account_id) if mine else []
    for signal_id in sent:
        hand_out(process_signal, str(signal_id), queue=EXITS)
    for symbol in watched_stops.passed(account_id):
        hand_out(guard, account_id, symbol)


def _wake_crowded_out(account_id: int) -> None:
    """Lanes of the account that found it crowded try again."""
    _hand_out((run_lane, lane) for lane in sweeping.lanes_of(account_id)[: lanes.MAX_UNDER_WAY])


def _wake(account: Account, symbol: str) -> None:
    for signal_id, queue in queues.waiting_for(account, symbol):
        # Whoever decides the queue goes on with its first; what may overtake wants a thread of its own.
        if not _deciding.ask(queue) or queues.may_overtake(signal_id):
            hand_out(process_signal, str(signal_id))


@shared_task
def sweep() -> None:
    """Find what was left behind by a lost message or a dead worker, and send it on its way.

    One sweep at a time: a second one finds the lock taken and leaves. Beat published this.
    """
    liveness.beat("beat")
    due = sweeping.due_orders()
    if due is None:
        return
    now = timezone.now()
    for order in lanes.lease_ended_before(now):
        lanes.lose_sight(order)
        check_order.apply_async((str(order.pk),), retry=False)
    for order_id in due:
        check_order.apply_async((str(order_id),), retry=False)
    for lane in sweeping.waiting_lanes():
        if not _sending.ask(lane):
            run_lane.apply_async(lane, retry=False)
    for signal_id in sweeping.undecided_signals():
        process_signal.apply_async((str(signal_id),), retry=False)
    for signal_id in sweeping.unsettled_signals():
        dispositions.settle(signal_id)
    _after(approvals.expire())
    for order_id, leaves in parents.under_way():
        queue = EXITS if leaves else ORDERS
        work_slices.apply_async((str(order_id),), retry=False, expires=5, queue=queue)
    for order_id in approvals.approved():
        release_order.apply_async((str(order_id),), retry=False, expires=5)
    _sweep_accounts()


def _sweep_accounts() -> None:
    """What is to be done for whole accounts and positions; dropped if it waits until the next sweep."""
    for account_id in Account.objects.filter(
        is_active=True, reconciled_at__isnull=True
    ).values_list("pk", flat=True):
        reconcile_account.apply_async((account_id,), retry=False, expires=5)
    for account_id, symbol in protect.due(timezone.now() - GUARD_EVERY):
        guard.apply_async((account_id, symbol), retry=False, expires=10)
    for account_id in watching.watched_accounts():
        watch.apply_async((account_id,), retry=False, expires=5)
    for account_id in breakers.due(timezone.now()):
        probe_venue.apply_async((account_id,), retry=False, expires=5)
    outlived.want_gone()
    for account_id in sweeping.accounts_to_wind_down():
        wind_down.apply_async((account_id,), retry=False, expires=5)
    for adoption_id in adoptions.due():
        adopt_order.apply_async((adoption_id,), retry=False, expires=5)
    for difference_id in differences.asked():
        resolve_difference.apply_async((difference_id,), retry=False, expires=5)
    alarms.look()
    for channel_id in notify.due_channels():
        tell_channel.apply_async((channel_id,), retry=False, expires=5)


@shared_task
def tell_channel(channel_id: int) -> None:
    """Send a channel what waits for it.

    One thread per channel: a service that hangs must not hold them all.
    """
    notify.deliver(channel_id)


@shared_task
def sum_up_the_week() -> None:
    """On Mondays, for the channels that asked for it."""
    weekly.look()


@shared_task
def look_at_venue_logins() -> None:
    """Alarm for accounts somebody must log in at their venue, soon or now."""
    venue_logins.look()


@shared_task
def look_at_keys() -> None:
    """Nudge the daily question what each key may do, and alarm for what was found."""
    for account_id in keys.due(timezone.now()):
        ask_about_key.apply_async((account_id,), retry=False, expires=10)
    keys.look()


@shared_task
def ask_about_key(account_id: int) -> None:
    """Ask one venue; one thread per account, so that one that hangs does not hold them all."""
    keys.ask(Account.objects.get(pk=account_id))
    keys.look()


@shared_task
def look_at_spreads() -> None:
    """Nudge a look at each watched instrument whose time has come; late ones are dropped."""
    for watch_id in spreads.due(timezone.now()):
        look_at_spread.apply_async((watch_id,), retry=False, expires=5)


@shared_task
def look_at_spread(watch_id: int) -> None:
    """Compare one instrument's quotes between accounts. Nothing is traded."""
    spreads.look(watch_id)


@shared_task
def look_for_silence() -> None:
    """Alarm for alerts that did not come."""
    silence.look()


@shared_task
def forget_quiet_addresses() -> None:
    """Keep the table of failed attempts small: whoever stopped knocking is dropped."""
    ratelimit.forget_quiet_addresses()


@shared_task
def probe_venue(account_id: int) -> None:
    """Ask a venue whose breaker was open; once it works again, exits go first."""
    if probing.probe(account_id):
        for lane_account, symbol in sweeping.lanes_of(account_id):
            run_lane.apply_async((lane_account, symbol), retry=False)


@shared_task
def reconcile_all() -> None:
    """Nudge the reconciliation of every account in use."""
    for account_id in Account.objects.filter(is_active=True).values_list("pk", flat=True):
        reconcile_account.apply_async((account_id,), retry=False, expires=60)


@shared_task
def reconcile_account(account_id: int) -> None:
    account = Account.objects.get(pk=account_id)
    try:
        with exclusive(Work.RECONCILE, account_id) as mine:
            if not mine:
                return
            keys.ask_first(account)
            reconcile.reconcile_account(account)
    except (BrokerError, Refusal) as error:
        _cannot_compare(account, error)
        return
    alarms.clear(Kind.NOT_RECONCILED, account.name)
    alarms.clear(Kind.LOGIN_NEEDED, account.name)
    for lane_account, symbol in sweeping.lanes_of(account_id):
        run_lane.apply_async((lane_account, symbol), retry=False)


def _cannot_compare(account: Account, error: Exception) -> None:
    """Say it once for as long as it lasts: the sweep asks every second while the account waits."""
    account.refresh_from_db()
    if isinstance(error, CredentialError):
        alarms.sound(alarms.Seen(Kind.LOGIN_NEEDED, account.name, str(error), account))
    elif account.reconciled_at is None:
        detail = f"it does not trade: {error}"
        alarms.sound(alarms.Seen(Kind.NOT_RECONCILED, account.name, detail, account))
    else:
        logger.warning("reconciliation of %s is not possible now: %s", account.name, error)


@shared_task
def resolve_difference(difference_id: int) -> None:
    """Close or cancel at the venue what an operator wants gone there."""
    row = Difference.objects.select_related("account").get(pk=difference_id)
    try:
        symbol = resolving.carry_out(difference_id)
    except (BrokerError, Refusal, ValueError) as error:
        logger.warning("%s cannot be resolved now: %s", row, error)
        return
    if symbol is not None:
        run_lane.apply_async((row.account_id, symbol), retry=False)
    elif row.state == Difference.State.CANCELING:
        reconcile_account.apply_async((row.account_id,), retry=False)


@shared_task
def seal_audit() -> None:
    """Link what was recorded since the last time into the audit chain, proposals' ends included."""
    proposals.expire()
    sealing.seal()


@shared_task
def verify_audit() -> None:
    """Prove the audit chain; whoever changed it is named by an alarm."""
    alarms.look_at_audit()


def _publish(signal_ids: list[str]) -> None:
    process_signals.apply_async((signal_ids,), retry=False)


_nudger = Nudger(_publish)


def nudge_signal(signal_id: str) -> None:
    """Wake a worker for ``signal_id`` without waiting for the queue."""
    _nudger.send(signal_id)


def _publish_exits(signal_ids: list[str]) -> None:
    for signal_id in signal_ids:
        process_signal.apply_async((signal_id,), retry=False, queue=EXITS)


_exit_nudger = Nudger(_publish_exits)


def nudge_exit(signal_id: str) -> None:
    """Wake a worker for a signal that closes something: before every entry that waits."""
    _exit_nudger.send(signal_id)
