"""Limits by scope. A limit is set through ``risk.limits``, as by every other way."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.filters import IndexedValuesFilter
from brokers.admin.unfolded import TabularInline, display
from brokers.decimals import decimal_text
from brokers.display import EMPTY, moment_column
from risk import hits, limits, proposals, scopes
from risk.admin.audited import REASON, AuditedAdmin
from risk.colors import HIT_COLORS
from risk.models import LimitHit, RiskLimit, RiskPolicy, Safeguards
from risk.proposable import limit_payload
from risk.rules import RULES
from risk.types import LimitMode


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A scope, its symbol as orders carry it."""

    def clean_strategy(self) -> str:
        try:
            return scopes.strategy_of(self.cleaned_data["strategy"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_symbol(self) -> str:
        try:
            return scopes.symbol_of(self.cleaned_data["symbol"], self.cleaned_data.get("account"))
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


class LimitForm(forms.ModelForm):  # type: ignore[type-arg]
    """One limit; a stored limit keeps its rule."""

    class Meta:
        model = RiskLimit
        fields: ClassVar[list[str]] = ["rule", "value", "mode", "parameters"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(rule.name, f"{rule.label} ({rule.unit.value})") for rule in RULES.values()]
        stored = self.instance.rule
        if stored and stored not in RULES:
            choices.append((stored, f"{stored} (no such rule)"))
        self.fields["rule"] = forms.ChoiceField(
            choices=[("", "Select value"), *choices],
            widget=UnfoldAdminSelectWidget(attrs={"aria-label": "Rule"}),
            disabled=self.instance.pk is not None,
        )
        self.fields["parameters"] = forms.CharField(
            required=False,
            widget=UnfoldAdminTextInputWidget(
                attrs={"aria-label": "Parameters", "placeholder": "name=text; name=text"}
            ),
        )
        told = self.instance.parameters
        self.initial["parameters"] = "; ".join(f"{name}={text}" for name, text in told.items())

    def clean_parameters(self) -> dict[str, str]:
        pairs = [one.partition("=") for one in self.cleaned_data["parameters"].split(";")]
        if any(name.strip() and not sign for name, sign, _ in pairs):
            raise forms.ValidationError("write name=text, separated by semicolons")
        return {name.strip(): text.strip() for name, _, text in pairs if name.strip()}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        rule, value = cleaned.get("rule", ""), cleaned.get("value")
        if not self.has_changed():
            # What an older version took must not be in the way of the page's other limits.
            value = None
        if rule in RULES and value is not None and "parameters" in cleaned:
            try:
                limits.refuse_invalid(rule, value, cleaned["parameters"])
                cleaned["parameters"] = scopes.group_of(rule, cleaned["parameters"])
            except ValueError as error:
                named = any(str(error).startswith(one.name) for one in RULES[rule].parameters)
                self.add_error("parameters" if named else "value", str(error))
        self._refuse_void_scope(cleaned.get("mode", ""))
        return cleaned

    def _refuse_void_scope(self, mode: str) -> None:
        is_stored = self.instance.policy_id is not None
        if not is_stored or mode == RiskLimit.Mode.OFF:
            return
        if why := scopes.why_void(self.instance.policy):
            self.add_error("mode", f"{why}: switch it off here, and set it for what there is")


class RiskLimitInline(TabularInline):
    model = RiskLimit
    form = LimitForm
    fields = ("rule", "value", "mode", "parameters", "today")
    readonly_fields = ("today",)
    extra = 0
    can_delete = False
    hide_title = True
    verbose_name_plural = "limits"

    def get_queryset(self, request: HttpRequest) -> QuerySet[RiskLimit]:
        self._hits = hits.today()
        rows: QuerySet[RiskLimit] = super().get_queryset(request)
        return rows.select_related("policy__account")

    @display(description="today (UTC)")
    def today(self, limit: RiskLimit) -> str:
        return _counted(self._hits.get((limit.rule, str(limit.policy)), Counter()))


@admin.register(RiskPolicy)
class RiskPolicyAdmin(AuditedAdmin):
    audit_name = "policy"
    form = PolicyForm
    inlines = (RiskLimitInline,)
    list_display = ("__str__", "shown_limits")
    list_filter = ("account",)
    search_fields = ("strategy", "symbol", "account__name")
    list_before_template = "fks/limit_use.html"
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
            payload = limit_payload(
                row.rule,
                row.value,
                account=policy.account.name if policy.account else "",
                strategy=policy.strategy,
                symbol=policy.symbol,
                mode=LimitMode(row.mode),
                parameters=row.parameters,
            )
            reason = form.cleaned_data[REASON]
            self.note_proposal(request, proposals.submit("limit", payload, reason=reason))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Deleting a scope gives up its limits at once: not where that takes two."""
        if Safeguards.current().two_person:
            return False
        return bool(super().has_delete_permission(request, obj))

    @display(description="limits")
    def shown_limits(self, policy: RiskPolicy) -> str:
        shown = [_sentence(limit) for limit in policy.limits.all()]
        return ", ".join(shown) or "none"


@admin.register(LimitHit)
class LimitHitAdmin(ReadOnlyAdmin):
    list_display = (
        moment_column("at"),
        "shown_kind",
        "rule",
        "account",
        "strategy",
        "symbol",
        "detail",
    )
    list_display_links = None
    list_filter = ("kind", ("rule", IndexedValuesFilter), "account")
    list_select_related = ("account",)
    search_fields = ("strategy", "symbol", "=order_id")
    nothing_yet = "What limits deny, would deny, or nearly deny appears here."

    @display(description="what", label=HIT_COLORS)
    def shown_kind(self, hit: LimitHit) -> tuple[str, str]:
        return hit.kind, hit.get_kind_display()


def _sentence(limit: RiskLimit) -> str:
    mode = "" if limit.mode == RiskLimit.Mode.ENFORCE else f" ({limit.get_mode_display()})"
    return f"{limit.rule} {decimal_text(limit.value)}{mode}"


def _counted(counts: Counter[str]) -> str:
    """E.g. ``2 denied, 5 would have denied``; a dash for nothing."""
    labels = dict(LimitHit.Kind.choices) | {LimitHit.Kind.WARNED.value: "passed above 80 %"}
    named = [f"{counts[kind]} {labels[kind]}" for kind in labels if counts[kind]]
    return ", ".join(named) or EMPTY
