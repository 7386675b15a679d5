"""Strategies with their routes, and secrets that are shown once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectWidget

from brokers import access
from brokers.admin.unfolded import TabularInline, action, display
from brokers.display import moment_column
from execution import readiness
from execution.admin import lab
from execution.admin.routes import RouteInline
from execution.messages import SECRET, curl, lacks_confidence, messages_for
from execution.models import Route, Strategy, WebhookSecret
from execution.proposable import (
    APPROVAL,
    APPROVAL_COLUMNS,
    DEMAND_COLUMNS,
    DEMANDS,
    SENDERS,
    SENDERS_COLUMNS,
    approval_payload,
    demands_payload,
    senders_payload,
)
from execution.rotation import end_other_profiles, rotate, take_back
from risk import proposals
from risk.admin.audited import REASON, AuditedAdmin
from risk.admin.confirm import Question, ReasonForm, ask, asking_action

ROTATE = "execution.change_webhooksecret"
PROPOSABLE = (
    (SENDERS, SENDERS_COLUMNS, senders_payload),
    (APPROVAL, APPROVAL_COLUMNS, approval_payload),
    (DEMANDS, DEMAND_COLUMNS, demands_payload),
)
"""What may take another person, the columns it is about, and how it is put to them."""


class SecretInline(TabularInline):
    """When secrets were made and used; the secrets themselves are not here to be shown."""

    model = WebhookSecret
    fields = (
        "profile",
        moment_column("created_at", "made"),
        moment_column("expires_at", "ends"),
        moment_column("last_used_at", "last used"),
    )
    readonly_fields = fields
    extra = 0
    can_delete = False
    hide_title = True
    verbose_name_plural = "secrets"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class RotateForm(ReasonForm):
    field_order = ("old", "reason")

    old = forms.ChoiceField(
        label="Secrets in use now",
        choices=[("later", "work for 24 more hours"), ("now", "stop working at once")],
        widget=UnfoldAdminSelectWidget(),
    )


@admin.register(Strategy)
class StrategyAdmin(AuditedAdmin):
    audit_name = "strategy"
    memberships = ("senders",)
    membership_event = "senders_changed"
    inline_audit_names: ClassVar[Mapping[Any, str]] = {Route: "route", WebhookSecret: "secret"}
    inlines = (RouteInline, SecretInline)
    list_display = ("slug", "is_enabled", "auth", "format", "allowlist", "accounts", "note")
    list_filter = ("is_enabled", "auth")
    list_select_related = ("allowlist",)
    search_fields = ("slug", "note")
    actions_detail = ("rotate", "messages", "lab")
    change_form_before_template = "fks/readiness.html"
    fieldsets = (
        (None, {"fields": ("slug", "is_enabled", "note")}),
        (
            "Webhook",
            {
                "fields": (
                    "webhook_path",
                    "auth",
                    "format",
                    "format_options",
                    "allowlist",
                    "senders",
                    "client_fingerprints",
                    "client_issuer",
                    "max_age",
                    "max_drift",
                    "allows_delayed",
                    "dedupe_window",
                )
            },
        ),
        (
            "How its alerts come in",
            {
                "fields": (
                    "most_alerts",
                    "most_alerts_window",
                    "expects_minutes",
                    "expects_from",
                    "expects_until",
                    "expects_zone",
                    "expects_market",
                )
            },
        ),
        (
            "How its orders are sent",
            {
                "fields": (
                    "execution",
                    "exit_execution",
                    "allowed_executions",
                    "slices",
                    "slicing_seconds",
                    "slice_quantity",
                    "ladder_percent",
                )
            },
        ),
        (
            "Stop losses",
            {
                "fields": (
                    "on_naked",
                    "trail_percent",
                    "trail_distance",
                    "trail_step",
                    "break_even_percent",
                )
            },
        ),
        (
            "Approval by a person",
            {"fields": ("needs_approval", "approval_seconds", "exits_need_approval")},
        ),
        (
            "What an entry must bring",
            {
                "fields": (
                    "min_confidence",
                    "requires_confidence",
                    "min_reward_risk",
                    "requires_reward_risk",
                )
            },
        ),
    )

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Strategy]:
        rows: QuerySet[Strategy] = super().get_queryset(request)
        routes = access.seen(request.user, Route.objects.select_related("account"))
        return rows.prefetch_related(Prefetch("routes", routes))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The slug is part of the address its senders post to; who may post is security's word."""
        fixed = ["webhook_path"] if obj is None else ["webhook_path", "slug"]
        if not request.user.has_perm(ROTATE):
            fixed += ["senders"] if obj is None else ["auth", "senders", *SENDERS_COLUMNS]
        return fixed

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row = None if object_id is None else self.get_object(request, unquote(object_id))
        told = {
            "missing": None if row is None else readiness.missing(row),
            "ending": "" if row is None else readiness.ending(row),
        }
        return super().changeform_view(
            request, object_id, form_url, {**(extra_context or {}), **told}
        )

    def has_rotate_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        mine = request.user.has_perm(ROTATE) and self.is_mine(request, object_id)
        return mine and self.allows(request, "rotate", object_id)

    def refusal(self, request: HttpRequest, action: str, row: Strategy) -> str:
        if action != "rotate" or row.needs_secret:
            return ""
        if row.is_manual:
            return "Orders by hand come by no webhook: there is no secret to make"
        if row.live_secrets.exists():
            return ""
        return "The profile jwt has no secret: users post with their tokens"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: its signals refer to it. Switch it off instead."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change and obj.auth != Strategy.Auth.JWT:
            obj.is_enabled = False  # it has no secret yet
        for kind, columns, payload in PROPOSABLE if change else ():
            if set(columns) & set(form.changed_data):
                self._propose(request, obj, kind, columns, payload(obj), form.cleaned_data[REASON])
        super().save_model(request, obj, form, change)
        if change and "auth" in form.changed_data:
            self._follow_profile(request, obj, form.cleaned_data[REASON])

    def _follow_profile(self, request: HttpRequest, obj: Strategy, reason: str) -> None:
        if take_back(obj, reason=reason):
            messages.success(request, "Its secrets of before work on: they do not end any more.")
        elif end := end_other_profiles(obj, reason=reason):
            until = f"Secrets of its former profile work until {end:%Y-%m-%d %H:%M} UTC."
            messages.warning(request, f"{until} “New secret” can end them at once.")

    def _propose(
        self,
        request: HttpRequest,
        obj: Strategy,
        kind: proposals.Kind,
        columns: Sequence[str],
        payload: proposals.Payload,
        reason: str,
    ) -> None:
        """What loosens may take another person: until then the stored columns stay."""
        if proposals.must_wait(kind.name, payload):
            self.note_proposal(request, proposals.submit(kind.name, payload, reason=reason))
            stored = Strategy.objects.get(pk=obj.pk)
            for name in columns:
                setattr(obj, name, getattr(stored, name))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        strategy: Strategy = form.instance
        if obstacles := readiness.missing(strategy):
            messages.warning(request, f"{strategy} does not trade yet. {' '.join(obstacles)}")
        if ending := readiness.ending(strategy):
            messages.warning(request, f"{ending} Make a new secret before.")

    @action(description="Alert messages", icon="content_paste", permissions=["view"])
    def messages(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What to paste into TradingView."""
        strategy = self._strategy(request, object_id)
        address = request.build_absolute_uri(f"/webhook/{strategy.slug}")
        now = timezone.now().isoformat(timespec="seconds").replace("+00:00", "Z")
        context = {
            "title": f"Alert messages for {strategy}",
            "strategy": strategy,
            "address": address,
            "texts": messages_for(strategy),
            "secret": SECRET,
            "placeholder": "{{plot_0}}",
            "lacks_confidence": lacks_confidence(strategy),
            "curl": curl(strategy, address, now),
            "back": _page_of(strategy),
            "lab": _lab_of(strategy),
        }
        return lab.answer(request, "fks/messages.html", **context)

    @action(description="Try an alert", icon="science", permissions=["view"])
    def lab(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(_lab_of(self._strategy(request, object_id)))

    def _strategy(self, request: HttpRequest, object_id: str) -> Strategy:
        strategy: Strategy | None = self.get_object(request, unquote(object_id))
        if strategy is None:
            raise Http404
        return strategy

    @asking_action(
        description="New secret",
        icon="key",
        permission="rotate",
        danger=False,
    )
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        strategy: Strategy = self.row_to_act_on(request, object_id)
        if why := self.refusal(request, "rotate", strategy):
            messages.error(request, f"{why}.")
            return HttpResponseRedirect(_page_of(strategy))
        form = RotateForm(request.POST or None)
        if not form.is_valid():
            return ask(request, self.admin_site, form, _question(strategy))
        at_once = form.cleaned_data["old"] == "now"
        values = rotate(strategy, at_once=at_once, reason=form.cleaned_data["reason"])
        if not values:
            messages.success(request, "Its secrets end; users post with their tokens.")
            return HttpResponseRedirect(_page_of(strategy))
        return self._shown_once(request, strategy, values)

    def _shown_once(
        self, request: HttpRequest, strategy: Strategy, values: Mapping[str, str]
    ) -> HttpResponse:
        """The answer to the POST itself: a redirect would have to keep the secrets somewhere."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"New secret of {strategy}",
            "strategy": strategy,
            "secrets": values,
            "address": request.build_absolute_uri(f"/webhook/{strategy.slug}"),
            "back": _page_of(strategy),
        }
        response = TemplateResponse(request, "fks/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @display(description="address")
    def webhook_path(self, strategy: Strategy) -> str:
        return f"/webhook/{strategy.slug}" if strategy.pk else "/webhook/<slug>"

    @display(description="accounts")
    def accounts(self, strategy: Strategy) -> str:
        names = [route.account.name for route in strategy.routes.all() if route.is_enabled]
        return ", ".join(names) or "none"


def _lab_of(strategy: Strategy) -> str:
    return f"{reverse('admin:execution_lab')}?strategy={strategy.slug}"


def _page_of(strategy: Strategy) -> str:
    return reverse("admin:execution_strategy_change", args=[strategy.pk])


def _question(strategy: Strategy) -> Question:
    title, text, button = (
        f"A new secret for {strategy}",
        "It is shown once, on the next page. Two secrets may work side by side meanwhile.",
        "Make the secret",
    )
    if strategy.auth == Strategy.Auth.JWT:
        title, text, button = (
            f"End the secrets of {strategy}",
            "They are of a former profile. Users post with their tokens.",
            "End them",
        )
    return Question(
        title=title, text=text, button=button, back=_page_of(strategy), is_dangerous=False
    )
