"""Signals: lists, and the story of one."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import action, display
from brokers.display import moment_column
from execution import tracing
from execution.admin import lab
from execution.admin.search import AgeFilter, by_id
from execution.admin.story import signal_story
from execution.alerts import Action
from execution.dry_run import replay_from_a_web_process
from execution.models import Signal
from execution.states import SIGNAL_COLORS


class ActionFilter(SimpleListFilter):
    """The actions there are: asking the table for them would read all of it."""

    title = "action"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, one.value) for one in Action]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(Signal)
class SignalAdmin(ReadOnlyAdmin):
    change_form_template = "fks/signal.html"
    list_display = (
        moment_column("received_at", "received"),
        "shown_action",
        "symbol",
        "strategy",
        "shown_state",
        "reason",
        "address",
    )
    list_filter = (AgeFilter, "state", ActionFilter, "strategy")
    list_select_related = ("strategy",)
    list_defer = ("body", "alert", "detail", "gap")
    search_fields = ("id", "symbol")
    nothing_yet = "Alerts posted to a strategy's webhook appear here."
    search_help_text = "Signal id or symbol"
    actions_detail = ("replay",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(by_id(term, id="uuid", symbol="symbol"))
        return queryset, False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        signal = self.get_object(request, unquote(object_id))
        context = {**(extra_context or {})}
        if signal is not None:
            lab_of = f"{reverse('admin:execution_lab')}?signal={signal.pk}"
            context |= {
                "story": signal_story(signal, request.user),
                "trace_url": tracing.trace_url(signal.pk),
                "lab": lab_of if self.has_replay_permission(request, object_id) else "",
            }
        return super().change_view(request, object_id, form_url, context)

    def has_replay_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perms(lab.PERMISSIONS) and self.is_mine(request, object_id)

    @action(description="Dry run today", icon="science", permissions=["replay"])
    def replay(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What would become of the signal now."""
        signal: Signal = self.row_to_act_on(request, object_id)
        back = reverse("admin:execution_signal_change", args=[signal.pk])
        asked = partial(replay_from_a_web_process, signal)
        return lab.replayed(request, f"Dry run of {signal}", back, f"signal={signal.pk}", asked)

    @display(description="action")
    def shown_action(self, signal: Signal) -> str:
        return signal.action

    @display(description="state", label=SIGNAL_COLORS)
    def shown_state(self, signal: Signal) -> tuple[str, str]:
        return signal.state, signal.get_state_display()
