"""What became of an alert, gathered for one page: each order with its arithmetic, verdicts, journal
and fills.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Prefetch, QuerySet

from brokers import access
from execution.admin import waterfall
from execution.alerts import Alert
from execution.models import (
    Fill,
    Order,
    OrderEvent,
    Position,
    Protection,
    RoutingDecision,
    Signal,
    SlicePlan,
)

_ALERT_FIELDS = [one.name for one in fields(Alert) if one.name != "extras"]
_FIRST_NUMBERS = ("measured", "allowed", "limit")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal. ``after`` is the time since the first one, in milliseconds."""

    event: OrderEvent
    after: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Line:
    """A named value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rule's verdict, what was measured before what it was measured by."""

    rule: str
    passed: bool
    mode: str
    detail: str
    numbers: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class OrderStory:
    """An order and everything that is told of it."""

    order: Order
    verdicts: tuple[Judgement, ...]
    journal: tuple[Entry, ...]
    fills: tuple[Fill, ...]
    position: Position | None
    protection: Protection | None
    routing: RoutingDecision | None
    plan: SlicePlan | None
    slices: tuple[Order, ...]

    @property
    def filled_share(self) -> int:
        """How much has traded, in whole percent."""
        return int(self.order.filled_quantity * 100 / self.order.quantity)


@dataclass(frozen=True, slots=True)
class SignalStory:
    """A signal as it was read, the fields nobody read, and its orders."""

    signal: Signal
    alert: tuple[Line, ...]
    unknown: tuple[Line, ...]
    orders: tuple[OrderStory, ...]
    bars: tuple[waterfall.Bar, ...]
    decided_ms: int | None = None
    finished_ms: int | None = None


def signal_story(signal: Signal, user: Any) -> SignalStory:
    """With the orders ``user`` may see. Seven queries, however many orders there are, and one more for
    their slices, which are told of with the order they are of.
    """
    read = {name: signal.alert[name] for name in _ALERT_FIELDS if name in signal.alert}
    whole = access.seen(user, Order.objects.filter(signal=signal, parent__isnull=True))
    orders = order_stories(whole.order_by("id"), user)
    return SignalStory(
        signal=signal,
        alert=tuple(_lines(read)),
        unknown=tuple(_lines(signal.alert.get("extras", {}))),
        orders=orders,
        bars=waterfall.bars(signal, [(told.order, told.fills) for told in orders]),
        decided_ms=_milliseconds(signal.received_at, signal.decided_at),
        finished_ms=_milliseconds(signal.received_at, signal.finished_at),
    )


def order_stories(orders: QuerySet[Order], user: Any) -> tuple[OrderStory, ...]:
    """As ``user`` may see them. Six queries, and one more where an order was worked in slices."""
    rows = list(
        orders.select_related(
            "account", "strategy", "signal", "parent__plan", "plan"
        ).prefetch_related(
            "journal",
            Prefetch("fills", Fill.objects.order_by("id")),
        )
    )
    slices = _slices_of([row for row in rows if hasattr(row, "plan")])
    held, guards = _by_lane(Position, rows), _by_lane(Protection, rows)
    routed = _by_account(rows, user)
    return tuple(
        OrderStory(
            order=row,
            verdicts=tuple(_judgement(verdict) for verdict in row.verdicts),
            journal=tuple(_entries(row.journal.all())),
            fills=tuple(row.fills.all()),
            position=held.get((row.account_id, row.symbol)),
            protection=guards.get((row.account_id, row.symbol)),
            routing=routed.get((row.signal_id, row.account_id)),
            plan=getattr(row, "plan", None),
            slices=tuple(slices.get(row.pk, ())),
        )
        for row in rows
    )


def _slices_of(parents: list[Order]) -> dict[UUID | None, list[Order]]:
    found: dict[UUID | None, list[Order]] = {}
    if parents:
        for one in Order.objects.filter(parent__in=parents).order_by("slice_number"):
            found.setdefault(one.parent_id, []).append(one)
    return found


def _by_lane(model: type[Any], orders: list[Order]) -> dict[tuple[int, str], Any]:
    """The rows of ``model`` that belong to the accounts and symbols of ``orders``."""
    rows = model.objects.filter(
        account__in={order.account_id for order in orders},
        symbol__in={order.symbol for order in orders},
    )
    return {(row.account_id, row.symbol): row for row in rows}


def _by_account(orders: list[Order], user: Any) -> dict[tuple[Any, int], RoutingDecision]:
    """Why a group's orders went to their accounts: not for those who may see some accounts only."""
    decisions = RoutingDecision.objects.filter(signal__in={order.signal_id for order in orders})
    decisions = access.seen(user, decisions)
    return {(one.signal_id, int(account)): one for one in decisions for account in one.parts}


def _judgement(verdict: Mapping[str, Any]) -> Judgement:
    numbers = verdict.get("numbers", {})
    first = [name for name in _FIRST_NUMBERS if name in numbers]
    rest = sorted(set(numbers) - set(first))
    return Judgement(
        rule=verdict["rule"],
        passed=verdict["passed"],
        mode=verdict.get("mode", ""),
        detail=verdict.get("detail", ""),
        numbers=tuple(Line(name, str(numbers[name])) for name in (*first, *rest)),
    )


def _entries(events: Iterable[OrderEvent]) -> Iterable[Entry]:
    start: datetime | None = None
    for event in events:
        start = start or event.at
        evidence = _pretty(event.evidence) if event.evidence else ""
        yield Entry(event, _milliseconds(start, event.at) or 0, evidence)


def _lines(values: Mapping[str, Any]) -> Iterable[Line]:
    for name, value in values.items():
        yield Line(name, value if isinstance(value, str) else _compact(value))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _milliseconds(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else round((end - start).total_seconds() * 1000)
