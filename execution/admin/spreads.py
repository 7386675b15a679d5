"""The arbitrage monitor: which instruments are watched on which accounts, and what was last seen."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from brokers.admin.unfolded import display
from brokers.display import moment_column
from execution.models import SpreadWatch
from risk.admin.audited import AuditedAdmin
from risk.arithmetic import text

LEAST = 2


class SpreadForm(forms.ModelForm):  # type: ignore[type-arg]
    """A gap needs two sides."""

    def clean_accounts(self) -> Any:
        accounts = self.cleaned_data["accounts"]
        if len(accounts) < LEAST:
            raise forms.ValidationError("choose two accounts or more: a gap lies between two")
        return accounts


@admin.register(SpreadWatch)
class SpreadWatchAdmin(AuditedAdmin):
    audit_name = "spread"
    form = SpreadForm
    list_display = (
        "symbol",
        "is_enabled",
        "shown_net",
        "buy_on",
        "sell_on",
        "shown_threshold",
        moment_column("looked_at", "looked at"),
    )
    list_filter = ("is_enabled",)
    search_fields = ("symbol",)
    nothing_yet = "Add an instrument and two accounts: FKS shows the gap between them after fees."
    readonly_fields = ("seen", moment_column("looked_at", "looked at"))
    fieldsets = (
        (
            None,
            {
                "fields": ("symbol", "is_enabled", "accounts", "threshold", "every", "quiet"),
                "description": "FKS reads quotes and tells of gaps. It never trades on them.",
            },
        ),
        ("What was last seen", {"fields": ("seen",)}),
    )

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    @display(description="gap after fees")
    def shown_net(self, watch: SpreadWatch) -> str:
        return "–" if watch.net is None else f"{text(watch.net * 100)} %"

    @display(description="threshold")
    def shown_threshold(self, watch: SpreadWatch) -> str:
        return f"{text(watch.threshold * 100)} %"

    @display(description="quotes")
    def seen(self, watch: SpreadWatch) -> SafeString:
        context = {"watch": watch, "net": self.shown_net(watch)}
        return mark_safe(render_to_string("fks/spread.html", context))  # noqa: S308  # our template
