"""Orders worked in slices: following what the slices came to, and ending early.

The parent is decided and reserved whole, like any order, and is never sent. Its slices are ordinary
orders: they take the lane, may end unknown, and fill. Everything here starts from the rows, so it may
run at any time, beside itself, and after a crash. Whatever ends a parent early cancels what rests of
it. ``next_slice`` makes the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import takewhile
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from brokers.types import OrderType
from execution import backoff, cancels, positions, slicing, timeliness
from execution.closable import held_against, left_for
from execution.models import Fill, Order, SlicePlan
from execution.states import TERMINAL, OrderState
from execution.transitions import Event, move
from risk import switch
from risk.arithmetic import text
from risk.types import ReasonCode, Refusal

ZERO = Decimal(0)
BATCH = 200
WAITS_FOR_OTHERS = "other exits under way are to take off all that is held"
_RESTING = (OrderState.OPEN, OrderState.PARTIALLY_FILLED)
_CUT_SHORT = (OrderState.CANCELED, OrderState.EXPIRED)
_ENDS = {
    ReasonCode.VENUE_REJECTED: Event.REJECT,
    ReasonCode.EXPIRED_BEFORE_SENDING: Event.EXPIRE,
}


def under_way() -> list[tuple[UUID, bool]]:
    """Parents to look after, and whether each leaves a position; of more than one sweep takes, some at
    random.
    """
    rows = SlicePlan.objects.filter(order__state=OrderState.SLICING).order_by("?")
    roles = rows.values_list("pk", "order__role")[:BATCH]
    return [(parent_id, role == Order.Role.EXIT) for parent_id, role in roles]


def follow(parent_id: UUID) -> Order:
    """Bring the parent in line with its slices; returns it as it is then."""
    with transaction.atomic():
        plan = SlicePlan.objects.select_for_update(of=("self",)).get(pk=parent_id)
        rows = Order.objects.select_related("account", "strategy", "signal__strategy")
        parent = rows.get(pk=parent_id)
        # Asked before the fills: what has ended by now has them all on record.
        is_working = any(_keeps(parent, one) for one in slices_of(parent, alive=True))
        fills = Fill.objects.filter(order__parent=parent).values_list("quantity", "price")
        filled, average = positions.totals(list(fills))
        filled = min(filled, parent.quantity)
        event = _event(parent, filled, is_working=is_working)
        if event is not None:
            columns: dict[str, Any] = {"filled_quantity": filled, "average_price": average}
            if event is not Event.FILL_PARTLY and parent.state not in TERMINAL:
                columns["reason"] = parent.cancel_reason
            move(parent, event, detail=_said(parent, plan, filled), **columns)
        return parent


def _keeps(parent: Order, one: Order) -> bool:
    """Whether the parent cannot end before its slice ``one`` has: not for one that only a person can
    find out about, once it is to end. Should that trade after all, it is booked as a correction.
    """
    return not parent.cancel_reason or one.state != OrderState.NEEDS_OPERATOR


def _event(parent: Order, filled: Decimal, *, is_working: bool) -> Event | None:
    has_news = filled != parent.filled_quantity
    if parent.state in TERMINAL:
        return Event.LATE_FILL if has_news and parent.state != OrderState.DENIED else None
    if is_working:
        return Event.FILL_PARTLY if has_news else None
    if filled >= parent.quantity:
        return Event.FILL
    if parent.cancel_reason:
        return _ENDS.get(ReasonCode(parent.cancel_reason), Event.CANCEL)
    return Event.FILL_PARTLY if has_news else None


def _said(parent: Order, plan: SlicePlan, filled: Decimal) -> str:
    so_far = f"{plan}; {text(filled)} of {text(parent.quantity)} filled in {plan.started}"
    return f"{so_far}: {plan.detail}" if plan.detail else so_far


def slices_of(parent: Order, *, alive: bool = False) -> list[Order]:
    """The parent's slices in their order; only those that have not ended, if ``alive``."""
    rows = Order.objects.filter(parent=parent).order_by("slice_number")
    return list(rows.exclude(state__in=TERMINAL) if alive else rows)


