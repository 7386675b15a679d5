"""Asking a venue for the order an operator found there, and taking it over; for workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.errors import BrokerError, QueryFailedError
from brokers.sessions import plugin_for
from brokers.types import OrderRef, OrderReport
from execution import adoptions, decisions, fills
from execution.models import Adoption, Fill, Order
from execution.transitions import IllegalMove
from risk import audit, breakers
from risk.types import ReasonCode, Refusal

logger = logging.getLogger(__name__)

State = Adoption.State
LOOK_AGAIN = timedelta(seconds=5)
CLOCKS_DIFFER = timedelta(seconds=10)
"""A trade earlier than our order by more than this cannot be one of it."""


def carry_out(adoption_id: int) -> None:
    """Ask the venue; keep what it says for the operator, or take it over if he has seen it.

    May be called twice and concurrently with itself: one of them asks.
    """
    now = timezone.now()
    waiting = Adoption.objects.filter(
        pk=adoption_id, state__in=Adoption.FOR_WORKERS, next_look_at__lte=now
    )
    if not waiting.update(next_look_at=now + LOOK_AGAIN):
        return
    row = Adoption.objects.select_related("order__account").get(pk=adoption_id)
    try:
        report = _asked(row)
        if row.state == State.TAKING:
            _take_over(row, report)
        else:
            _judge(row.order, row.broker_order_id, report)
            _answer(row, State.FOUND, told=told_of(report))
    except QueryFailedError as error:
        breakers.unanswered(row.order.account, error)
        _not_answered(row, error)
    except BrokerError as error:
        _answer(row, State.REFUSED, code=error.code, detail=str(error))
    except _Mismatch as refusal:
        _answer(
            row,
            State.REFUSED,
            code=refusal.code.value,
            detail=refusal.detail,
            told=told_of(refusal.report),
        )
    except Refusal as refusal:
        _answer(row, State.REFUSED, code=refusal.code.value, detail=refusal.detail)
    except (IllegalMove, IntegrityError, DataError) as error:
        logger.exception("an adoption cannot be booked", extra={"order_id": row.order_id})
        detail = f"the venue's answer contradicts our book: {error}"
        _answer(row, State.REFUSED, code=ReasonCode.INTERNAL_ERROR.value, detail=detail)


class _Mismatch(Refusal):
    """The venue has an order with that id, and it cannot be ours."""

    def __init__(self, code: ReasonCode, detail: str, report: OrderReport) -> None:
        super().__init__(code, detail, told_of(report))
        self.report = report


def told_of(report: OrderReport) -> dict[str, str]:
    """What the venue says, as an operator reads it."""
    average = report.average_price
    return {
        "symbol": report.symbol,
        "side": report.side.value,
        "quantity": decimal_text(report.quantity),
        "status": report.status.value,
        "filled": decimal_text(report.filled_quantity),
        "average_price": "" if average is None else decimal_text(average),
        "client_order_id": report.client_order_id,
    }


def _asked(row: Adoption) -> OrderReport:
    """What the venue says. Raises BrokerError, or Refusal where it has no such order."""
    ref = OrderRef("", row.order.symbol, row.broker_order_id, None)
    try:
        report = plugin_for(row.order.account).fetch_order(ref)
    except BrokerError:
        raise
    except Exception as error:
        # The boundary to foreign code: whatever went wrong, it is not an answer.
        logger.exception("asking about an order raised", extra={"order_id": row.order_id})
        raise QueryFailedError(f"asking failed: {type(error).__name__}") from error
    breakers.succeeded(row.order.account)
    if report is None:
        detail = f"the venue knows no order {row.broker_order_id} of {row.order.symbol}"
        raise Refusal(ReasonCode.NO_SUCH_ORDER, detail)
    return report


def _judge(order: Order, broker_order_id: str, report: OrderReport) -> None:
    """Raises Refusal unless the order at the venue can be ``order``."""
    order.refresh_from_db()
    adoptions.refuse_unless_unknown(order)
    adoptions.refuse_if_taken(order, report.broker_order_id)
    differs = [
        f"{name} {theirs}, ours {ours}"
        for name, theirs, ours, fits in (
            ("id", report.broker_order_id, broker_order_id, _same(report, broker_order_id)),
            ("symbol", report.symbol, order.symbol, report.symbol == order.symbol),
            ("side", report.side.value, order.side, report.side.value == order.side),
            (
                "quantity",
                decimal_text(max(report.quantity, report.filled_quantity)),
                decimal_text(order.quantity),
                max(report.quantity, report.filled_quantity) <= order.quantity,
            ),
        )
        if not fits
    ]
    if differs:
        detail = f"the venue's order is another: {'; '.join(differs)}"
        raise _Mismatch(ReasonCode.OTHER_ORDER, detail, report)
    _refuse_trades_of_others(order, report)


def _same(report: OrderReport, broker_order_id: str) -> bool:
    return report.broker_order_id == broker_order_id


def _refuse_trades_of_others(order: Order, report: OrderReport) -> None:
    early = [one for one in report.fills if one.at < order.created_at - CLOCKS_DIFFER]
    if early:
        detail = f"it traded at {early[0].at:%Y-%m-%d %H:%M:%S}, before our order was made"
        raise _Mismatch(ReasonCode.OTHER_ORDER, detail, report)
    trades = [one.trade_id for one in report.fills]
    booked = Fill.objects.filter(
        account_id=order.account_id, symbol=order.symbol, trade_id__in=trades
    )
    if other := booked.exclude(order=order.pk).first():
        detail = f"its trade {other.trade_id} is booked on our order {other.order_id}"
        raise _Mismatch(ReasonCode.ALREADY_OURS, detail, report)
    if decisions.hides_fills(report, sum((one.quantity for one in report.fills), Decimal(0))):
        detail = "the venue does not show its trades, which would tell whether it is ours"
        raise _Mismatch(ReasonCode.VENUE_UNREACHABLE, detail, report)


def _take_over(row: Adoption, report: OrderReport) -> None:
    """Book the venue's word on the order, by the way of every report, with the operator's reason."""
    evidence = {"adoption": row.pk, "told": told_of(report), "asked_by": row.asked_by}
    with transaction.atomic(), audit.acting(audit.Actor(row.asked_by)):
        Adoption.objects.select_for_update().get(pk=row.pk, state=State.TAKING)
        order = Order.objects.select_for_update(no_key=True).get(pk=row.order_id)
        _judge(order, row.broker_order_id, report)
        Order.objects.filter(pk=order.pk).update(
            is_adopted=report.client_order_id != order.client_order_id,
            broker_order_id=report.broker_order_id,
        )
        _journal(order, row, evidence)
        fills.apply_report(order, report, source=f"adopted: {row.reason}", evidence=evidence)
        _answer(row, State.TAKEN, told=told_of(report))
        audit.record(
            "order.adopted",
            f"order {order.pk}",
            before={"state": row.order.state},
            after={"state": str(order.state), "broker_order_id": report.broker_order_id},
            reason=row.reason,
            correlation_id=str(order.signal_id or ""),
        )


def _journal(order: Order, row: Adoption, evidence: Mapping[str, Any]) -> None:
    order.journal.create(
        at=timezone.now(),
        event="adopt",
        from_state=order.state,
        to_state=order.state,
        attempt=order.attempt,
        actor=row.asked_by,
        detail=f"the venue's order {row.broker_order_id} is this one: {row.reason}",
        evidence=dict(evidence),
    )


def _answer(row: Adoption, state: Adoption.State, **columns: Any) -> None:
    """Note how it stands, unless somebody else has meanwhile."""
    Adoption.objects.filter(pk=row.pk, state=row.state).update(
        state=state, answered_at=timezone.now(), **({"code": "", "detail": ""} | columns)
    )


def _not_answered(row: Adoption, error: QueryFailedError) -> None:
    if timezone.now() >= row.give_up_at:
        _answer(row, State.REFUSED, code=error.code, detail=f"the venue did not answer: {error}")
        return
    Adoption.objects.filter(pk=row.pk, state=row.state).update(detail=f"not answered yet: {error}")
