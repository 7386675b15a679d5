"""The conductor: Celery tasks that call the steps and decide what comes next.

A message carries a row id and nothing else. Every task may run twice, beside itself, or not at all:
the rows say what is to be done, and ``sweep`` finds what was left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from celery import shared_task
from celery.signals import worker_init, worker_ready
from django.db import Error, connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from brokers.errors import BrokerError
from brokers.models import Account
from execution import dispatch, lanes, metrics, pipeline, protect, reconcile, watching
from execution.exclusive import Work, exclusive
from execution.models import Heartbeat, Order, Signal
from execution.nudge import Nudger
from execution.pipeline import Step
from execution.states import AT_VENUE, TERMINAL, UNRESOLVED, OrderState, SignalState
from risk import sealing
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

LEFT_BEHIND = timedelta(seconds=1)
GUARD_EVERY = timedelta(seconds=3)
STANDSTILL = timedelta(seconds=15)
HEARTBEAT_SECONDS = 3
BATCH = 200
SWEEP_LOCK = 0x464B5302
_ASKED_BY = {
    ReasonCode.CANCELED_BY_SIGNAL: "a signal",
    ReasonCode.REPLACED: "the protection of the position",
}


@shared_task
def process_signal(signal_id: str) -> None:
    """Decide a signal, after every earlier one of its strategy and symbol; then run its lanes."""
    while True:
        signal = pipeline.oldest_undecided(UUID(signal_id))
        if signal is None:
            return
        decision = _decided(signal)
        if decision is None:
            return
        _cancel(decision.cancels)
        for account_id, symbol in decision.lanes:
            _run_or_nudge(account_id, symbol, alone=len(decision.lanes) == 1)
        if decision.step is Step.WAIT or str(signal.pk) == signal_id:
            return


@shared_task
def process_signals(signal_ids: list[str]) -> None:
    """Hand out all but the first, so that none waits for another, and decide that one here."""
    for signal_id in signal_ids[1:]:
        process_signal.apply_async((signal_id,), retry=False)
    process_signal(signal_ids[0])


def _decided(signal: Signal) -> pipeline.Decision | None:
    waited = timezone.now() - signal.received_at
    metrics.stage_seconds["queue"].observe(waited.total_seconds())
    try:
        return pipeline.decide(signal)
    except Exception as error:
        # The task boundary: a defect must not block the lane for ever, nor vanish.
        logger.exception("deciding a signal failed", extra={"signal_id": signal.pk})
        pipeline.fail(signal, error)
        return None


def _run_or_nudge(account_id: int, symbol: str, *, alone: bool) -> None:
    """One lane is run here and now; several are handed out, so that none waits for another."""
    if alone:
        run_lane(account_id, symbol)
    else:
        run_lane.apply_async((account_id, symbol), retry=False)


@shared_task
def run_lane(account_id: int, symbol: str) -> None:
    """Send what the lane holds, then settle the signals behind it and wake those that waited."""
    handled = dispatch.run_lane(account_id, symbol)
    _after(handled)
    if handled:
        _wake_crowded_out(account_id)
    for order in handled:
        if order.state not in TERMINAL and order.next_check_at is not None:
            check_order.apply_async((str(order.pk),), countdown=0.1, retry=False)


@shared_task
def check_order(order_id: str) -> None:
    """Ask the venue about a working or unknown order."""
    order = Order.objects.select_related("account").filter(pk=order_id).first()
    if order is None or order.state in TERMINAL:
        return
    if order.state in (OrderState.PENDING, OrderState.SUBMITTING):
        return
    state, filled = order.state, order.filled_quantity
    reconcile.check_order(order)
    order.refresh_from_db()
    if (order.state, order.filled_quantity) == (state, filled):
        return
    _after([order])
    if state in UNRESOLVED and order.state not in UNRESOLVED:
        run_lane(order.account_id, order.symbol)


@shared_task
def cancel_order(order_id: str, reason: str = ReasonCode.CANCELED_BY_OPERATOR.value) -> None:
    """Cancel an order and read back how it ended."""
    order = Order.objects.select_related("account").filter(pk=order_id).first()
    if order is None or order.state in TERMINAL:
        return
    code = ReasonCode(reason)
    who = _ASKED_BY.get(code, "an operator")
    before = order.state
    dispatch.cancel(order, reason=code, detail=f"cancel asked for by {who}")
    order.refresh_from_db()
    if order.state == OrderState.CANCELING:
        reconcile.check_order(order)
        order.refresh_from_db()
    # Waking those who wait for a cancel that changed nothing would make them ask for it again.
    if order.state != before:
        _after([order])


def _cancel(order_ids: Iterable[UUID]) -> None:
    for order_id in order_ids:
        cancel_order(str(order_id), ReasonCode.CANCELED_BY_SIGNAL.value)


def _after(orders: Iterable[Order]) -> None:
    """Settle the signals of ``orders`` and wake signals that waited for their lanes."""
    for signal_id in {order.signal_id for order in orders if order.signal_id}:
        pipeline.settle(signal_id)
    for order in orders:
        # An exit that rests at the venue holds the coins it needs already.
        if order.role == Order.Role.EXIT and order.state in TERMINAL | AT_VENUE:
            protect.resume(order.account_id, order.symbol)
    for account_id, symbol in {(order.account_id, order.symbol) for order in orders}:
        _wake(account_id, symbol)
        guard(account_id, symbol)


@shared_task
def guard(account_id: int, symbol: str) -> None:
    """Bring a position's stop in line with it."""
    account = Account.objects.get(pk=account_id)
    try:
        todo = protect.align(account, symbol)
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
    for order_id in todo.cancels:
        cancel_order.apply_async((str(order_id), ReasonCode.REPLACED.value), retry=False)
    if todo.run_lane:
        run_lane.apply_async((account_id, symbol), retry=False)


