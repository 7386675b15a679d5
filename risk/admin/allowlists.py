"""Which addresses may post to webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from brokers.admin.unfolded import TabularInline, display
from brokers.display import moment_column
from risk import proposals
from risk.admin.audited import REASON, AuditedAdmin
from risk.models import AllowedNetwork, IPAllowlist


class AllowedNetworkInline(TabularInline):
    model = AllowedNetwork
    fields = ("cidr", "note", "hits", moment_column("last_hit_at", "last used"))
    readonly_fields = fields[2:]
    extra = 0
    hide_title = True
    verbose_name_plural = "networks: an address or CIDR each; without any, every address is refused"


@admin.register(IPAllowlist)
class IPAllowlistAdmin(AuditedAdmin):
    audit_name = "allowlist"
    inline_audit_names: ClassVar[Mapping[Any, str]] = {AllowedNetwork: "network"}
    inlines = (AllowedNetworkInline,)
    list_display = ("name", "size", "note")
    search_fields = ("name", "note", "networks__cidr")

    def get_queryset(self, request: HttpRequest) -> QuerySet[IPAllowlist]:
        rows: QuerySet[IPAllowlist] = super().get_queryset(request)
        return rows.annotate(size=Count("networks"))

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Networks that let more addresses in may take another person."""
        payload = {"allowlist": form.instance.name, "networks": _wanted(formset)}
        if not proposals.must_wait("allowlist", payload):
            super().save_formset(request, form, formset, change)
            return
        reason = form.cleaned_data[REASON]
        self.note_proposal(request, proposals.submit("allowlist", payload, reason=reason))
        formset.new_objects = formset.changed_objects = formset.deleted_objects = []

    @display(description="networks")
    def size(self, row: Any) -> int:
        return int(row.size)


def _wanted(formset: Any) -> dict[str, str]:
    """The networks the form leaves, with their notes."""
    rows = [row.cleaned_data for row in formset.forms if row not in formset.deleted_forms]
    return {row["cidr"]: row.get("note", "") for row in rows if row.get("cidr")}
