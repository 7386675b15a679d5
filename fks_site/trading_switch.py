"""The page that halts and resumes trading."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminRadioSelectWidget, UnfoldAdminSelectWidget

from brokers import access
from brokers.models import Account
from execution import commands, halting
from execution.halting import Mode
from execution.models import Strategy
from fks_site.dashboard import forget
from risk import switch
from risk.admin.confirm import Question, ReasonForm, ask
from risk.models import TradingState

MAY_NOT = "Halting, releasing and doing away with orders are three rights, and you lack this one."
_MODES = [
    (Mode.HALT.value, "Halt: nothing is sent but stop losses, exits included"),
    (Mode.REDUCE_ONLY.value, "Reduce only: nothing but exits is sent"),
    (Mode.CANCEL_ALL.value, "Cancel all: halt, and cancel every working order but stop losses"),
    (Mode.FLATTEN.value, "Flatten: cancel all, and close every position at the market"),
    (Mode.RESUME.value, "Active: trade as usual"),
]


class SwitchForm(ReasonForm):
    """What to switch, and how."""

    field_order = ("mode", "target", "reason")

    mode = forms.ChoiceField(
        label="Trading",
        choices=_MODES,
        widget=UnfoldAdminRadioSelectWidget(radio_style=admin.VERTICAL),
    )
    target = forms.ChoiceField(label="For", widget=UnfoldAdminSelectWidget())

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        accounts = access.own(user, Account.objects.all()).values_list("name", flat=True)
        strategies = access.own(user, Strategy.objects.all()).values_list("slug", flat=True)
        targets = self.fields["target"]
        assert isinstance(targets, forms.ChoiceField)  # noqa: S101  (for the type checker)
        narrow = [
            *((f"account:{name}", f"account {name}") for name in accounts),
            *((f"strategy:{slug}", f"strategy {slug}") for slug in strategies),
        ]
        if access.is_restricted(user):
            targets.choices = narrow
            return
        targets.choices = [
            ("global:", "everything"),
            *narrow,
            *((f"venue:{name}", f"venue {name}") for name in halting.venues()),
            *((f"symbol:{name}", f"symbol {name}") for name in halting.symbols()),
        ]

    def scope_and_key(self) -> tuple[str, str]:
        scope, _, key = self.cleaned_data["target"].partition(":")
        return scope, key


def page(request: HttpRequest) -> HttpResponse:
    """Asks for mode, scope and reason; a POST with all of them switches."""
    if not any(request.user.has_perm(name) for name in (switch.HALT, switch.CHANGE)):
        raise PermissionDenied
    chosen = {name: request.GET[name] for name in ("mode", "target") if name in request.GET}
    initial = {"mode": Mode.HALT.value, "target": "global:"} | chosen
    form = SwitchForm(request.user, request.POST or None, initial=initial)
    if not form.is_valid():
        return ask(request, admin.site, form, _question())
    scope, key = form.scope_and_key()
    mode = Mode(form.cleaned_data["mode"])
    if not halting.may_press(request.user, mode, TradingState.Scope(scope), key):
        raise PermissionDenied(MAY_NOT)
    row, proposal = commands.switch_trading(
        mode=mode, scope=scope, key=key, reason=form.cleaned_data["reason"]
    )
    forget(request.user)
    if proposal is None:
        messages.success(request, f"Trading for {row}.")
    else:
        messages.warning(request, "Another person has to approve this release before it holds.")
    return HttpResponseRedirect(reverse("admin:index"))


def _question() -> Question:
    return Question(
        title="Halt or resume trading",
        text="In force for every order not yet sent as soon as you confirm. What is to be cancelled or "
        "closed is repeated until the venue has complied; the home page shows what is left.",
        button="Switch",
        back=reverse("admin:index"),
    )
