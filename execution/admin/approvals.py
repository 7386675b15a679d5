"""Approvals: everything that waits for a person, on one page. It is read on a telephone at night, so it
says first what, how long, and why, and asks again every two seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from brokers import access
from execution import commands
from execution.alerts import Alert
from execution.approvals import RIGHT
from execution.models import Order, Position
from execution.states import HELD, OrderState
from risk import proposals
from risk.admin.audited import reason_field
from risk.admin.confirm import Question, ReasonForm, ask
from risk.models import Proposal

LOOK = ("execution.view_order", "execution.view_signal")
MOST = 50
APPROVE, REJECT = "approve", "reject"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order with what a person needs to know to decide."""

    order: Order
    alert: Alert
    held: Decimal
    seconds: int
    doubts: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether it can still be decided on."""
        return self.order.state == OrderState.AWAITING_APPROVAL and self.seconds > 0


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal of the two-person rule, and whether this person may approve it."""

    row: Proposal
    seconds: int
    is_mine_to_decide: bool


class ApprovalForm(ReasonForm):
    """To say yes quickly, no reason is needed."""

    reason = reason_field(autofocus="")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = False


def urls() -> list[URLPattern]:
    return [
        path("approvals/", admin.site.admin_view(page), name="approvals"),
        path(
            "approvals/<uuid:order_id>/<str:verb>/",
            admin.site.admin_view(decide),
            name="decide_approval",
        ),
    ]


def page(request: HttpRequest) -> HttpResponse:
    """What waits, the most urgent first."""
    if not request.user.has_perms(LOOK):
        raise PermissionDenied
    now = timezone.now()
    request.current_app = admin.site.name
    context = {
        **admin.site.each_context(request),
        "title": "Approvals",
        "waiting": _waiting(request, now),
        "proposed": _proposed(request, now),
        "may_decide": request.user.has_perm(RIGHT),
        "at": now,
    }
    response = TemplateResponse(request, "fks/approvals.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _waiting(request: HttpRequest, now: datetime) -> list[Waiting]:
    rows = Order.objects.filter(state__in=HELD).select_related("account", "strategy", "signal")
    orders = list(access.seen(request.user, rows).order_by("approve_by")[:MOST])
    positions = Position.objects.filter(account__in={order.account_id for order in orders})
    held = {(row.account_id, row.symbol): row.quantity for row in positions}
    return [_told(order, held, now) for order in orders]


def _told(order: Order, positions: Mapping[tuple[int, str], Decimal], now: datetime) -> Waiting:
    doubts = [one["detail"] for one in order.verdicts if not one["passed"]]
    left = (order.approve_by - now).total_seconds() if order.approve_by else 0
    asked = {"symbol": order.symbol, "action": order.side}
    alert = Alert.from_json(order.signal.alert if order.signal else asked)
    held = positions.get((order.account_id, order.symbol), Decimal(0))
    return Waiting(order, alert, held, max(0, int(left)), tuple(doubts))


def _proposed(request: HttpRequest, now: datetime) -> list[Proposed]:
    if not request.user.has_perm("risk.view_proposal"):
        return []
    rows = access.seen(
        request.user, Proposal.objects.filter(state=Proposal.State.OPEN, expires_at__gt=now)
    )
    return [
        Proposed(
            row,
            int((row.expires_at - now).total_seconds()),
            proposals.may_decide(request.user, row),
        )
        for row in rows.order_by("expires_at")[:MOST]
    ]


def decide(request: HttpRequest, order_id: UUID, verb: str) -> HttpResponse:
    """Asks once more, with the reason; a POST decides."""
    user = request.user
    if not user.has_perm(RIGHT) or not isinstance(user, User):
        raise PermissionDenied
    mine = access.own(user, Order.objects.select_related("account", "strategy"))
    order = mine.filter(pk=order_id).first()
    if order is None or verb not in (APPROVE, REJECT):
        raise Http404
    back = reverse("admin:approvals")
    approves = verb == APPROVE
    form = (ApprovalForm if approves else ReasonForm)(request.POST or None)
    if request.method != "POST" or not form.is_valid():
        return ask(request, admin.site, form, _question(order, back, approves=approves))
    _carry_out(request, order, user, form, approves=approves)
    return HttpResponseRedirect(back)


def _carry_out(
    request: HttpRequest, order: Order, user: User, form: forms.Form, *, approves: bool
) -> None:
    note = form.cleaned_data["reason"]
    try:
        commands.decide_on_order(order, user, approve=approves, note=note)
    except commands.Refused as refused:
        messages.error(request, f"{order}: {refused.detail}.")
        return
    if approves:
        messages.success(request, f"{order}: approved. It is judged once more, then sent.")
    else:
        messages.success(request, f"{order}: rejected.")


def _question(order: Order, back: str, *, approves: bool) -> Question:
    if not approves:
        return Question(f"Reject: {order}?", "It ends here and is not sent.", "Reject", back)
    text = (
        "It is judged once more by the market, limits and switches of this moment, then sent: never "
        "larger than shown."
    )
    return Question(f"Approve: {order}?", text, "Approve", back, is_dangerous=False)
