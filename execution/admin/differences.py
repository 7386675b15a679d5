"""What a venue and our book disagree about, and an operator's word on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column
from execution import differences
from execution.admin import accounts
from execution.models import Difference
from risk.admin.confirm import Question, ReasonForm, ask, asking_action

RESOLVE = "execution.change_difference"
STATE_COLORS = {
    Difference.State.OPEN: "danger",
    Difference.State.GONE: "success",
    Difference.State.ADOPTED: "info",
    Difference.State.IGNORED: "warning",
    Difference.State.FLATTENING: "warning",
    Difference.State.FLATTENED: "info",
    Difference.State.CANCELING: "warning",
    Difference.State.CANCELED: "info",
}


@admin.register(Difference)
class DifferenceAdmin(ReadOnlyAdmin):
    list_display = (
        moment_column("first_seen_at", "first seen"),
        "symbol",
        "account",
        "kind",
        "ours",
        "theirs",
        "shown_state",
        "resolved_by",
    )
    list_filter = ("state", "kind", "account")
    list_select_related = ("account",)
    search_fields = ("symbol", "key", "detail")
    nothing_yet = "The venues and our book agree."
    list_before_template = "fks/compared.html"
    actions_list = ("compare",)
    actions_row = ("adopt", "ignore", "flatten", "cancel")
    actions_detail = ("adopt", "ignore", "flatten", "cancel")
    fields = (
        "account",
        "symbol",
        "kind",
        "key",
        "ours",
        "theirs",
        "average_price",
        "detail",
        "state",
        moment_column("first_seen_at", "first seen"),
        moment_column("last_seen_at", "last seen"),
        moment_column("resolved_at", "resolved"),
        "resolved_by",
        "reason",
    )
    readonly_fields = fields

    def _may(self, request: HttpRequest, action: str, object_id: Any) -> bool:
        return request.user.has_perm(RESOLVE) and self.allows(request, action, object_id)

    def refusal(self, request: HttpRequest, action: str, row: Difference) -> str:
        if row.state != Difference.State.OPEN:
            return f"it is {row.get_state_display()}"
        return differences.forbids(row, action)

    def has_compare_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(RESOLVE)

    @asking_action(
        description="Compare now", icon="compare_arrows", permission="compare", danger=False
    )
    def compare(self, request: HttpRequest) -> HttpResponse:
        return accounts.compare_all(request, self.admin_site)

    def has_adopt_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "adopt", object_id)

    def has_ignore_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "ignore", object_id)

    def has_flatten_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "flatten", object_id)

    def has_cancel_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "cancel", object_id)

    @asking_action(description="Adopt", icon="move_down", permission="adopt", danger=False)
    def adopt(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "Our position becomes what the venue says. Orders and fills stay as they are."
        return self._resolve(request, object_id, differences.adopt, "Adopt", text)

    @asking_action(description="Ignore", icon="visibility_off", permission="ignore", danger=False)
    def ignore(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "Entries in this symbol pass again, until the venue says something else."
        return self._resolve(request, object_id, differences.ignore, "Ignore", text)

    @asking_action(description="Flatten", icon="compress", permission="flatten")
    def flatten(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = (
            "A market order closes at the venue what our book does not know of; what our book "
            "holds stays. Entries wait until it is filled."
        )
        return self._resolve(request, object_id, differences.ask_flatten, "Flatten", text)

    @asking_action(description="Cancel at the venue", icon="cancel", permission="cancel")
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = (
            "Somebody else placed this order. The cancel is repeated until the venue has complied."
        )
        return self._resolve(request, object_id, differences.ask_cancel, "Cancel", text)

    def _resolve(
        self,
        request: HttpRequest,
        object_id: str,
        resolve: Callable[..., None],
        verb: str,
        text: str,
    ) -> HttpResponse:
        row = self.row_to_act_on(request, object_id)
        back = reverse("admin:execution_difference_change", args=[row.pk])
        form = ReasonForm(request.POST or None)
        if row.state != Difference.State.OPEN:
            messages.warning(request, f"This difference is {row.get_state_display()} already.")
        elif not form.is_valid():
            question = Question(f"{verb}: {row}?", text, verb, back, is_dangerous=False)
            return ask(request, self.admin_site, form, question)
        else:
            self._say(request, row, resolve, form.cleaned_data["reason"])
        return HttpResponseRedirect(back)

    def _say(
        self, request: HttpRequest, row: Difference, resolve: Callable[..., None], reason: str
    ) -> None:
        try:
            resolve(row, reason=reason)
        except ValueError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"{row}: {row.get_state_display()}.")

    @display(description="state", label=STATE_COLORS)
    def shown_state(self, row: Difference) -> tuple[str, str]:
        return row.state, row.get_state_display()
