"""How well orders were carried out: prices, times, and how many came to nothing, and why."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db.models import (
    Avg,
    Case,
    CharField,
    Count,
    DurationField,
    ExpressionWrapper,
    F,
    Q,
    QuerySet,
    Value,
    When,
)
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce

from brokers.fields import MoneyField
from execution.models import Order
from execution.states import OrderState
from fks_site.account_figures import Percentile

BY_HAND = "by hand"
"""The strategy of orders that have none: an operator's."""
_VENUE = Coalesce(
    KeyTextTransform("exchange", "account__options"), F("account__broker"), output_field=CharField()
)
"""As ``Account.venue`` has it."""
_ALERT_PRICE = Case(
    When(
        role__in=(Order.Role.ENTRY, Order.Role.EXIT),
        then=Cast(KeyTextTransform("price", "signal__alert"), MoneyField()),
    ),
    output_field=MoneyField(),
)
"""What the alert named for the order it asked for, not for the stop that guards it; its numbers were
read before they were stored."""
_GROUPS = {"Account": F("account__name"), "Venue": _VENUE, "Strategy": F("strategy__slug")}


def quality(orders: QuerySet[Order]) -> dict[str, list[dict[str, Any]]]:
    """One row per account, venue and strategy. Three queries."""
    return {label: _by(orders, column) for label, column in _GROUPS.items()}


def _by(orders: QuerySet[Order], by: Any) -> list[dict[str, Any]]:
    """How orders were carried out: prices against the alert's and against what risk judged by, times,
    and how many came to nothing. Grouped by ``by``; orders of no strategy are an operator's.
    """
    answered = Q(acknowledged_at__isnull=False)
    answer = _lasting("submitted_at", "acknowledged_at")
    whole = _lasting("signal__received_at", "acknowledged_at")
    rows: QuerySet[Order, Any] = (
        orders.order_by()
        .annotate(alert_price=_ALERT_PRICE)
        .values(name=Coalesce(by, Value(BY_HAND)))
        .annotate(
            orders=Count("pk", filter=answered),
            answer_median=Percentile(answer, Decimal("0.5"), filter=answered),
            answer_p95=Percentile(answer, Decimal("0.95"), filter=answered),
            whole_median=Percentile(whole, Decimal("0.5"), filter=answered),
            whole_p95=Percentile(whole, Decimal("0.95"), filter=answered),
            slippage=_slippage("reference_price"),
            alert_slippage=_slippage("alert_price"),
            alert_priced=Count("pk", filter=Q(average_price__gt=0, alert_price__gt=0)),
            denied=Count("pk", filter=Q(state=OrderState.DENIED)),
            rejected=Count("pk", filter=Q(state=OrderState.REJECTED)),
        )
        .order_by("name")
    )
    return list(rows)


def _slippage(price: str) -> Avg:
    """How much worse than ``price`` orders were filled, in basis points of it; negative for better."""
    worse = Case(
        When(side="buy", then=F("average_price") - F(price)),
        default=F(price) - F("average_price"),
    )
    known = Q(average_price__gt=0, **{f"{price}__gt": 0})
    return Avg(worse * 10_000 / F(price), filter=known, output_field=MoneyField())


def _lasting(since: str, until: str) -> ExpressionWrapper[Any]:
    return ExpressionWrapper(F(until) - F(since), output_field=DurationField())


def refused(orders: QuerySet[Order]) -> QuerySet[Order, Any]:
    """Why orders came to nothing, the most frequent reason first."""
    states = (OrderState.DENIED, OrderState.REJECTED, OrderState.EXPIRED, OrderState.NOT_PLACED)
    return (
        orders.filter(state__in=states)
        .order_by()
        .values("account__name", "strategy__slug", "state", "reason")
        .annotate(orders=Count("pk"))
        .order_by("-orders", "reason")[:20]
    )
