"""The unknown desk: every order nobody knows the fate of, with what is known and what can be done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone

from execution.admin.adoptions import CANCEL
from execution.models import Order, OrderEvent
from execution.states import UNRESOLVED, OrderState

LOOK = "execution.view_order"
MOST = 50
LINES = 4
"""Of each journal, the latest."""


@dataclass(frozen=True, slots=True)
class Case:
    """One order, for how long nobody knows, and the last lines of its journal."""

    order: Order
    seconds: int
    lines: tuple[OrderEvent, ...]

    @property
    def waits_for_you(self) -> bool:
        """FKS has looked long enough: only a person's word ends it."""
        return self.order.state == OrderState.NEEDS_OPERATOR


def urls() -> list[URLPattern]:
    return [path("desk/", admin.site.admin_view(page), name="unknown_desk")]


def page(request: HttpRequest) -> HttpResponse:
    """Those that wait for a person first, then the oldest."""
    if not request.user.has_perm(LOOK):
        raise PermissionDenied
    now = timezone.now()
    request.current_app = admin.site.name
    rows: QuerySet[Any] = admin.site.get_model_admin(Order).get_queryset(request)
    context = {
        **admin.site.each_context(request),
        "title": "Unknown desk",
        "cases": _cases(rows, now),
        "may_act": request.user.has_perm(CANCEL),
        "at": now,
    }
    response = TemplateResponse(request, "fks/desk.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _cases(rows: QuerySet[Any], now: datetime) -> list[Case]:
    """Two queries."""
    journal = Prefetch("journal", OrderEvent.objects.order_by("-id"))
    unresolved = rows.filter(state__in=sorted(UNRESOLVED)).select_related("account", "strategy")
    orders = unresolved.order_by("state", "unknown_since", "id").prefetch_related(journal)[:MOST]
    return [_case(order, now) for order in orders]


def _case(order: Order, now: datetime) -> Case:
    since = order.unknown_since or order.updated_at
    lines = tuple(order.journal.all()[:LINES])
    return Case(order, max(0, int((now - since).total_seconds())), lines)
