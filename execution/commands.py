"""What operators do through the REST API. The caller attributes it (``audit.acting``).

Nothing here talks to a venue: that is for the workers, which alone load broker SDKs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError
from rest_framework.exceptions import APIException

from brokers.models import Account, Instrument
from brokers.types import OrderType, Side, TimeInForce
from execution import (
    account_tasks,
    adoptions,
    approvals,
    cancels,
    dispatch,
    dispositions,
    flatten,
    halting,
    intake,
    manual,
    tasks,
    waiting,
)
from execution.alerts import Action, Alert
from execution.models import Adoption, Order, Protection, Signal
from execution.proposable import press_or_propose
from execution.states import AT_VENUE, TERMINAL, UNRESOLVED, UNSENT, OrderState, SignalState
from execution.transitions import Event, move
from risk import audit, breakers, proposals
from risk.arithmetic import text
from risk.models import CircuitBreaker, Proposal, TradingState
from risk.prices import refuse_misplaced
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)


class Refused(APIException):
    """Understood, and refused for a reason that has a code."""

    status_code = 422

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code)


class Conflict(Refused):
    """The row's present state does not allow it."""

    status_code = 409


class Forbidden(Refused):
    """Another person may do it."""

    status_code = 403


def place(alert: Alert, *, key: str, reason: str, seconds: float) -> tuple[Signal, Order | None]:
    """Have an operator's order decided, and sent if risk allows it, waiting up to ``seconds``.

    The order is ``None`` while it is undecided. Raises Refused with the reason code when it was
    denied, which is kept on the rows, and with KEY_REUSED where ``key`` stands for another order.
    """
    accepted = _submit(alert, key, reason)
    waiting.wait_for(accepted.signal_id, seconds)
    signal = Signal.objects.get(pk=accepted.signal_id)
    orders = Order.objects.filter(signal=signal).select_related("account", "strategy")
    order = orders.order_by("id").first()  # what protects it comes later
    if order is not None and order.state == OrderState.DENIED:
        raise Refused(order.reason, order.detail)
    if order is None and signal.state != SignalState.RECEIVED:
        raise Refused(signal.reason, signal.detail)
    return signal, order


def cancel(order: Order, reason: str) -> None:
    """Cancel ``order`` here and now while it is unsent, else have a worker ask the venue.

    The wish is on the order's row when this returns, and is repeated until the venue has answered;
    an order of unknown fate is cancelled once it is found. Raises Conflict when it has ended.
    """
    if order.state in TERMINAL:
        raise Conflict("ORDER_ENDED", f"the order has ended: {order.state}")
    who = audit.current_actor().name
    with transaction.atomic():
        cancels.want(Order.objects.filter(pk=order.pk), ReasonCode.CANCELED_BY_OPERATOR, who)
        audit.record(
            "order.cancel_asked",
            f"order {order.pk}",
            before={"state": order.state},
            reason=reason,
            correlation_id=str(order.signal_id or ""),
        )
        if order.state in UNSENT:
            detail = f"cancel asked for by {who}"
            dispatch.cancel(order, reason=ReasonCode.CANCELED_BY_OPERATOR, detail=detail)
    if order.state not in TERMINAL:
        _wake(tasks.cancel_order, str(order.pk))
    elif order.signal_id is not None:
        dispositions.settle(order.signal_id)


def decide_on_order(order: Order, user: User, *, approve: bool, note: str) -> None:
    """Approve or reject an order that waits for it. Raises Forbidden or Conflict with the code of what
    is wrong; of two people who decide at once, the second one gets the Conflict.
    """
    act = approvals.approve if approve else approvals.reject
    try:
        act(order, user, note)
    except approvals.NotDecided as error:
        refused = Forbidden if error.code == "OWN_ORDER" else Conflict
        raise refused(error.code, str(error)) from error
    if approve:
        _wake(tasks.release_order, str(order.pk))
    elif order.signal_id is not None:
        dispositions.settle(order.signal_id)


def ask_venue(order: Order, reason: str) -> None:
    """Have a worker ask the venue about ``order`` now rather than when it is next due.

    Raises Conflict where there is nothing to ask about: it has ended, or has not been sent.
    """
    if order.state not in AT_VENUE | UNRESOLVED:
        raise Conflict("NOTHING_TO_ASK", f"the order is {order.get_state_display()}")
    with transaction.atomic():
        Order.objects.filter(pk=order.pk, state=order.state).update(next_check_at=timezone.now())
        audit.record(
            "order.asked_about",
            f"order {order.pk}",
            before={"state": order.state},
            reason=reason,
            correlation_id=str(order.signal_id or ""),
        )
    _wake(tasks.check_order, str(order.pk))


