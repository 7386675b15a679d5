"""What guards positions: their stops at the venue, and the targets FKS watches."""

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
from execution.models import Protection

GUARD_COLORS = {"guarded": "success", "unguarded": "danger", "ended": "default"}
_COLUMNS = (
    "symbol",
    "account",
    "guard",
    number_column("stop_price", "stop"),
    "shown_targets",
    moment_column("naked_since", "unguarded since"),
)


class UnguardedFilter(SimpleListFilter):
    title = "guard"
    parameter_name = "guard"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unguarded", "unguarded")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "unguarded":
            return queryset.filter(is_active=True, naked_since__isnull=False)
        return queryset


@admin.register(Protection)
class ProtectionAdmin(ReadOnlyAdmin):
    list_display = _COLUMNS
    list_filter = (UnguardedFilter, "is_active", "account")
    list_select_related = ("account",)
    search_fields = ("symbol", "account__name")
    nothing_yet = "An entry that names a stop loss or a take profit is guarded once it fills."
    fields = (*_COLUMNS, "entry_link", "detail")
    readonly_fields = fields

    @display(description="guard", label=GUARD_COLORS)
    def guard(self, row: Protection) -> str:
        return guard_of(row)

    @display(description="targets")
    def shown_targets(self, row: Protection) -> str:
        targets = [f"{one['percent']} % at {one['price']}" for one in row.targets]
        return ", ".join(targets) or "none"

    @display(description="entry")
    def entry_link(self, row: Protection) -> SafeString:
        address = reverse("admin:execution_order_change", args=[row.entry_id])
        return format_html('<a class="fks-link" href="{}">{}</a>', address, row.entry_id)


def guard_of(row: Protection) -> str:
    """Whether the position is guarded now: a key of ``GUARD_COLORS``."""
    if not row.is_active:
        return "ended"
    return "guarded" if row.naked_since is None else "unguarded"
