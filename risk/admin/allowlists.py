"""Which addresses may post to webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from brokers.admin.unfolded import TabularInline, display
from risk.admin.audited import AuditedAdmin
from risk.models import AllowedNetwork, IPAllowlist


class AllowedNetworkInline(TabularInline):
    model = AllowedNetwork
    fields = ("cidr", "note")
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

    @display(description="networks")
    def size(self, row: Any) -> int:
        return int(row.size)
