"""Breakers and the kill switch: what stands between a decision and the venue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import Truncator

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column
from risk import breakers
from risk.admin import breaker_chart
from risk.admin.audited import AuditedAdmin
from risk.admin.confirm import Question, ReasonForm, ask, asking_action
from risk.colors import BREAKER_COLORS, TRADING_COLORS
from risk.models import CircuitBreaker, TradingState


@admin.register(CircuitBreaker)
class CircuitBreakerAdmin(AuditedAdmin):
    """The thresholds are changed here; the state only by tripping and resetting."""

    audit_name = "breaker"
    list_display = (
        "name",
        "shown_state",
        "shown_failures",
        moment_column("opened_at", "opened"),
        "short_error",
    )
    list_filter = ("state",)
    nothing_yet = "The breakers of an account and of its venue are made with its first order."
    change_form_after_template = "fks/breaker_history.html"
    list_select_related = ("account",)
    fields = (
        "name",
        "state",
        "shown_failures",
        "last_error",
        "failure_threshold",
        "success_threshold",
        "open_seconds",
    )
    readonly_fields = ("name", "state", "shown_failures", "last_error")
    actions_row = ("trip", "reset")
    actions_detail = ("trip", "reset")

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        breaker = self.get_object(request, unquote(object_id or ""))
        history = None if breaker is None else breaker_chart.history_of(breaker)
        context = {**(extra_context or {}), "history": history}
        return super().changeform_view(request, object_id, form_url, context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_trip_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "trip", object_id)

    def has_reset_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "reset", object_id)

    def _may(self, request: HttpRequest, action: str, object_id: Any) -> bool:
        mine = request.user.has_perm(breakers.OPERATE) and self.is_mine(request, object_id)
        return mine and self.allows(request, action, object_id)

    def refusal(self, request: HttpRequest, action: str, row: CircuitBreaker) -> str:
        if action == "trip":
            return "it is open" if row.state == CircuitBreaker.State.OPEN else ""
        rests = row.state == CircuitBreaker.State.CLOSED and not row.failures
        return "it is closed, without a failure" if rests else ""

    @asking_action(description="Trip", icon="power_off", permission="trip")
    def trip(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = (
            "No order is sent until it is reset, or until questions to the venue are answered. "
            "Exits wait and go first then; entries expire when they become too old."
        )
        return self._decide(request, object_id, breakers.trip, "Trip", text)

    @asking_action(
        description="Reset",
        icon="restart_alt",
        permission="reset",
        danger=False,
    )
    def reset(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "Orders that wait for this venue are sent again, entries included."
        return self._decide(request, object_id, breakers.reset, "Reset", text)

    def _decide(
        self,
        request: HttpRequest,
        object_id: str,
        change: Callable[[CircuitBreaker, str], None],
        verb: str,
        text: str,
    ) -> HttpResponse:
        breaker: CircuitBreaker = self.row_to_act_on(request, object_id)
        back = reverse("admin:risk_circuitbreaker_changelist")
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            title = f"{verb} the breaker of {breaker.name}"
            return ask(request, self.admin_site, form, Question(title, text, verb, back))
        with transaction.atomic():
            change(breaker, form.cleaned_data["reason"])
        messages.success(request, f"{verb} of the breaker of {breaker.name}: done.")
        return HttpResponseRedirect(back)

    @display(description="state", label=BREAKER_COLORS)
    def shown_state(self, breaker: CircuitBreaker) -> tuple[str, str]:
        return breaker.state, breaker.get_state_display()

    @display(description="last error")
    def short_error(self, breaker: CircuitBreaker) -> str:
        return Truncator(breaker.last_error).chars(80)

    @display(description="failures in a row")
    def shown_failures(self, breaker: CircuitBreaker) -> str:
        return f"{breaker.failures} of {breaker.failure_threshold}"


@admin.register(TradingState)
class TradingStateAdmin(ReadOnlyAdmin):
    """Read-only: a change takes the kill switch's own way, with its lock and audit row."""

    list_display = (
        "shown_scope",
        "shown_state",
        "reason",
        "changed_by",
        moment_column("changed_at", "since"),
        "generation",
    )
    list_display_links = None
    list_filter = ("state", "scope")
    search_fields = ("key", "reason")
    nothing_yet = "Trading was never halted. The Halt button is on the home page."

    @display(description="scope")
    def shown_scope(self, row: TradingState) -> str:
        return row.where

    @display(description="state", label=TRADING_COLORS)
    def shown_state(self, row: TradingState) -> tuple[str, str]:
        return row.state, row.get_state_display()
