"""After the database went back in time: nothing is sent before accounts are compared with venues.

What happened between the backup and now is at the venues and not in our rows. Whatever was on its way
may have been sent meanwhile, so it counts as unknown and is looked for by its id.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from brokers.models import Account
from execution import cancels
from execution.comparison import coin_of
from execution.differences import blocks_entries
from execution.models import Difference, Heartbeat, Order, Protection, Signal
from execution.states import AT_VENUE, HELD, TERMINAL, UNSENT, OrderState, SignalState
from execution.transitions import Event, move
from risk import audit, switch
from risk.models import TradingState
from risk.types import ReasonCode


@dataclass(frozen=True, slots=True)
class Held:
    """How much was held back."""

    orders: int
    signals: int
    accounts: int


def hold_everything(made_at: str) -> Held:
    """Halt trading and hold back what a backup of ``made_at`` would repeat; in the transaction that
    restores it.
    """
    reason = f"restored from a backup of {made_at}: compare the books before trading resumes"
    Heartbeat.objects.all().delete()
    accounts = Account.objects.update(reconciled_at=None)
    _doubt_protections()
    _send_no_closes()
    orders = _doubt_orders()
    signals = Signal.objects.filter(state=SignalState.RECEIVED).update(
        state=SignalState.EXPIRED,
        reason=ReasonCode.STALE.value,
        detail="it was undecided when the backup was made; what became of it is not known here",
        decided_at=timezone.now(),
        finished_at=timezone.now(),
    )
    _drop_wishes(reason)
    switch.change(TradingState.State.HALTED, reason=reason)
    audit.record("backup.restored", "database", after={"made_at": made_at}, reason=reason)
    return Held(orders, signals, accounts)


def _doubt_protections() -> None:
    """The venue may hold a stop that was placed since, or the position no more; also where an open
    entry has filled since, which the book learns of later.
    """
    entries = Order.objects.filter(
        role=Order.Role.ENTRY, parent=None, signal__alert__stop_loss__isnull=False
    ).exclude(state__in=TERMINAL)
    Protection.objects.bulk_create(
        [
            Protection(
                account_id=entry.account_id,
                symbol=entry.symbol,
                entry=entry,
                is_active=False,
                detail="nothing had filled yet when the backup was made",
            )
            for entry in entries.order_by("id")
        ],
        ignore_conflicts=True,
    )
    # What ends below because it is not sent was refused by nobody.
    Protection.objects.update(is_doubted=True, guard_again_at=timezone.now())


def note_compared(account: Account, *, left_out: Collection[str]) -> None:
    """Doubt no more where nothing was held and a comparison has found the books to agree; active
    protections see to that themselves.
    """
    doubted = Protection.objects.filter(account=account, is_active=False, is_doubted=True)
    agree = [
        plan.pk
        for plan in doubted
        if coin_of(plan.symbol) not in left_out and not blocks_entries(account.pk, plan.symbol)
    ]
    doubted.filter(pk__in=agree).update(is_doubted=False)


def _drop_wishes(reason: str) -> None:
    """What was to be closed or cancelled at the venue was asked for by people who saw other books."""
    for row in TradingState.objects.filter(flatten=True):
        scope = TradingState.Scope(row.scope)
        state = TradingState.State(row.state)
        switch.change(state, scope=scope, key=row.key, flatten=False, reason=reason)
    # Orders in slices end nevertheless: else they would go on when trading resumes.
    canceled = cancels.left().exclude(state=OrderState.SLICING)
    canceled.exclude(state__in=AT_VENUE).update(expires_at=timezone.now())  # looked for, never sent
    canceled.update(cancel_reason="", cancel_asked_by="")
    asked = Difference.objects.filter(state__in=Difference.ASKED)
    # What our book took in to close it, it gives back when those orders have ended.
    asked = asked.exclude(Difference.BEING_CLOSED)
    asked.update(state=Difference.State.OPEN, reason="", resolved_by="", resolved_at=None)


def _send_no_closes() -> None:
    """A close or a stop that was on its way is looked for, and never sent: no halt would keep it from
    selling what was closed since. What is still to be closed or guarded the compared books say.
    """
    leaving = Order.objects.filter(role__in=(Order.Role.FLATTEN, Order.Role.STOP_LOSS))
    on_their_way = (*UNSENT, OrderState.SUBMITTING, OrderState.UNKNOWN)
    leaving.filter(state__in=on_their_way).update(expires_at=timezone.now())


def _doubt_orders() -> int:
    on_their_way = Order.objects.filter(state__in=(*UNSENT, OrderState.SUBMITTING))
    doubted = list(on_their_way.order_by("state", "id"))
    # Those that were being sent first: a lane holds one such order at a time.
    for order in sorted(doubted, key=lambda one: one.state != OrderState.SUBMITTING):
        now = timezone.now()
        columns: dict[str, Any] = {"next_check_at": now}
        if order.state == OrderState.PENDING:
            move(order, Event.CLAIM, attempt=order.attempt + 1, submitted_at=now)
        elif order.state in HELD:
            # Nobody approved it here: it may be looked for, and never sent.
            columns |= {"submitted_at": now, "expires_at": now}
        move(
            order,
            Event.LOSE_SIGHT,
            detail="restored from a backup: it may have been sent since",
            reason=ReasonCode.VENUE_UNREACHABLE.value,
            **columns,
        )
    return len(doubted)