@shared_task
def watch(account_id: int) -> None:
    """Look whether the market has reached a target, or passed a stop that is not at the venue.

    One thread per account: a venue that hangs must not hold them all.
    """
    with exclusive(Work.WATCH, account_id) as mine:
        sent = watching.watch(account_id) if mine else []
    for signal_id in sent:
        process_signal.apply_async((str(signal_id),), retry=False)


def _wake_crowded_out(account_id: int) -> None:
    """Lanes of the account that found it crowded try again."""
    for lane_account, symbol in _waiting_lanes(account_id)[: lanes.MAX_UNDER_WAY]:
        run_lane.apply_async((lane_account, symbol), retry=False)


def _wake(account_id: int, symbol: str) -> None:
    for signal_id in pipeline.waiting_for(account_id, symbol):
        process_signal.apply_async((str(signal_id),), retry=False)


@shared_task
def sweep() -> None:
    """Find what was left behind by a lost message or a dead worker, and send it on its way.

    One sweep at a time: a second one finds the lock taken and leaves. Beat published this.
    """
    _beat("beat")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SWEEP_LOCK])
            (mine,) = cursor.fetchone()
        if not mine:
            return
        due = _due_orders()
    now = timezone.now()
    for order in lanes.lease_ended_before(now):
        lanes.lose_sight(order)
        check_order.apply_async((str(order.pk),), retry=False)
    for order_id in due:
        check_order.apply_async((str(order_id),), retry=False)
    for account_id, symbol in _waiting_lanes():
        run_lane.apply_async((account_id, symbol), retry=False)
    for signal_id in _undecided_signals():
        process_signal.apply_async((str(signal_id),), retry=False)
    for signal_id in _unsettled_signals():
        pipeline.settle(signal_id)
    for account_id in Account.objects.filter(
        is_active=True, reconciled_at__isnull=True
    ).values_list("pk", flat=True):
        reconcile_account.apply_async((account_id,), retry=False, expires=5)
    for account_id, symbol in protect.due(now - GUARD_EVERY):
        guard.apply_async((account_id, symbol), retry=False, expires=10)
    for account_id in watching.watched_accounts():
        watch.apply_async((account_id,), retry=False, expires=5)
    watching.alarm()