def end(parent: Order, reason: ReasonCode, why: str) -> list[Order]:
    """No further slice starts, and what is under way is wanted gone; returns that. A wish that is on
    the parent already stays."""
    with transaction.atomic():
        plan = SlicePlan.objects.select_for_update(of=("self",)).get(pk=parent.pk)
        if plan.next_at is not None:
            SlicePlan.objects.filter(pk=plan.pk).update(next_at=None, detail=why)
        mine = Order.objects.filter(Q(pk=parent.pk) | Q(parent=parent), cancel_reason="")
        cancels.want(mine, reason, why[:150])
        return slices_of(parent, alive=True)


def demand(parent: Order, plan: SlicePlan) -> tuple[ReasonCode, str] | None:
    """Why the parent has to end now; ``None`` while it may go on."""
    return _why_ended(parent, plan) or (
        _left(parent) if parent.is_exit else _overtaken(parent, plan)
    )


def _why_ended(parent: Order, plan: SlicePlan) -> tuple[ReasonCode, str] | None:
    if failed := next((one for one in slices_of(parent) if has_failed(one, plan)), None):
        return _code_of(failed), _failure(failed)
    try:
        refuse_forbidden(parent)
    except Refusal as refusal:
        return refusal.code, refusal.detail
    return None


def _left(parent: Order) -> tuple[ReasonCode, str] | None:
    """Whether a stop or somebody else has closed what the parent was to close."""
    if held_against(parent) > ZERO:
        return None
    return ReasonCode.NOTHING_TO_CLOSE, "the position has been closed meanwhile"


def _overtaken(parent: Order, plan: SlicePlan) -> tuple[ReasonCode, str] | None:
    if not plan.started and parent.expires_at and parent.expires_at < timezone.now():
        return ReasonCode.EXPIRED_BEFORE_SENDING, "the alert became too old before the first slice"
    is_late = plan.algorithm == slicing.TWAP and timezone.now() > slicing.pace_of(plan).gives_up_at
    if is_late and left_of(parent, slices_of(parent)) > ZERO:
        return ReasonCode.EXPIRED_BEFORE_SENDING, "its time was over before all was sent"
    closed = Order.objects.filter(
        account=parent.account_id,
        symbol=parent.symbol,
        role__in=(Order.Role.STOP_LOSS, Order.Role.FLATTEN),
        filled_quantity__gt=ZERO,
        updated_at__gt=plan.begins_at,
    )
    if closed.exists():
        return ReasonCode.CANCELED_BY_SIGNAL, "the position it builds has been left meanwhile"
    return None


def refuse_forbidden(parent: Order) -> None:
    """What an operator may have switched off since the parent was accepted. Raises Refusal.

    An exit goes on when its strategy is disabled, as one does that waits in its lane.
    """
    if parent.signal is None or parent.strategy is None:
        raise Refusal(ReasonCode.NO_ROUTE, "nobody asked for this order")
    if not parent.is_exit:
        timeliness.refuse_disabled(parent.signal)
    if not parent.account.is_active:
        detail = f"the account {parent.account.name} is switched off"
        raise Refusal(ReasonCode.ACCOUNT_INACTIVE, detail)
    switch.refuse_if_switched_off(
        account=parent.account.name,
        venue=parent.account.venue,
        symbol=parent.symbol,
        strategy=parent.strategy.slug,
        is_exit=parent.is_exit,
    )


def has_failed(one: Order, plan: SlicePlan) -> bool:
    """Whether the slice ended in a way that says of the next one that it would fare no better."""
    if one.state not in TERMINAL or one.state == OrderState.FILLED:
        return False
    if one.cancel_reason == ReasonCode.REPLACED:
        return False  # it was more than is held by now: a smaller one takes its place
    return bool(one.cancel_reason) or not _goes_back(one, plan)


