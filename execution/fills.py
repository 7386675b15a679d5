"""What a venue reports about an order becomes fills, a position and a state, in one transaction.

Reports may come twice, late and out of order: fills are unique by (account, symbol, trade id), the
filled quantity is the sum of the fills and never falls, and the state follows the venue's word.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.prepared import Prepared, given
from brokers.prepared_writes import change, insert
from brokers.types import FillReport, OrderReport, Side
from execution import arming, decisions, fee_values, metrics, positions
from execution.models import Fill, Order, Position
from execution.states import TERMINAL, OrderState
from execution.transitions import Event, move
from risk import audit
from risk.types import ReasonCode

logger = logging.getLogger(__name__)

_CANCEL_REASONS = (
    ReasonCode.CANCELED_BY_OPERATOR,
    ReasonCode.CANCELED_BY_SIGNAL,
    ReasonCode.REPLACED,
)
BOOKED = (
    "quantity", "average_price", "realised_pnl", "fees", "first_fill_id", "updated_at",
)  # fmt: skip
"""What a fill changes of its position."""
_ASKED = ("next_check_at", "polls", "looks", "unknown_since", "unanswered_since")
"""What an answer changes of an order that is not moved by it."""
POLL_DELAYS = (0.2, 0.5, 1, 2, 3)
"""Seconds until the next question about a working order; the last one repeats."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a report changed."""

    new_fills: int
    moved: bool


def apply_report(
    order: Order,
    report: OrderReport,
    *,
    source: str,
    evidence: Mapping[str, Any] | None = None,
    asked_at: datetime | None = None,
) -> Applied:
    """Book ``report`` on ``order``, which shows how it stands afterwards. May be called twice and
    concurrently with itself.

    A terminal word of the venue is believed only once the fills it speaks of are all here; until
    then the order stays working and is asked again. What a venue filled beyond the order is booked,
    and an operator is told. An order that had ended here works again if the question, at ``asked_at``,
    came long enough after that. Raises IllegalMove when the report contradicts what FKS knows for sure.
    """
    with transaction.atomic():
        _lock(order)
        _follow_size(order, report)
        before, acknowledged_at = order.state, order.acknowledged_at
        new_fills, traded = _record_fills(order, report.fills)
        filled, average = positions.totals(traded)
        event = decisions.of_report(report, filled, order.quantity)
        now = timezone.now()
        hidden = decisions.hides_fills(report, filled)
        changes = {
            "filled_quantity": min(filled, order.quantity),
            "average_price": average,
            "broker_order_id": report.broker_order_id or order.broker_order_id,
            "acknowledged_at": acknowledged_at or now,
            "unknown_since": decisions.hidden_since(order, now, new_fills) if hidden else None,
            "unanswered_since": None,
            "looks": 0,
            "next_check_at": next_poll(order),
            "polls": order.polls + 1,
            "reason": _reason(order, event),
        }
        detail = report.reason or _reason_in_words(order) or source
        booked = decisions.news(
            order,
            event,
            new_fills,
            is_half=decisions.is_half(report, filled),
            is_newer=decisions.is_newer(order, asked_at),
        )
        moved = _move_if_news(order, booked, changes, detail, evidence)
        if new_fills and filled > order.quantity:
            _note_overfill(order, filled)
    if moved and order.state == OrderState.FILLED != before:
        metrics.stage_seconds["fill"].observe((now - (acknowledged_at or now)).total_seconds())
        _note_slippage(order)
    return Applied(new_fills, moved)


def _note_slippage(order: Order) -> None:
    """Of what an alert asked for, where it named a price; not of the stops that guard it."""
    if order.signal is None or order.role not in (Order.Role.ENTRY, Order.Role.EXIT):
        return
    stated = Decimal(order.signal.alert.get("price", 0))
    if stated and order.average_price is not None:
        metrics.note_slippage(Side(order.side), stated, order.average_price)


def next_poll(order: Order) -> Any:
    """When to ask about a working order again."""
    delay = POLL_DELAYS[min(order.polls, len(POLL_DELAYS) - 1)]
    return timezone.now() + timedelta(seconds=delay)


def _lock(order: Order) -> None:
    """Hold the order's row, and know it as it is now."""
    [now] = _locked(order=order.pk)
    for field in Order._meta.concrete_fields:
        setattr(order, field.attname, getattr(now, field.attname))
    order.signal = now.signal


def _follow_size(order: Order, report: OrderReport) -> None:
    """A stop that left with its entry is as large as its venue says: it follows what that traded."""
    if order.came_attached and report.quantity and report.quantity != order.quantity:
        order.quantity = max(report.quantity, order.filled_quantity)
        Order.objects.filter(pk=order.pk).update(quantity=order.quantity)


@Prepared
def _locked() -> QuerySet[Order]:
    mine = Order.objects.filter(pk=given("order")).select_related("signal")
    return mine.select_for_update(no_key=True, of=("self",))


