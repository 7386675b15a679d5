"""Admin forms whose every change leaves an audit row: who, when, before, after and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from brokers.admin.base import CarefulAdmin
from risk import audit
from risk.admin import seen
from risk.models import Proposal

REASON = "reason"
LONGEST_REASON = 500
PROPOSED = "_fks_proposed"


def reason_field(**attributes: str) -> forms.CharField:
    """The question every change answers."""
    return forms.CharField(
        label="Reason",
        max_length=LONGEST_REASON,
        help_text="Why; it is kept in the audit trail.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", **attributes}),
    )


class AuditedAdmin(CarefulAdmin):
    """Asks for a reason with every change, and records the change in its own transaction.

    ``audit_name`` is the first half of the events' kind, for the model and for its inlines;
    ``memberships`` are columns beside the row's own, recorded as ``membership_event``.
    """

    audit_name = ""
    memberships: tuple[str, ...] = ()
    membership_event = ""
    inline_audit_names: ClassVar[Mapping[type[models.Model], str]] = {}
    change_form_template = "fks/change_form.html"
    delete_confirmation_template = "fks/delete_confirmation.html"

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        base = kwargs.pop("form", self.form)
        form = type(base.__name__, (base,), {REASON: reason_field()})
        return super().get_form(request, obj, change=change, form=form, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [name for name in super().get_fields(request, obj) if name != REASON]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sets = list(super().get_fieldsets(request, obj))
        if obj is None or self.has_change_permission(request, obj):
            sets.append((None, {"fields": [REASON]}))
        return sets

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page; shown anew, and nothing saved, where it is older than somebody else's change."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except seen.Stale as stale:
            messages.error(request, str(stale))
            return HttpResponseRedirect(request.get_full_path())

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if context["original"] is not None:
            formsets = [inline.formset for inline in context["inline_admin_formsets"]]
            now = seen.shown(context["adminform"].form, formsets)
            context["seen"] = request.POST.get(seen.SEEN, now)
        return super().render_change_form(request, context, *args, **kwargs)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        if change:
            seen.refuse_stale(request.POST.get(seen.SEEN, ""), form)
        return super().save_form(request, form, change)

    def note_proposal(self, request: HttpRequest, proposal: Proposal | None) -> None:
        """Remember for the answer that a part of the form waits for another person."""
        if proposal is not None:
            request.__dict__.setdefault(PROPOSED, []).append(proposal)

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        return self._proposed(request) or super().response_change(request, obj)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._proposed(request) or super().response_add(request, obj, post_url_continue)

    def _proposed(self, request: HttpRequest) -> HttpResponse | None:
        proposals: list[Proposal] = request.__dict__.get(PROPOSED, [])
        if not proposals:
            return None
        text = "Another person has to approve this before it holds: "
        messages.warning(request, text + "; ".join(str(row) for row in proposals))
        return HttpResponseRedirect(reverse("admin:risk_proposal_changelist"))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        before = _stored(obj) if change else None
        super().save_model(request, obj, form, change)
        after = _stored(obj)
        if before != after:
            self._record("changed" if change else "created", self.audit_name, obj, form, before)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        if change:
            seen.refuse_stale(request.POST.get(seen.SEEN, ""), form, formsets)
        before = self._members(form.instance)
        super().save_related(request, form, formsets, change)
        after = self._members(form.instance)
        if before != after:
            audit.record(
                f"{self.audit_name}.{self.membership_event}",
                _subject(self.audit_name, form.instance),
                before=before,
                after=after,
                reason=form.cleaned_data[REASON],
            )

    def _members(self, row: models.Model) -> dict[str, list[str]]:
        return {
            name: sorted(str(one) for one in getattr(row, name).all()) for name in self.memberships
        }

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        before = {id(one.instance): _stored(one.instance) for one in formset.initial_forms}
        super().save_formset(request, form, formset, change)
        name = self.inline_audit_names[formset.model]
        for row in formset.new_objects:
            self._record("created", name, row, form, None)
        for row, _ in formset.changed_objects:
            self._record("changed", name, row, form, before[id(row)])
        for row in formset.deleted_objects:
            audit.record(
                f"{name}.deleted",
                _subject(name, row),
                before=before[id(row)],
                reason=form.cleaned_data[REASON],
            )

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST" and not _reason(request):
            messages.error(request, "A deletion needs a reason.")
            return HttpResponseRedirect(request.get_full_path())
        return super().delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        before, subject = _stored(obj), _subject(self.audit_name, obj)
        super().delete_model(request, obj)
        reason = _reason(request)
        audit.record(f"{self.audit_name}.deleted", subject, before=before, reason=reason)

    def _record(
        self, verb: str, name: str, row: models.Model, form: Any, before: dict[str, Any] | None
    ) -> None:
        audit.record(
            f"{name}.{verb}",
            _subject(name, row),
            before=before,
            after=_stored(row),
            reason=form.cleaned_data[REASON],
        )


def _reason(request: HttpRequest) -> str:
    return request.POST.get(REASON, "").strip()[:LONGEST_REASON]


def _stored(row: models.Model) -> dict[str, Any] | None:
    """The row's columns as the database holds them: a form's instance carries unsaved values."""
    found = type(row)._default_manager.filter(pk=row.pk).first()
    return None if found is None else audit.snapshot(found)


def _subject(name: str, row: models.Model) -> str:
    return f"{name.replace('_', ' ')} {row}"
