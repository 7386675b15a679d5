"""What operators do through the REST API. The caller attributes it (``audit.acting``).

Nothing here talks to a venue: that is for the workers, which alone load broker SDKs.
"""

from __future__ import annotations

from django.db import transaction
from kombu.exceptions import OperationalError
from rest_framework.exceptions import APIException

from brokers.models import Account
from execution import dispatch, manual, pipeline, tasks, waiting
from execution.alerts import Alert
from execution.models import Order, Signal, Strategy
from execution.states import TERMINAL, UNRESOLVED, OrderState, SignalState
from risk import audit, breakers, switch
from risk.models import CircuitBreaker, TradingState
from risk.types import ReasonCode

Scope = TradingState.Scope
NOT_KNOWN = UNRESOLVED | {OrderState.SUBMITTING}


class Refused(APIException):
    """Understood, and refused for a reason that has a code."""

    status_code = 422

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code)


class Conflict(Refused):
    """The row's present state does not allow it."""

    status_code = 409


class Unavailable(Refused):
    """It could not be passed on now; asking again may help."""

    status_code = 503


def place(alert: Alert, *, key: str, reason: str, seconds: float) -> tuple[Signal, Order | None]:
    """Have an operator's order decided, and sent if risk allows it, waiting up to ``seconds``.

    The order is ``None`` while it is undecided. Raises Refused with the reason code when it was
    denied; the denial is kept on the rows.
    """
    if not Account.objects.filter(name=alert.account).exists():
        raise Refused("UNKNOWN_ACCOUNT", f"there is no account {alert.account!r}")
    accepted = manual.submit(alert, key=key, reason=reason)
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

    Raises Conflict when it has ended or nobody knows where it is, Unavailable when no worker can be
    reached.
    """
    if order.state in TERMINAL:
        raise Conflict("ORDER_ENDED", f"the order has ended: {order.state}")
    with transaction.atomic():
        audit.record(
            "order.cancel_asked",
            f"order {order.pk}",
            before={"state": order.state},
            reason=reason,
            correlation_id=str(order.signal_id or ""),
        )
        if order.state == OrderState.PENDING:
            detail = f"cancel asked for by {audit.current_actor().name}"
            dispatch.cancel(order, reason=ReasonCode.CANCELED_BY_OPERATOR, detail=detail)
        if order.state in NOT_KNOWN:  # also one that a worker has claimed meanwhile
            raise Conflict("ORDER_UNRESOLVED", "whether the venue has the order is not known yet")
    if order.state not in TERMINAL:
        _ask_worker_to_cancel(order)
    elif order.signal_id is not None:
        pipeline.settle(order.signal_id)


def _ask_worker_to_cancel(order: Order) -> None:
    try:
        tasks.cancel_order.apply_async((str(order.pk),), retry=False)
    except (OperationalError, OSError) as error:
        detail = "the workers cannot be reached now: the cancel was not sent"
        raise Unavailable("NOT_QUEUED", detail) from error


def reset_breaker(breaker: CircuitBreaker, reason: str) -> None:
    """Close ``breaker``, with its audit row."""
    with transaction.atomic():
        breakers.reset(breaker.account_id, reason)
    breaker.refresh_from_db()


def switch_trading(*, state: str, scope: str, key: str, reason: str) -> TradingState:
    """Set the kill switch. Raises Refused for a key nobody has, lest a typo halts nothing."""
    named = {
        Scope.ACCOUNT.value: Account.objects.filter(name=key),
        Scope.STRATEGY.value: Strategy.objects.filter(slug=key),
    }
    if scope in named and not named[scope].exists():
        raise Refused(f"UNKNOWN_{scope.upper()}", f"there is no {scope} {key!r}")
    if scope == Scope.GLOBAL and key:
        raise Refused("KEY_NOT_EXPECTED", "the global switch has no key")
    return switch.change(TradingState.State(state), scope=Scope(scope), key=key, reason=reason)