def _goes_back(one: Order, plan: SlicePlan) -> bool:
    """Whether what the slice left unfilled is simply sent again: it never rested, or never left. A
    limit order has its time: that of a TWAP, else that of the slice.
    """
    if one.state not in _CUT_SHORT or one.acknowledged_at is None:
        return one.state in _CUT_SHORT
    has_time = plan.algorithm == slicing.TWAP or one.type == OrderType.MARKET
    return one.is_immediate and has_time


def _code_of(failed: Order) -> ReasonCode:
    if failed.cancel_reason:
        return ReasonCode(failed.cancel_reason)
    if failed.is_immediate and failed.state in _CUT_SHORT:
        return ReasonCode.CANCELED_BY_SIGNAL
    if failed.state == OrderState.EXPIRED:
        return ReasonCode.EXPIRED_BEFORE_SENDING
    if _was_refused(failed):
        return ReasonCode(failed.reason)
    return ReasonCode.VENUE_REJECTED


def _was_refused(failed: Order) -> bool:
    """Whether we kept the slice from being sent, or from being sent again."""
    if failed.state not in (OrderState.DENIED, OrderState.NOT_PLACED):
        return False
    ended = failed.journal.filter(from_state=OrderState.PENDING, to_state=failed.state)
    return ended.exists()


def _failure(failed: Order) -> str:
    why = failed.detail or failed.reason or failed.get_state_display()
    return f"slice {failed.slice_number} ended {failed.get_state_display()}: {why}"


def is_due(parent: Order, plan: SlicePlan) -> bool:
    """Whether the next slice may start now: its time has come, nothing is uncertain, and something is
    left. An iceberg shows one slice at a time, and one that found no market is tried again after a
    pause. What the venue lets only reduce goes on beside a slice that needs an operator."""
    now = timezone.now()
    if parent.state != OrderState.SLICING or parent.cancel_reason:
        return False
    if plan.next_at is None or plan.next_at > now:
        return False
    slices = slices_of(parent)
    settled = TERMINAL | {OrderState.NEEDS_OPERATOR} if parent.reduce_only else TERMINAL
    alive = [one for one in slices if one.state not in settled]
    if plan.algorithm == slicing.ICEBERG and (alive or backoff.is_pausing(_in_vain(slices))):
        return False
    if any(one.state not in _RESTING or one.cancel_reason for one in alive):
        return False
    return left_of(parent, slices) > 0


def _in_vain(slices: Sequence[Order]) -> list[Order]:
    """The last slices, the latest first, as far back as nothing of them traded at once."""
    return list(takewhile(lambda one: one.is_immediate and not one.filled_quantity, slices[::-1]))


def left_of(parent: Order, slices: Sequence[Order]) -> Decimal:
    """What has not been given to a slice, or came back from one; of an exit no more than is held and
    no other exit takes off.
    """
    given = (one.filled_quantity if one.state in TERMINAL else one.quantity for one in slices)
    rest = max(parent.quantity - sum(given, ZERO), ZERO)
    return min(rest, left_for(parent)) if parent.is_exit else rest


def fit_to_position(parent: Order) -> None:
    """Have the latest slices of an exit cancelled that could sell more than is held by now: a stop may
    have filled, or somebody have sold elsewhere. What is left is divided anew. Where other exits are
    to sell all of it, the plan says that it waits for them.
    """
    with transaction.atomic():
        plan = SlicePlan.objects.select_for_update(of=("self",)).get(pk=parent.pk)
        # Asked before the slices: one that fills in between is not taken for too much.
        held = held_against(parent)
        alive = slices_of(parent, alive=True)
        excess = sum((one.remaining for one in alive), ZERO) - held
        too_much = []
        for one in reversed(alive):
            if excess <= ZERO:
                break
            excess -= one.remaining
            too_much.append(one.pk)
        rows = Order.objects.filter(pk__in=too_much, cancel_reason="")
        cancels.want(rows, ReasonCode.REPLACED, "the position has become smaller")
        if not alive and plan.next_at and not left_for(parent):
            SlicePlan.objects.filter(pk=plan.pk).update(detail=WAITS_FOR_OTHERS)
