"""How much of their limits the accounts use, as the latest order of the last day was judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.utils import timezone

from brokers.models import Account
from execution.ids import first_id_at
from execution.models import Order
from execution.states import OrderState

NEARLY = Decimal("0.8")
DAY = timedelta(hours=24)
"""What was judged before says nothing of now, and an account that rests has nothing to look through."""


@dataclass(frozen=True, slots=True)
class Use:
    """One limit: what was measured, in the limit's unit, and what was allowed."""

    order: Order
    rule: str
    measured: Decimal
    allowed: Decimal

    @property
    def percent(self) -> int:
        """At most a hundred."""
        return int(min(self.measured / self.allowed, Decimal(1)) * 100)

    @property
    def tone(self) -> str:
        share = self.measured / self.allowed
        return "danger" if share >= 1 else "warning" if share >= NEARLY else "success"


def latest(request: HttpRequest) -> list[Use]:
    """The most used first, of the accounts whoever asks may see. Two queries."""
    since = first_id_at(timezone.now() - DAY)
    passed = Order.objects.filter(account=OuterRef("pk"), pk__gte=since)
    newest = passed.exclude(state=OrderState.DENIED).exclude(verdicts=[]).order_by("-id")
    accounts = admin.site.get_model_admin(Account).get_queryset(request)
    last = accounts.filter(is_active=True).values_list(Subquery(newest.values("pk")[:1]), flat=True)
    orders = Order.objects.filter(pk__in=[key for key in last if key]).select_related("account")
    used = [use for order in orders for use in _of(order)]
    return sorted(used, key=lambda one: (-one.measured / one.allowed, one.rule))


def _of(order: Order) -> Iterator[Use]:
    for verdict in order.verdicts:
        numbers = verdict.get("numbers", {})
        measured, allowed = _number(numbers, "measured"), _number(numbers, "allowed")
        if measured is not None and allowed is not None and allowed > 0 and measured >= 0:
            yield Use(order, verdict["rule"], measured, allowed)


def _number(numbers: Mapping[str, Any], name: str) -> Decimal | None:
    try:
        value = Decimal(numbers[name])
    except (KeyError, TypeError, InvalidOperation):
        return None
    return value if value.is_finite() else None
