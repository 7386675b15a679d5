"""Failed attempts by client address, lock-outs to release, and how many failures are allowed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column
from risk import ratelimit
from risk.admin.audited import AuditedAdmin
from risk.admin.confirm import Question, ReasonForm, ask, asking_action
from risk.models import ClientAddress, RateLimit


@admin.register(RateLimit)
class RateLimitAdmin(AuditedAdmin):
    audit_name = "rate_limit"
    list_display = ("__str__", "lockout_after", "lockout_seconds", "login_failures")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """There is one."""
        return super().has_add_permission(request) and not RateLimit.objects.exists()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.pk = 1
        super().save_model(request, obj, form, change)


@admin.register(ClientAddress)
class ClientAddressAdmin(ReadOnlyAdmin):
    list_display = (
        "network",
        "door",
        "shown_state",
        "failures",
        "lockouts",
        moment_column("locked_until", "locked until"),
        moment_column("updated_at", "last failure"),
    )
    list_filter = ("door",)
    search_fields = ("network",)
    actions_row = actions_detail = ("release",)
    nothing_yet = "Nobody has failed to authenticate lately."

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClientAddress]:
        rows: QuerySet[ClientAddress] = super().get_queryset(request)
        return rows.order_by("-locked_until", "-updated_at")

    @display(description="state", label={"locked": "danger", "counted": "info"})
    def shown_state(self, row: ClientAddress) -> tuple[str, str]:
        locked = row.locked_until is not None and row.locked_until > timezone.now()
        return ("locked", "locked") if locked else ("counted", "counted")

    def has_release_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm("risk.change_clientaddress") and self.is_mine(
            request, object_id
        )

    @asking_action(description="Release", icon="lock_open", permission="release", danger=False)
    def release(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row: ClientAddress = self.row_to_act_on(request, object_id)
        back = reverse("admin:risk_clientaddress_changelist")
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            text = "Its failures are forgotten, and it starts again with a full allowance."
            return ask(
                request, self.admin_site, form, Question(f"Release {row}", text, "Release", back)
            )
        ratelimit.release(row, form.cleaned_data["reason"])
        messages.success(request, f"{row} is released.")
        return HttpResponseRedirect(back)
