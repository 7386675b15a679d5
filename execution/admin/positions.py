"""Positions: what the fills add up to."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column, number_column
from execution.models import Position

_COLUMNS = (
    "symbol",
    "account",
    "direction",
    number_column("quantity"),
    number_column("average_price"),
    number_column("realised_pnl", "realised P&L", signed=True),
    number_column("fees"),
    moment_column("updated_at", "updated"),
)


class OpenFilter(SimpleListFilter):
    title = "holding"
    parameter_name = "holding"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), ("flat", "flat")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "open":
                return queryset.exclude(quantity=0)
            case "flat":
                return queryset.filter(quantity=0)
        return queryset


@admin.register(Position)
class PositionAdmin(ReadOnlyAdmin):
    list_display = _COLUMNS
    list_filter = (OpenFilter, "account")
    list_select_related = ("account",)
    nothing_yet = "What fills add up to appears here."
    search_fields = ("symbol", "account__name")
    fields = (*_COLUMNS, "orders_link")
    readonly_fields = (*_COLUMNS, "orders_link")

    @display(description="direction")
    def direction(self, position: Position) -> str:
        if not position.quantity:
            return "flat"
        return "long" if position.quantity > 0 else "short"

    @display(description="orders")
    def orders_link(self, position: Position) -> SafeString:
        address = reverse(
            "admin:execution_order_changelist",
            query={"q": position.symbol, "account__id__exact": position.account_id},
        )
        return format_html('<a class="fks-link" href="{}">orders of this position</a>', address)
