"""Fills: every trade, once."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column, number_column
from execution import fee_values
from execution.admin.search import by_id
from execution.models import Fill


@admin.register(Fill)
class FillAdmin(ReadOnlyAdmin):
    list_display = (
        moment_column("at", "traded"),
        "side",
        "symbol",
        "account",
        number_column("quantity"),
        number_column("price"),
        "shown_fee",
        number_column("realised_pnl", "realised P&L", signed=True),
        "order_link",
    )
    list_filter = ("side", "account")
    list_select_related = ("account",)
    fields = (
        "order_link",
        "account",
        "trade_id",
        "symbol",
        "side",
        number_column("quantity"),
        number_column("price"),
        "shown_fee",
        number_column("realised_pnl", "realised P&L", signed=True),
        moment_column("at", "traded"),
        moment_column("recorded_at", "recorded"),
    )
    search_fields = ("trade_id", "order", "symbol")
    nothing_yet = "An order that trades leaves its fills here."
    search_help_text = "Trade id, order id or symbol"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(by_id(term, order="uuid", trade_id="exact", symbol="symbol"))
        return queryset, False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    @display(description="order")
    def order_link(self, fill: Fill) -> SafeString:
        address = reverse("admin:execution_order_change", args=[fill.order_id])
        shown = f"…{fill.order_id.hex[-12:]}"
        return format_html('<a class="fks-link" href="{}">{}</a>', address, shown)

    @display(description="fee")
    def shown_fee(self, fill: Fill) -> str:
        return fee_values.shown(fill)
