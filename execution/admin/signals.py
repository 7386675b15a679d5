"""Signals: lists, and the story of one."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column
from execution.admin.search import AgeFilter, by_id, few
from execution.admin.story import signal_story
from execution.models import Signal
from execution.states import SIGNAL_COLORS


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
    list_filter = (AgeFilter, "state", "action", "strategy")
    list_select_related = ("strategy",)
    search_fields = ("id", "symbol")
    nothing_yet = "Alerts posted to a strategy's webhook appear here."
    search_help_text = "Signal id or symbol"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(by_id(term, id="uuid", symbol="istartswith"))
        return few(request, queryset), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        signal = self.get_object(request, unquote(object_id))
        story = None if signal is None else signal_story(signal)
        return super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "story": story}
        )

    @display(description="action")
    def shown_action(self, signal: Signal) -> str:
        return signal.action

    @display(description="state", label=SIGNAL_COLORS)
    def shown_state(self, signal: Signal) -> tuple[str, str]:
        return signal.state, signal.get_state_display()
