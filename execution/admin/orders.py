"""Orders: lists by what they need, the story of one, and canceling."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.utils import unquote
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import average_column, moment_column, number_column
from execution import commands
from execution.admin import adoptions
from execution.admin.adoptions import CANCEL
from execution.admin.search import AgeFilter, by_id
from execution.admin.story import order_stories
from execution.models import Order
from execution.states import (
    AT_VENUE,
    HELD,
    ORDER_COLORS,
    TERMINAL,
    UNRESOLVED,
    UNSENT,
    WORKING,
    OrderState,
)
from risk.admin.confirm import Question, ReasonForm, ask, asking_action

STAGES = {
    "working": ("Working", Q(state__in=sorted(WORKING))),
    "approval": ("Awaiting approval", Q(state__in=sorted(HELD))),
    "unknown": ("Unknown", Q(state=OrderState.UNKNOWN)),
    "needs_operator": ("Needs operator", Q(state=OrderState.NEEDS_OPERATOR)),
    "denied": ("Denied", Q(state=OrderState.DENIED)),
    "rejected": ("Rejected", Q(state=OrderState.REJECTED)),
}
"""The tabs over the list: what an order needs, and which rows that are."""


ACTED_ON: Mapping[str, Set[OrderState]] = {
    "ask_venue": AT_VENUE | UNRESOLVED,
    "cancel": WORKING,
    "adopt": UNRESOLVED,
    "mark_ended": {OrderState.NEEDS_OPERATOR},
}
"""The states in which each action has something to do."""


class StageFilter(SimpleListFilter):
    title = "stage"
    parameter_name = "stage"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, label) for name, (label, _) in STAGES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(STAGES[value][1]) if value in STAGES else queryset


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    change_form_template = "fks/order.html"
    list_display = (
        moment_column("created_at", "created"),
        "side",
        "symbol",
        "account",
        "type",
        number_column("quantity"),
        number_column("filled_quantity", "filled"),
        average_column("average_price"),
        "shown_state",
        "reason",
    )
    list_filter = (StageFilter, AgeFilter, "side", "type", "account", "strategy")
    list_select_related = ("account",)
    list_defer = ("verdicts", "sizing", "detail")
    search_fields = ("id", "client_order_id", "broker_order_id", "symbol")
    nothing_yet = "A signal makes one order for each route of its strategy."
    search_help_text = "Order id, client id, broker id or symbol"
    actions_row = ("ask_venue", "cancel", "adopt", "mark_ended")
    actions_detail = ("ask_venue", "cancel", "adopt", "mark_ended")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(
                by_id(
                    term,
                    id="uuid",
                    signal="uuid",
                    client_order_id="exact",
                    broker_order_id="exact",
                    symbol="symbol",
                )
            )
        return queryset, False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        order = self.get_object(request, unquote(object_id))
        stories = (
            () if order is None else order_stories(Order.objects.filter(pk=order.pk), request.user)
        )
        story = stories[0] if stories else None
        return super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "story": story}
        )

    def has_cancel_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "cancel", object_id)

    @asking_action(description="Cancel order", icon="cancel", permission="cancel")
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        order = self._order(request, object_id)
        back = _page_of(order)
        form = ReasonForm(request.POST or None)
        if order.state not in WORKING:
            messages.warning(request, f"This order has ended: {order.get_state_display()}.")
            return HttpResponseRedirect(back)
        if not form.is_valid():
            return ask(request, self.admin_site, form, _question(order, back))
        commands.cancel(order, form.cleaned_data["reason"])
        messages.success(request, "The cancel is on its way; the journal shows how it ends.")
        return HttpResponseRedirect(back)

    def has_ask_venue_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "ask_venue", object_id)

    def has_mark_ended_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "mark_ended", object_id)

    def _may(self, request: HttpRequest, action: str, object_id: Any) -> bool:
        return request.user.has_perm(CANCEL) and self.allows(request, action, object_id)

    def refusal(self, request: HttpRequest, action: str, row: Order) -> str:
        if row.state in ACTED_ON[action]:
            return ""
        if row.state in TERMINAL:
            return f"it has ended: {row.get_state_display()}"
        if action == "mark_ended" and row.state == OrderState.UNKNOWN:
            return "FKS still looks for it"
        return f"it is {row.get_state_display()}"

    @asking_action(
        description="Ask the venue now", icon="search", permission="ask_venue", danger=False
    )
    def ask_venue(self, request: HttpRequest, object_id: str) -> HttpResponse:
        order = self._order(request, object_id)
        form = ReasonForm(request.POST or None)
        if form.is_valid():
            try:
                commands.ask_venue(order, form.cleaned_data["reason"])
            except commands.Conflict as conflict:
                messages.warning(request, f"Not asked: {conflict.detail}.")
            else:
                messages.success(request, "A worker asks the venue; the journal shows the answer.")
            return HttpResponseRedirect(_page_of(order))
        text = "A worker asks for this order by its ids and books what the venue says."
        question = Question(f"Ask about: {order}?", text, "Ask now", _page_of(order), False)
        return ask(request, self.admin_site, form, question)

    @asking_action(description="Mark as not at the venue", icon="block", permission="mark_ended")
    def mark_ended(self, request: HttpRequest, object_id: str) -> HttpResponse:
        order = self._order(request, object_id)
        form = ReasonForm(request.POST or None)
        if order.state != OrderState.NEEDS_OPERATOR:
            messages.warning(request, f"Nothing to mark: it is {order.get_state_display()}.")
            return HttpResponseRedirect(_page_of(order))
        if not form.is_valid():
            return ask(request, self.admin_site, form, _mark_question(order))
        try:
            commands.mark_ended(order, form.cleaned_data["reason"])
        except commands.Conflict as conflict:
            messages.warning(request, f"Not marked: {conflict.detail}.")
        else:
            messages.success(request, "Marked: its symbol trades again.")
        return HttpResponseRedirect(_page_of(order))

    def has_adopt_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "adopt", object_id)

    @asking_action(description="Adopt an order at the venue", icon="move_down", permission="adopt")
    def adopt(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return adoptions.ask_for_id(request, self._order(request, object_id))

    def _order(self, request: HttpRequest, object_id: str) -> Order:
        return cast(Order, self.row_to_act_on(request, object_id))

    @display(description="state", label=ORDER_COLORS)
    def shown_state(self, order: Order) -> tuple[str, str]:
        return order.state, order.get_state_display()


def _page_of(order: Order) -> str:
    return reverse("admin:execution_order_change", args=[order.pk])


def _mark_question(order: Order) -> Question:
    text = (
        f"Look at the venue first: open orders, closed orders and trades, for {order.client_order_id}. "
        "Should it be there after all, its fills are booked as corrections, and a new order in its "
        "place has doubled it."
    )
    return Question(f"Not at the venue: {order}?", text, "It is not there", _page_of(order))


def _question(order: Order, back: str) -> Question:
    text = "An order at the venue may still fill before its cancel arrives."
    if order.state in UNRESOLVED:
        text = "Nobody knows yet whether the venue has it: it is cancelled as soon as it is found."
    if order.state in UNSENT:
        text = "It has not been sent: canceling it now ends it for good."
    elif order.role == Order.Role.STOP_LOSS:
        text = "It is a stop loss: its position is unguarded until FKS has placed another one."
    return Question(f"Cancel: {order}?", text, "Cancel the order", back)