def mark_ended(order: Order, reason: str) -> None:
    """Take an operator's word that an order nobody could find is not at the venue.

    It ends as NOT_PLACED, or as CANCELED where part of it had traded. Should the venue show it after
    all, that is booked as a correction. Raises Conflict unless it waits for an operator.
    """
    if order.state != OrderState.NEEDS_OPERATOR:
        raise Conflict("NOT_WAITING", f"the order is {order.get_state_display()}")
    event, code = Event.PROVE_ABSENT, ReasonCode.NOT_PLACED
    if order.filled_quantity:
        event, code = Event.CANCEL, ReasonCode.CANCELED_BY_OPERATOR
    with transaction.atomic():
        if not move(order, event, detail=f"an operator's word: {reason}", reason=code.value):
            raise Conflict("NOT_WAITING", f"the order is {order.get_state_display()} by now")
        audit.record(
            "order.marked_ended",
            f"order {order.pk}",
            before={"state": OrderState.NEEDS_OPERATOR.value},
            after={"state": str(order.state)},
            reason=reason,
            correlation_id=str(order.signal_id or ""),
        )
    if order.signal_id is not None:
        dispositions.settle(order.signal_id)
    _wake(tasks.run_lane, order.account_id, order.symbol)


def adopt(order: Order, broker_order_id: str, reason: str) -> Adoption:
    """Have a worker ask the venue for its order ``broker_order_id``, which an operator takes for
    ``order``. Raises Conflict with the reason code of what stands against it.
    """
    try:
        row = adoptions.ask(order, broker_order_id, reason)
    except Refusal as refusal:
        raise Conflict(refusal.code.value, refusal.detail) from refusal
    _wake(tasks.adopt_order, row.pk)
    return row


def take_over(adoption: Adoption) -> None:
    """Have a worker take over what the venue said, once it has said it again. Raises Conflict."""
    try:
        adoptions.take(adoption)
    except Refusal as refusal:
        raise Conflict(refusal.code.value, refusal.detail) from refusal
    _wake(tasks.adopt_order, adoption.pk)


def amend(
    order: Order, *, price: Decimal | None, quantity: Decimal | None, key: str, reason: str
) -> Signal:
    """Have ``order`` replaced by one with another price or quantity; what is not given stays.

    It is cancelled, seen cancelled, and only then placed anew, by the way of any manual order: with a
    new identity, through every limit, and for ``quantity`` less what has traded. Its position is
    guarded as it would have been. The same ``key`` of the same person finds the first amend, also
    when that has ended ``order``. Raises Conflict for an order that has no price or does not work,
    and where the new one is known to be refused: that must not cost the old one.
    """
    alert = Alert(
        symbol=order.symbol,
        account=order.account.name,
        action=Action(order.side),
        order_type=OrderType(order.type),
        quantity=quantity or order.quantity,
        price=price or order.price,
        stop_price=order.stop_price,
        time_in_force=TimeInForce(order.time_in_force),
        post_only=order.post_only,
        reduce_only=order.is_exit,
        replaces=str(order.pk),
    )
    if first := _first_of(alert, key):
        return first
    _refuse_unamendable(order)
    alert = replace(alert, **_guards(order))
    _refuse_undecidable(alert, order)
    return Signal.objects.get(pk=_submit(alert, key, reason).signal_id)


def _refuse_unamendable(order: Order) -> None:
    if order.parent_id is not None:
        raise Conflict("NOT_AMENDABLE", "it is a slice; cancel the order it belongs to instead")
    if order.type not in (OrderType.LIMIT, OrderType.STOP_LIMIT):
        raise Conflict("NOT_AMENDABLE", f"a {order.get_type_display()} order has no limit price")
    if order.state not in (OrderState.PENDING, OrderState.OPEN, OrderState.PARTIALLY_FILLED):
        raise Conflict("NOT_WORKING", f"the order is not working: {order.get_state_display()}")
    if order.cancel_reason:
        raise Conflict("NOT_WORKING", f"{order.cancel_asked_by} wants the order cancelled")


