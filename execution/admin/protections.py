"""What guards positions: their stops at the venue, and the targets FKS watches."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column, number_column
from execution import protect
from execution.models import Protection
from execution.states import GUARD_COLORS
from risk.admin.confirm import Question, ReasonForm, ask, asking_action

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
    fields = (
        *_COLUMNS,
        moment_column("watched_at", "price last seen"),
        moment_column("passed_at", "stop passed"),
        moment_column("moved_at", "stop moved"),
        "moved_why",
        "entry_link",
        "detail",
    )
    readonly_fields = fields
    actions_row = ("guard_again",)
    actions_detail = ("guard_again",)

    def has_guard_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        may = request.user.has_perm("execution.change_order")
        return may and self.allows(request, "guard_again", object_id)

    def refusal(self, request: HttpRequest, action: str, row: Protection) -> str:
        if not row.is_active:
            return "it has ended"
        return "nothing is missing" if row.naked_since is None else ""

    @asking_action(description="Guard again", icon="shield", permission="guard", danger=False)
    def guard_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.row_to_act_on(request, object_id)
        back = reverse("admin:execution_protection_change", args=[row.pk])
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            text = "The stop is tried at the venue again, as if it had never been refused."
            question = Question(f"Guard again: {row}?", text, "Guard", back, is_dangerous=False)
            return ask(request, self.admin_site, form, question)
        try:
            protect.guard_again(row, reason=form.cleaned_data["reason"])
        except ValueError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, "The stop is tried again within seconds.")
        return HttpResponseRedirect(back)

    @display(description="guard", label=GUARD_COLORS)
    def guard(self, row: Protection) -> str:
        return row.guard

    @display(description="targets")
    def shown_targets(self, row: Protection) -> str:
        targets = [f"{one['percent']} % at {one['price']}" for one in row.targets]
        return ", ".join(targets) or "none"

    @display(description="entry")
    def entry_link(self, row: Protection) -> SafeString:
        address = reverse("admin:execution_order_change", args=[row.entry_id])
        return format_html('<a class="fks-link" href="{}">{}</a>', address, row.entry_id)
