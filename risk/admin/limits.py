"""Limits by scope. A limit is set through ``risk.limits``, as by every other way."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.widgets import UnfoldAdminSelectWidget

from brokers.admin.unfolded import TabularInline, display
from brokers.decimals import decimal_text
from risk import limits
from risk.admin.audited import REASON, AuditedAdmin
from risk.models import RiskLimit, RiskPolicy
from risk.rules import RULES, Unit
from risk.types import LimitMode


class LimitForm(forms.ModelForm):  # type: ignore[type-arg]
    """One limit; a stored limit keeps its rule."""

    class Meta:
        model = RiskLimit
        fields: ClassVar[list[str]] = ["rule", "value", "mode"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(rule.name, f"{rule.label} ({rule.unit.value})") for rule in RULES.values()]
        stored = self.instance.rule
        if stored and stored not in RULES:
            choices.append((stored, f"{stored} (no such rule)"))
        self.fields["rule"] = forms.ChoiceField(
            choices=[("", "Select value"), *choices],
            widget=UnfoldAdminSelectWidget(),
            disabled=self.instance.pk is not None,
        )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        rule, value = RULES.get(cleaned.get("rule", "")), cleaned.get("value")
        if rule is None or value is None:
            return cleaned
        if rule.unit is Unit.FRACTION and value > 1:
            self.add_error("value", "a fraction is at most 1: 0.02 means 2 %")
        if rule.unit is Unit.ORDERS and value != value.to_integral_value():
            self.add_error("value", "orders are counted whole")
        return cleaned


class RiskLimitInline(TabularInline):
    model = RiskLimit
    form = LimitForm
    extra = 0
    can_delete = False
    hide_title = True
    verbose_name_plural = "limits"


@admin.register(RiskPolicy)
class RiskPolicyAdmin(AuditedAdmin):
    audit_name = "policy"
    inlines = (RiskLimitInline,)
    list_display = ("__str__", "shown_limits")
    list_filter = ("account",)
    search_fields = ("strategy", "symbol", "account__name")
    change_form_after_template = "fks/rules.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[RiskPolicy]:
        rows: QuerySet[RiskPolicy] = super().get_queryset(request)
        return rows.select_related("account").prefetch_related("limits")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A scope is never moved under its limits: make another policy instead."""
        return () if obj is None else ("account", "strategy", "symbol")

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {**(extra_context or {}), "rules": list(RULES.values())}
        return super().changeform_view(request, object_id, form_url, context)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        policy: RiskPolicy = form.instance
        formset.save(commit=False)
        for row in (*formset.new_objects, *(row for row, _ in formset.changed_objects)):
            limits.set_limit(
                row.rule,
                row.value,
                account=policy.account,
                strategy=policy.strategy,
                symbol=policy.symbol,
                mode=LimitMode(row.mode),
                reason=form.cleaned_data[REASON],
            )

    @display(description="limits")
    def shown_limits(self, policy: RiskPolicy) -> str:
        shown = [_sentence(limit) for limit in policy.limits.all()]
        return ", ".join(shown) or "none"


def _sentence(limit: RiskLimit) -> str:
    mode = "" if limit.mode == RiskLimit.Mode.ENFORCE else f" ({limit.get_mode_display()})"
    return f"{limit.rule} {decimal_text(limit.value)}{mode}"