def _refuse_undecidable(alert: Alert, order: Order) -> None:
    """What no market can make right: a price past the stop or a target, more than the venue takes at a
    time.
    """
    if alert.price is not None:
        targets = [one.price for one in alert.take_profit]
        try:
            refuse_misplaced(Side(order.side), alert.price, alert.stop_loss, targets)
        except Refusal as refusal:
            raise Conflict(refusal.code.value, refusal.detail) from refusal
    rules = Instrument.objects.filter(account=order.account_id, symbol=order.symbol).first()
    most = rules.max_quantity if rules else None
    left = (alert.quantity or order.quantity) - order.filled_quantity
    if most is not None and left > most:
        detail = f"the venue takes no more than {text(most)} in one order; cancel it instead"
        raise Conflict(ReasonCode.SIZE_TOO_LARGE.value, detail)


def _first_of(alert: Alert, key: str) -> Signal | None:
    try:
        return manual.first_of(alert, key)
    except manual.KeyReusedError as error:
        raise Refused("KEY_REUSED", str(error)) from error


def _submit(alert: Alert, key: str, reason: str) -> intake.Accepted:
    try:
        return manual.submit(alert, key=key, reason=reason)
    except manual.KeyReusedError as error:
        raise Refused("KEY_REUSED", str(error)) from error


def _guards(order: Order) -> dict[str, Any]:
    """The stop and the targets the position of ``order`` has by now, or is to have."""
    if order.signal is None or order.is_exit:
        return {}
    plan = Protection.objects.filter(entry=order, is_active=True).first()
    if plan is not None:
        return {"stop_loss": plan.stop_price}  # its targets stay: some may have been reached
    asked = Alert.from_json(order.signal.alert)
    return {"stop_loss": asked.stop_loss, "take_profit": asked.take_profit}


def _wake(task: Any, *row: int | str) -> bool:
    """Nudge ``task`` for a row whose work is noted already; the sweep finds it in any case.

    Returns whether the queue took it.
    """
    try:
        task.apply_async(row, retry=False)
    except (OperationalError, OSError) as error:
        logger.warning("queue unreachable, the sweep will find the row: %s", error)
        return False
    return True


def compare(accounts: Iterable[Account]) -> bool:
    """Have workers compare ``accounts`` with their venues now; recorded for each.

    Returns whether the queue took it; else they are compared within a minute, as always.
    """
    taken = True
    for account in accounts:
        audit.record("account.compare_asked", f"account {account}")
        # A queue that hangs holds up the answer once, not once for each account.
        taken = taken and _wake(account_tasks.reconcile_account, account.pk)
    return taken


def reset_breaker(breaker: CircuitBreaker, reason: str) -> None:
    """Close ``breaker``, with its audit row."""
    with transaction.atomic():
        breakers.reset(breaker, reason)
    breaker.refresh_from_db()


def trip_breaker(breaker: CircuitBreaker, reason: str) -> None:
    """Open ``breaker``, with its audit row."""
    with transaction.atomic():
        breakers.trip(breaker, reason)
    breaker.refresh_from_db()


def switch_trading(
    *, mode: str, scope: str, key: str, reason: str, may: Callable[[], None]
) -> tuple[TradingState, Proposal | None]:
    """Press the kill switch, or propose to release it; the row as it is now, and the proposal.

    In force when this returns, whether the queue answers or not; what is left is repeated by the
    sweep. ``may`` raises where it must not be pressed. Raises Refused for a key nobody has, lest a
    typo halts nothing.
    """
    where = TradingState.Scope(scope)
    if where == TradingState.Scope.GLOBAL and key:
        raise Refused("KEY_NOT_EXPECTED", "the global switch has no key")
    if not halting.is_known(where, key):
        raise Refused(f"UNKNOWN_{scope.upper()}", f"there is no {scope} {key!r}")
    proposal = press_or_propose(halting.Mode(mode), where, key, reason=reason, may=may)
    row = TradingState.objects.get(scope=where, key=key)
    if proposal is not None:
        return row, proposal
    for account in flatten.accounts_left(row):
        if not _wake(account_tasks.wind_down, account.pk):
            break  # a queue that hangs holds up the answer once, not once for each account
    return row, None


def decide(proposal: Proposal, user: User, *, approve: bool, note: str) -> Proposal:
    """Approve or reject a proposal. Raises Forbidden or Conflict with the code of what is wrong."""
    act = proposals.approve if approve else proposals.reject
    try:
        return act(proposal.pk, user, note)
    except proposals.NotDecided as error:
        known = error.code in ("OWN_PROPOSAL", "NOT_ALLOWED")
        raise (Forbidden if known else Conflict)(error.code, str(error)) from error
