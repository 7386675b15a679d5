"""Deliveries that could not be read."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column
from execution.models import QuarantinedBody

_HEAD = (moment_column("received_at", "received"), "strategy", "code", "detail", "address")


@admin.register(QuarantinedBody)
class QuarantinedBodyAdmin(ReadOnlyAdmin):
    list_display = _HEAD
    list_filter = ("strategy", "code")
    list_select_related = ("strategy",)
    nothing_yet = "Every delivery could be read so far."
    search_fields = ("detail", "body")
    fields = (*_HEAD, "shown_body")
    readonly_fields = (*_HEAD, "shown_body")

    @display(description="body as received, secret masked")
    def shown_body(self, row: QuarantinedBody) -> SafeString:
        return format_html('<pre class="fks-code">{}</pre>', row.body)
