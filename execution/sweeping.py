"""What a lost message or a dead worker left behind: what ``sweep`` asks the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.postgres.aggregates import BoolOr
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Value
from django.utils import timezone

from brokers.prepared import Prepared, given
from execution import cancels, flatten, halting
from execution.decisions import NOBODY_ASKED
from execution.lanes import LONGEST_WAIT
from execution.legs import own_orders
from execution.models import Order, Signal
from execution.states import TERMINAL, UNSENT, OrderState, SignalState

LEFT_BEHIND = timedelta(seconds=1)
BATCH = 200
SWEEP_LOCK = 0x464B5302


def due_orders() -> list[UUID] | None:
    """Working orders whose next question is due; ``None`` while another sweep is asking the same."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SWEEP_LOCK])
            (mine,) = cursor.fetchone()
        return _due_orders() if mine else None


def _due_orders() -> list[UUID]:
    """Working orders whose next question is due; the next one is put off so that nobody asks twice.
    While they were overdue nobody asked, and no venue was silent: see ``decisions.silent_since``.
    """
    now = timezone.now()
    due = (
        Order.objects.select_for_update(skip_locked=True, no_key=True)
        .filter(next_check_at__lte=now)
        .exclude(state__in=(*UNSENT, OrderState.SUBMITTING, *TERMINAL))
        .order_by("next_check_at")
        .values_list("pk", "next_check_at")[:BATCH]
    )
    due_at = dict(due)
    overdue = [order for order, at in due_at.items() if at is not None and now - at > NOBODY_ASKED]
    if overdue:
        missed = now - F("next_check_at")
        Order.objects.filter(pk__in=overdue).update(unanswered_since=F("unanswered_since") + missed)
    Order.objects.filter(pk__in=due_at).update(next_check_at=now + timedelta(seconds=15))
    return list(due_at)


def waiting_lanes() -> list[tuple[int, str]]:
    """Lanes that were left behind with something to send, those with exits first. Of more than one
    sweep takes, some at random, so that those that cannot go on hide no others for long.
    """
    now = timezone.now()
    lanes_left = _lanes(now, now + LONGEST_WAIT).exclude(updated_at__range=(now - LEFT_BEHIND, now))
    found = lanes_left.order_by("?")
    exits = [(account, symbol) for account, symbol, has_exit in found if has_exit]
    entries = [(account, symbol) for account, symbol, has_exit in found if not has_exit]
    return exits[:BATCH] + entries[:BATCH]


def lanes_of(account_id: int) -> list[tuple[int, str]]:
    """Lanes of an account with something to send, those with exits first."""
    now = timezone.now()
    rows = _lanes_of(account=account_id, now=now, longest=now + LONGEST_WAIT)
    return [(account, symbol) for account, symbol, _ in rows]


@Prepared
def _lanes_of() -> QuerySet[Order, tuple[int, str, bool]]:
    of_account = _lanes(given("now"), given("longest")).filter(account=given("account"))
    return of_account.order_by(F("has_exit").desc(), "?")[:BATCH]


def _lanes(
    now: datetime | Value, longest: datetime | Value
) -> QuerySet[Order, tuple[int, str, bool]]:
    waits = Q(next_check_at__gt=now, next_check_at__lte=longest)
    pending = Order.objects.filter(~waits, state=OrderState.PENDING)
    lanes = pending.order_by().values_list("account_id", "symbol")
    return lanes.annotate(has_exit=BoolOr(~Q(role=Order.Role.ENTRY)))


def undecided_signals() -> list[UUID]:
    """The oldest undecided signal of each queue; of more than one sweep takes, some at random."""
    now = timezone.now()
    oldest = (
        Signal.objects.filter(state=SignalState.RECEIVED)
        .exclude(received_at__range=(now - LEFT_BEHIND, now))
        .order_by("strategy_id", "symbol", "alert__account", "id")
        .distinct("strategy_id", "symbol", "alert__account")
    )
    rows = Signal.objects.filter(pk__in=oldest.values("pk")).order_by("?")
    return list(rows.values_list("pk", flat=True)[:BATCH])


def unsettled_signals() -> list[UUID]:
    unfinished = own_orders(OuterRef("pk")).exclude(state__in=TERMINAL)
    rows = Signal.objects.filter(~Exists(unfinished), state=SignalState.WORKING)
    return list(rows.values_list("pk", flat=True)[:BATCH])


def accounts_to_wind_down() -> set[int]:
    """Accounts with a cancel still to be sent, or a position the kill switch has yet to close."""
    held = flatten.held_by(halting.flattening())
    return {*cancels.due_accounts(), *(position.account_id for position in held)}
