"""Deliveries that could not be read."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.filters import IndexedValuesFilter
from brokers.admin.unfolded import action, display
from brokers.display import moment_column
from execution.admin import lab
from execution.dry_run import from_a_web_process
from execution.models import QuarantinedBody
from execution.parsing import Unreadable
from execution.schema import Invalid
from execution.second_channel import take_out
from risk.admin.confirm import Question, ReasonForm, ask, asking_action

ACCEPT = "execution.change_signal"
"""The right to let an alert in that the webhook refused."""

_HEAD = (moment_column("received_at", "received"), "strategy", "code", "detail", "address")


@admin.register(QuarantinedBody)
class QuarantinedBodyAdmin(ReadOnlyAdmin):
    list_display = _HEAD
    list_filter = ("strategy", ("code", IndexedValuesFilter))
    list_defer = ("body",)
    list_select_related = ("strategy",)
    nothing_yet = "Every delivery could be read so far."
    search_fields = ("detail", "body")
    actions_detail = ("try_again", "accept")
    fields = (*_HEAD, "shown_body")
    readonly_fields = (*_HEAD, "shown_body")

    @display(description="body as received, secret masked")
    def shown_body(self, row: QuarantinedBody) -> SafeString:
        return format_html('<pre class="fks-code">{}</pre>', row.body)

    def has_replay_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perms(lab.PERMISSIONS) and self.is_mine(request, object_id)

    def has_accept_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(ACCEPT) and self.is_mine(request, object_id)

    @action(description="Try again", icon="science", permissions=["replay"])
    def try_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """How today's format reads it, and what would become of it; nothing is stored."""
        row: QuarantinedBody = self.row_to_act_on(request, object_id)
        asked = partial(from_a_web_process, row.strategy, row.body.encode())
        place = f"quarantined={row.pk}"
        return lab.replayed(request, f"Dry run of {row}", _page_of(row), place, asked)

    @asking_action(description="Accept now", icon="move_to_inbox", permission="accept")
    def accept(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row: QuarantinedBody = self.row_to_act_on(request, object_id)
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            return ask(request, self.admin_site, form, _question(row))
        try:
            accepted = take_out(row, reason=form.cleaned_data["reason"])
        except (Unreadable, Invalid) as error:
            messages.error(request, f"It still cannot be read: {error}")
            return HttpResponseRedirect(_page_of(row))
        if accepted.is_duplicate:
            told = "It had been accepted before, or came again by the webhook; this is its signal."
            messages.warning(request, told)
        return HttpResponseRedirect(
            reverse("admin:execution_signal_change", args=[accepted.signal_id])
        )


def _page_of(row: QuarantinedBody) -> str:
    return reverse("admin:execution_quarantinedbody_change", args=[row.pk])


def _question(row: QuarantinedBody) -> Question:
    return Question(
        title=f"Accept this alert for {row.strategy}?",
        text="It is read by today's format and stored as a signal. Older than the strategy allows, it "
        "is recorded and not traded; fresh, it trades like any other. Try it first. A sender that "
        "repeats what was refused (Standard Webhooks does) will bring it again: do not accept it then.",
        button="Accept it",
        back=_page_of(row),
    )
