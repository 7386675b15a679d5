"""The audit trail, as it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.text import Truncator

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.filters import IndexedValuesFilter
from brokers.admin.unfolded import display
from brokers.display import moment_column
from risk.models import AuditChain, AuditEvent


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    change_form_template = "fks/audit_event.html"
    list_before_template = "fks/audit_chain.html"
    list_display = (moment_column("at"), "kind", "subject", "actor", "address", "short_reason")
    list_filter = (("kind", IndexedValuesFilter), ("actor", IndexedValuesFilter))
    list_defer = ("before", "after")
    search_fields = ("subject", "reason")
    nothing_yet = "What operators change appears here."
    search_help_text = "Subject, reason or correlation id"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """What belongs to a correlation id, else whatever has the words."""
        belonging = {"correlation_id": search_term.strip()}
        if search_term.strip() and AuditEvent.objects.filter(**belonging).exists():
            return queryset.filter(**belonging), False
        return super().get_search_results(request, queryset, search_term)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        chain = {
            "chain": AuditChain.objects.first(),
            "unsealed": AuditEvent.objects.filter(position=None).count(),
        }
        return super().changelist_view(request, {**(extra_context or {}), **chain})

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        event = self.get_object(request, unquote(object_id))
        changes = [] if event is None else changed_lines(event.before, event.after)
        return super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "changes": changes}
        )

    @display(description="reason")
    def short_reason(self, event: AuditEvent) -> str:
        return Truncator(event.reason).chars(80)


def changed_lines(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """One line per column of ``before`` or ``after``."""
    before, after = before or {}, after or {}
    return [
        {
            "column": name,
            "before": _text(before.get(name)),
            "after": _text(after.get(name)),
            "changed": before.get(name) != after.get(name),
        }
        for name in dict.fromkeys([*before, *after])
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
