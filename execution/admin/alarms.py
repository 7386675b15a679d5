"""What is wrong, and what was."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest

from brokers.admin.base import ReadOnlyAdmin
from brokers.display import moment_column
from execution.models import Alarm


class RaisedFilter(SimpleListFilter):
    title = "alarm"
    parameter_name = "raised"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("now", "raised now")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(cleared_at=None) if self.value() == "now" else queryset


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    list_display = (
        moment_column("raised_at", "raised"),
        moment_column("cleared_at", "over"),
        "kind",
        "account",
        "symbol",
        "detail",
    )
    list_filter = (RaisedFilter, "kind", "account")
    list_select_related = ("account",)
    search_fields = ("detail", "symbol", "key")
    nothing_yet = "Nothing was ever wrong."
    fields = (
        "kind",
        "account",
        "symbol",
        "detail",
        moment_column("raised_at", "raised"),
        moment_column("cleared_at", "over"),
        "key",
    )
    readonly_fields = fields
