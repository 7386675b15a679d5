"""What waits for another person, and the rules for the people themselves."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column
from risk import proposals
from risk.admin.audited import REASON, AuditedAdmin
from risk.admin.confirm import Question, ReasonForm, ask, asking_action
from risk.admin.events import changed_lines
from risk.models import Proposal, Safeguards

STATE_COLORS = {
    Proposal.State.OPEN: "warning",
    Proposal.State.APPROVED: "success",
    Proposal.State.REJECTED: "danger",
    Proposal.State.EXPIRED: "default",
    Proposal.State.SUPERSEDED: "default",
    Proposal.State.OUTDATED: "default",
}


@admin.register(Proposal)
class ProposalAdmin(ReadOnlyAdmin):
    change_form_template = "fks/proposal.html"
    list_display = (
        moment_column("proposed_at", "proposed"),
        "subject",
        "shown_kind",
        "proposed_by",
        "shown_state",
        "decided_by",
        moment_column("expires_at", "expires"),
    )
    list_filter = ("state", "kind")
    search_fields = ("subject", "proposed_by")
    nothing_yet = "With the two-person rule on, what loosens a safeguard waits here."
    actions_row = ("approve", "reject")
    actions_detail = ("approve", "reject")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        more: dict[str, Any] = (
            {} if row is None else {"changes": changed_lines(row.before, row.after)}
        )
        more |= {"kind": "" if row is None else proposals.KINDS[row.kind].label}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **more})

    def has_approve_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.allows(request, "approve", object_id)

    def has_reject_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.allows(request, "reject", object_id)

    def refusal(self, request: HttpRequest, action: str, row: Proposal) -> str:
        """Another person with the right decides; who proposed it may take it back."""
        if row.state != Proposal.State.OPEN:
            return f"it is {row.get_state_display()}"
        own = row.proposed_by == request.user.get_username()
        if own and action == "approve":
            return "nobody approves what they proposed"
        if not own and not proposals.may_decide(request.user, row):
            return f"it takes the right {proposals.KINDS[row.kind].right}"
        return ""

    @asking_action(description="Approve", icon="check", permission="approve", danger=False)
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "The change is made at once, in your name and its proposer's."
        return self._decide(request, object_id, "Approve", text)

    @asking_action(description="Reject", icon="close", permission="reject")
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._decide(request, object_id, "Reject", "Nothing changes.")

    def _decide(self, request: HttpRequest, object_id: str, verb: str, text: str) -> HttpResponse:
        row = self.row_to_act_on(request, object_id)
        if not isinstance(request.user, User):
            raise PermissionDenied
        back = reverse("admin:risk_proposal_change", args=[row.pk])
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            asked = Question(f"{verb}: {row}?", text, verb, back, is_dangerous=verb == "Reject")
            return ask(request, self.admin_site, form, asked)
        act = proposals.approve if verb == "Approve" else proposals.reject
        try:
            done = act(row.pk, request.user, form.cleaned_data["reason"])
        except proposals.NotDecided as error:
            messages.error(request, f"{row}: {error}.")
        else:
            messages.success(request, f"{row}: {done.get_state_display()}.")
        return HttpResponseRedirect(back)

    @display(description="change")
    def shown_kind(self, row: Proposal) -> str:
        return proposals.KINDS[row.kind].label

    @display(description="state", label=STATE_COLORS)
    def shown_state(self, row: Proposal) -> tuple[str, str]:
        return row.state, row.get_state_display()


@admin.register(Safeguards)
class SafeguardsAdmin(AuditedAdmin):
    """One row, made when it is first looked at."""

    audit_name = "safeguards"
    fields = ("two_person", "proposal_hours", "second_factor")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row, _ = Safeguards.objects.get_or_create(pk=1)
        return HttpResponseRedirect(reverse("admin:risk_safeguards_change", args=[row.pk]))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        payload = {name: getattr(obj, name) for name in self.fields}
        proposal = proposals.submit("safeguards", payload, reason=form.cleaned_data[REASON])
        self.note_proposal(request, proposal)