def _due_orders() -> list[UUID]:
    """Working orders whose next question is due; the next one is put off so that nobody asks twice."""
    now = timezone.now()
    due = (
        Order.objects.select_for_update(skip_locked=True, no_key=True)
        .filter(next_check_at__lte=now)
        .exclude(state__in=(OrderState.PENDING, OrderState.SUBMITTING, *TERMINAL))
        .order_by("next_check_at")
        .values_list("pk", flat=True)[:BATCH]
    )
    ids = list(due)
    Order.objects.filter(pk__in=ids).update(next_check_at=now + timedelta(seconds=15))
    return ids


def _waiting_lanes(account_id: int | None = None) -> list[tuple[int, str]]:
    """Lanes with something to send: of one account, or of all where it was left behind."""
    now = timezone.now()
    of_account = Q(account_id=account_id)
    left_behind = Q(updated_at__lt=now - LEFT_BEHIND)
    lanes = (
        Order.objects.filter(left_behind if account_id is None else of_account)
        .filter(state=OrderState.PENDING)
        .exclude(next_check_at__gt=now)
        .values_list("account_id", "symbol")
        .distinct()
        .order_by()
    )
    return list(lanes[:BATCH])


def _undecided_signals() -> list[UUID]:
    """The oldest undecided signal of each (strategy, symbol)."""
    old = timezone.now() - LEFT_BEHIND
    rows = (
        Signal.objects.filter(state=SignalState.RECEIVED, received_at__lt=old)
        .order_by("strategy_id", "symbol", "id")
        .distinct("strategy_id", "symbol")
        .values_list("pk", flat=True)
    )
    return list(rows[:BATCH])


def _unsettled_signals() -> list[UUID]:
    unfinished = pipeline.own_orders(OuterRef("pk")).exclude(state__in=TERMINAL)
    rows = Signal.objects.filter(~Exists(unfinished), state=SignalState.WORKING)
    return list(rows.values_list("pk", flat=True)[:BATCH])


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
            found = reconcile.reconcile_account(account) if mine else []
    except (BrokerError, Refusal) as error:
        logger.warning("reconciliation of %s is not possible now: %s", account.name, error)
        return
    for difference in found:
        logger.warning("%s: %s", difference, difference.detail)
    for lane_account, symbol in _waiting_lanes(account_id):
        run_lane.apply_async((lane_account, symbol), retry=False)


@shared_task
def seal_audit() -> None:
    """Link what was recorded since the last time into the audit chain."""
    sealing.seal()


@worker_init.connect
def require_reconciliation(**_: object) -> None:
    """After a standstill no account trades before it has been compared with its venue."""
    alive = Heartbeat.objects.filter(name="worker", at__gt=timezone.now() - STANDSTILL).exists()
    if not alive:
        Account.objects.update(reconciled_at=None)


@worker_ready.connect
def show_signs_of_life(**_: object) -> None:
    """This process notes that it lives, whatever its tasks and beat are doing."""
    threading.Thread(target=_keep_beating, name="heartbeat", daemon=True).start()


def _keep_beating() -> None:
    while True:
        try:
            _beat("worker")
        except Error as error:
            logger.warning("no sign of life could be noted: %s", type(error).__name__)
            connection.close()
        time.sleep(HEARTBEAT_SECONDS)


def _beat(name: str) -> None:
    Heartbeat.objects.update_or_create(name=name, defaults={"at": timezone.now()})


def _publish(signal_ids: list[str]) -> None:
    process_signals.apply_async((signal_ids,), retry=False)


_nudger = Nudger(_publish)


def nudge_signal(signal_id: str) -> None:
    """Wake a worker for ``signal_id`` without waiting for the queue."""
    _nudger.send(signal_id)
