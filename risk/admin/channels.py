"""Where people are told what happened, and what they were told."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.postgres.forms import SimpleArrayField
from django.db.models import Max, Min, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextInputWidget,
)

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import action, display
from brokers.display import moment, moment_column
from brokers.models import Account
from risk import notices
from risk.admin.audited import AuditedAdmin
from risk.admin.confirm import Question, ask, asking_action
from risk.channels import UNFILTERED, Channel, Event, Notice, Severity

ADDRESS = "address"
ADDRESS_HELP = (
    "As Apprise writes it, for example tgram://TOKEN/CHAT, discord://ID/TOKEN, "
    "slack://A/B/C/#CHANNEL, mailtos://USER:PASSWORD@HOST, ntfys://HOST/TOPIC, jsons://HOST/PATH."
)
SEVERITY_COLORS = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ALARM: "danger",
}
STATE_COLORS = {
    Notice.State.WAITING: "info",
    Notice.State.SENT: "success",
    Notice.State.FAILED: "danger",
    Notice.State.DROPPED: "default",
}


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg]
    """The channel's columns, and its address, which can be written and never read."""

    address = forms.CharField(
        label="Address",
        max_length=2000,
        required=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )
    events = forms.MultipleChoiceField(
        choices=[(one.value, one.label) for one in Event if one not in UNFILTERED],
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="None chosen: every event.",
    )
    accounts = forms.MultipleChoiceField(
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="Of events that concern an account, only these accounts'. None chosen: all.",
    )
    strategies = SimpleArrayField(
        forms.CharField(max_length=63),
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Slugs with commas between them; of events that concern a strategy, only these "
        "strategies'. Empty: all.",
    )

    class Meta:
        model = Channel
        fields: ClassVar[list[str]] = [
            "name",
            "is_active",
            "least_severity",
            "events",
            "accounts",
            "strategies",
            "person",
            "per_minute",
            "weekly_summary",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "accounts" in self.fields:
            names = Account.objects.values_list("name", flat=True)
            self.fields["accounts"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]
        if ADDRESS in self.fields:
            is_stored = bool(self.instance.sealed)
            kept = f"Stored: {self.instance.service}://… Leave empty to keep it. "
            self.fields[ADDRESS].help_text = (kept if is_stored else "") + ADDRESS_HELP

    def clean_address(self) -> str:
        address: str = self.cleaned_data[ADDRESS].strip()
        if not address and not self.instance.sealed:
            raise forms.ValidationError("A channel needs an address.")
        if address and not _is_known(address):
            raise forms.ValidationError("No service is known by this address.")
        return address


def _is_known(address: str) -> bool:
    """Whether the address names a service, with everything the service needs."""
    import apprise  # a web process needs it here only

    return "://" in address and bool(apprise.Apprise().add(address))


@admin.register(Channel)
class ChannelAdmin(AuditedAdmin):
    form = ChannelForm
    audit_name = "channel"
    list_display = (
        "name",
        "is_active",
        "service",
        "least_severity",
        "chosen",
        "shown_sent",
        "shown_waiting",
    )
    search_fields = ("name",)
    actions_row = ("test", "told")
    actions_detail = ("test", "told")
    nothing_yet = "Nobody is told anything yet: add a chat, a mailbox or a web hook."
    fieldsets = (
        (None, {"fields": ("name", "is_active", ADDRESS)}),
        (
            "What is told",
            {"fields": ("least_severity", "events", "accounts", "strategies", "person")},
        ),
        ("How often", {"fields": ("per_minute", "weekly_summary")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Channel]:
        rows: QuerySet[Channel] = super().get_queryset(request)
        waiting = Q(notices__state=Notice.State.WAITING)
        return rows.annotate(
            last_sent=Max("notices__sent_at"), oldest=Min("notices__at", filter=waiting)
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return sets
        shown: list[Any] = [
            (title, {"fields": [name for name in one["fields"] if name != ADDRESS]})
            for title, one in sets
        ]
        return shown

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("name",)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if address := form.cleaned_data.get(ADDRESS):
            obj.seal(address)
            obj.save(update_fields=["sealed", "service"])
            if change:
                self._record("address replaced", self.audit_name, obj, form, None)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """What a channel told goes with it, counted: nobody deletes one notice, and there are many."""
        told = Notice.objects.filter(channel__in=objs).count()
        shown = [str(channel) for channel in objs]
        return [*shown, f"what it told: {told}"], {"channels": len(shown)}, set(), []

    def has_test_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        may = request.user.has_perm("risk.change_channel")
        return may and self.allows(request, "test", object_id)

    def refusal(self, request: HttpRequest, action: str, row: Channel) -> str:
        return "it is switched off" if action == "test" and not row.is_active else ""

    @asking_action(description="Send a test", icon="send", permission="test", danger=False)
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        channel = self._channel(request, object_id)
        if why := self.refusal(request, "test", channel):
            messages.warning(request, f"No test is sent to {channel}: {why}.")
            return HttpResponseRedirect(_told(channel))
        form = forms.Form(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            back = reverse("admin:risk_channel_change", args=[channel.pk])
            text = "It goes the way every message goes; the list of notices says how it went."
            question = Question(f"Send a test to {channel}?", text, "Send", back, False)
            return ask(request, self.admin_site, form, question)
        title = f"This is a test of the channel {channel}"
        notices.write(Event.TEST, notices.News(title, f"Sent by {request.user}."), [channel])
        messages.success(request, "It is on its way: the list below says whether it arrived.")
        return HttpResponseRedirect(_told(channel))

    @action(description="What was told", icon="list", permissions=["view"])
    def told(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(_told(self._channel(request, object_id)))

    def _channel(self, request: HttpRequest, object_id: str) -> Channel:
        channel: Channel = self.row_to_act_on(request, object_id)
        return channel

    @display(description="events")
    def chosen(self, channel: Channel) -> str:
        return ", ".join(Event(name).label for name in channel.events) or "every event"

    @display(description="last sent")
    def shown_sent(self, channel: Any) -> Any:
        return moment(channel.last_sent)

    @display(description="waiting since")
    def shown_waiting(self, channel: Any) -> Any:
        return moment(channel.oldest)


def _told(channel: Channel) -> str:
    return reverse("admin:risk_notice_changelist", query={"channel__id__exact": channel.pk})


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    list_display = (
        moment_column("at"),
        "channel",
        "shown_severity",
        "title",
        "shown_state",
        moment_column("sent_at", "sent"),
        "tries",
        "error",
    )
    list_filter = ("state", "severity", "channel", "event")
    list_select_related = ("channel",)
    search_fields = ("title", "symbol")
    nothing_yet = "Nothing was told yet."
    fields = (
        "channel", "event", "severity", "title", "text", "account", "strategy", "symbol",
        moment_column("at"), "state", "tries", moment_column("due_at", "next try"),
        moment_column("sent_at", "sent"), "error",
    )  # fmt: skip
    readonly_fields = fields

    @display(description="severity", label=SEVERITY_COLORS)
    def shown_severity(self, row: Notice) -> tuple[int, str]:
        return row.severity, row.get_severity_display()

    @display(description="state", label=STATE_COLORS)
    def shown_state(self, row: Notice) -> tuple[str, str]:
        return row.state, row.get_state_display()