def _reason(order: Order, event: Event) -> str:
    """A cancel's reason stays, a doubt's goes, and a rejection has one."""
    if event is Event.REJECT:
        return ReasonCode.VENUE_REJECTED.value
    is_kept = order.reason in _CANCEL_REASONS or order.reason == order.cancel_reason
    return order.reason if is_kept else ""


def _reason_in_words(order: Order) -> str:
    return order.detail if order.state == OrderState.CANCELING else ""


def _note_overfill(order: Order, filled: Decimal) -> None:
    """The position holds what really traded; the order cannot show more than it asked for."""
    audit.record(
        "order.overfilled",
        f"order {order.pk}",
        before={"quantity": decimal_text(order.quantity)},
        after={"filled": decimal_text(filled)},
        reason="the venue filled more than was ordered",
        correlation_id=str(order.signal_id or ""),
    )


def _move_if_news(
    order: Order,
    event: Event | None,
    changes: dict[str, Any],
    detail: str,
    evidence: Mapping[str, Any] | None,
) -> bool:
    """Journal a move only when state or fills changed; else just note that the venue was asked."""
    if event is not None:
        return move(order, event, detail=detail, evidence=evidence, **changes)
    if order.state not in TERMINAL:
        noted = {name: changes[name] for name in _ASKED}
        Order.objects.filter(pk=order.pk, state=order.state).update(**noted)
        for name, value in noted.items():
            setattr(order, name, value)
    return False


def _record_fills(
    order: Order, reports: Iterable[FillReport]
) -> tuple[int, list[tuple[Decimal, Decimal]]]:
    """How many were new, and what the order has traded so far: quantities and their prices."""
    told = {report.trade_id: report for report in reports}
    rows = _booked(account=order.account_id, symbol=order.symbol, trades=list(told), order=order.pk)
    booked = {row[0] for row in rows}
    traded = [(quantity, price) for _, owner, quantity, price in rows if owner == order.pk]
    for trade_id, owner, quantity, price in rows:
        again = told.get(trade_id)
        if again is None:
            continue
        if owner != order.pk:
            logger.error("trade %s of order %s is booked on %s", trade_id, order.pk, owner)
        elif (again.quantity, again.price) != (quantity, price):
            _note_correction(order, quantity, price, again)
    fresh = [report for report in told.values() if report.trade_id not in booked]
    if not fresh:
        return 0, traded
    position = Position.locked(order.account_id, order.symbol)
    for report in sorted(fresh, key=lambda item: (item.at, item.trade_id)):
        _book_fill(order, position, report)
    position.updated_at = timezone.now()
    change(Position, {"pk": position.pk}, {name: getattr(position, name) for name in BOOKED})
    arming.arm(order, position.quantity)
    return len(fresh), traded + [(report.quantity, report.price) for report in fresh]


def _note_correction(order: Order, quantity: Decimal, price: Decimal, report: FillReport) -> None:
    """A trade is booked once. Where a corrected quantity matters the next comparison finds it."""
    logger.error(
        "trade %s of order %s is booked as %s at %s, and the venue now says %s at %s",
        report.trade_id,
        order.pk,
        *map(decimal_text, (quantity, price, report.quantity, report.price)),
    )


@Prepared
def _booked() -> QuerySet[Fill, tuple[str, UUID, Decimal, Decimal]]:
    told = Q(account=given("account"), symbol=given("symbol"), trade_id__any=given("trades"))
    known = Fill.objects.filter(told | Q(order=given("order"))).order_by()
    return known.values_list("trade_id", "order_id", "quantity", "price")


def _book_fill(order: Order, position: Position, report: FillReport) -> None:
    fee = fee_values.split(order.account, order.symbol, report)
    book, realised = positions.apply(
        positions.Book(
            position.quantity, position.average_price, position.realised_pnl, position.fees
        ),
        positions.Trade(
            report.quantity * Side(order.side).sign, report.price, fee.coins, fee.money
        ),
    )
    fill = Fill(
        account_id=order.account_id,
        order=order,
        trade_id=report.trade_id,
        symbol=order.symbol,
        side=order.side,
        quantity=report.quantity,
        price=report.price,
        fee=report.fee,
        fee_currency=report.fee_currency,
        fee_value=fee.value,
        realised_pnl=realised,
        at=report.at,
        recorded_at=timezone.now(),
    )
    insert(fill)
    transaction.on_commit(partial(_tell, order, report))
    if not position.quantity:
        position.first_fill_id = fill.pk
    position.quantity = book.quantity
    position.average_price = book.average_price
    position.realised_pnl = book.realised_pnl
    position.fees = book.fees


def _tell(order: Order, report: FillReport) -> None:
    logger.info(
        "filled %s at %s",
        decimal_text(report.quantity),
        decimal_text(report.price),
        extra={"signal_id": order.signal_id or "", "order_id": order.pk, "symbol": order.symbol},
    )
