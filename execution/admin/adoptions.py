"""Adopting an order of unknown fate: the operator names the venue's order, sees what the venue says of
it beside what we sent, and has it taken over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST
from unfold.widgets import UnfoldAdminTextInputWidget

from brokers import access
from brokers.decimals import decimal_text
from execution import commands
from execution.models import Adoption, Order
from execution.states import UNRESOLVED
from risk.admin.audited import reason_field
from risk.admin.confirm import Question, ReasonForm, ask

LOOK, CANCEL = "execution.view_order", "execution.change_order"
TOLD = ("symbol", "side", "quantity", "status", "filled", "average_price", "client_order_id")
"""What the venue says of an order, in the order it is read."""


class AdoptForm(ReasonForm):
    broker_order_id = forms.CharField(
        max_length=100,
        label="The venue's order id",
        help_text="As the venue's own page shows it.",
        widget=UnfoldAdminTextInputWidget(
            attrs={"autofocus": "", "autocomplete": "off", "spellcheck": "false"}
        ),
    )
    reason = reason_field()
    field_order = ("broker_order_id", "reason")


@dataclass(frozen=True, slots=True)
class Beside:
    """One thing the venue says, beside ours."""

    name: str
    ours: str
    theirs: str

    @property
    def differs(self) -> bool:
        return bool(self.ours) and self.ours != self.theirs


def urls() -> list[URLPattern]:
    view = admin.site.admin_view
    return [
        path("adoptions/<int:pk>/", view(page), name="adoption"),
        path("adoptions/<int:pk>/take/", view(require_POST(take)), name="take_adoption"),
    ]


def ask_for_id(request: HttpRequest, order: Order) -> HttpResponse:
    """Which of the venue's orders it is, and why the operator thinks so."""
    back = reverse("admin:execution_order_change", args=[order.pk])
    form = AdoptForm(request.POST or None)
    if order.state not in UNRESOLVED:
        messages.warning(request, f"Nothing to adopt: it is {order.get_state_display()}.")
        return HttpResponseRedirect(back)
    if not form.is_valid():
        return ask(request, admin.site, form, _question(order, back))
    named = form.cleaned_data["broker_order_id"]
    try:
        row = commands.adopt(order, named, form.cleaned_data["reason"])
    except commands.Conflict as conflict:
        messages.error(request, f"Not adopted, {conflict.get_codes()}: {conflict.detail}.")
        return HttpResponseRedirect(back)
    return HttpResponseRedirect(reverse("admin:adoption", args=[row.pk]))


def _question(order: Order, back: str) -> Question:
    text = (
        "The venue is asked for the order with the id you type. You see what it says beside what we "
        "sent; nothing is taken over before you say so."
    )
    return Question(f"Which order at the venue is: {order}?", text, "Ask the venue", back, False)


def page(request: HttpRequest, pk: int) -> HttpResponse:
    """What the venue says, as soon as it has said it."""
    if not request.user.has_perm(LOOK):
        raise PermissionDenied
    row = _row(request, pk)
    request.current_app = admin.site.name
    context = {
        **admin.site.each_context(request),
        "title": "Adopt an order",
        "adoption": row,
        "order": row.order,
        "lines": _lines(row),
        "waits": row.state in Adoption.FOR_WORKERS,
        "may_take": row.state == Adoption.State.FOUND and _may_act(request, row),
    }
    response = TemplateResponse(request, "fks/adoption.html", context)
    response["Cache-Control"] = "no-store"
    return response


def take(request: HttpRequest, pk: int) -> HttpResponse:
    """The operator's word."""
    row = _row(request, pk)
    if not _may_act(request, row):
        raise PermissionDenied
    try:
        commands.take_over(row)
    except commands.Conflict as conflict:
        messages.warning(request, f"Not taken over: {conflict.detail}.")
    return HttpResponseRedirect(reverse("admin:adoption", args=[pk]))


def _row(request: HttpRequest, pk: int) -> Adoption:
    rows = Adoption.objects.select_related("order__account")
    row = access.seen(request.user, rows).filter(pk=pk).first()
    if row is None:
        raise Http404
    return row


def _may_act(request: HttpRequest, row: Adoption) -> bool:
    return request.user.has_perm(CANCEL) and access.may_change(request.user, row.order)


def _lines(row: Adoption) -> list[Beside]:
    """The venue's words beside ours; what only one side knows has no other."""
    order, told = row.order, row.told
    if not told:
        return []
    ours: dict[str, Any] = {
        "symbol": order.symbol,
        "side": order.side,
        "quantity": decimal_text(order.quantity),
        "client_order_id": order.client_order_id,
    }
    shown = [name for name in TOLD if name in told]  # the database has an order of its own
    return [Beside(name.replace("_", " "), ours.get(name, ""), told[name]) for name in shown]
