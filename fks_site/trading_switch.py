"""The page that halts and resumes trading."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminRadioSelectWidget, UnfoldAdminSelectWidget

from brokers.models import Account
from execution.models import Strategy
from fks_site.dashboard import CACHE_KEY
from risk import switch
from risk.admin.confirm import Question, ReasonForm, ask
from risk.models import TradingState

MAY_NOT_RELEASE = "You may halt; releasing needs another right."
_STATES = [
    (TradingState.State.HALTED.value, "Halt: nothing is sent, exits included"),
    (TradingState.State.REDUCING.value, "Reduce only: nothing but exits is sent"),
    (TradingState.State.ACTIVE.value, "Active: trade as usual"),
]


class SwitchForm(ReasonForm):
    """What to switch, and to which state."""

    field_order = ("state", "target", "reason")

    state = forms.ChoiceField(
        label="Trading",
        choices=_STATES,
        widget=UnfoldAdminRadioSelectWidget(radio_style=admin.VERTICAL),
    )
    target = forms.ChoiceField(label="For", widget=UnfoldAdminSelectWidget())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        accounts = Account.objects.values_list("name", flat=True)
        strategies = Strategy.objects.values_list("slug", flat=True)
        targets = self.fields["target"]
        assert isinstance(targets, forms.ChoiceField)  # noqa: S101  (for the type checker)
        targets.choices = [
            ("global:", "everything"),
            *((f"account:{name}", f"account {name}") for name in accounts),
            *((f"strategy:{slug}", f"strategy {slug}") for slug in strategies),
        ]

    def scope_and_key(self) -> tuple[TradingState.Scope, str]:
        scope, _, key = self.cleaned_data["target"].partition(":")
        return TradingState.Scope(scope), key


def page(request: HttpRequest) -> HttpResponse:
    """Asks for state, scope and reason; a POST with all of them switches."""
    if not any(request.user.has_perm(name) for name in (switch.HALT, switch.CHANGE)):
        raise PermissionDenied
    chosen = {name: request.GET[name] for name in ("state", "target") if name in request.GET}
    initial = {"state": TradingState.State.HALTED.value, "target": "global:"} | chosen
    form = SwitchForm(request.POST or None, initial=initial)
    if not form.is_valid():
        return ask(request, admin.site, form, _question())
    scope, key = form.scope_and_key()
    state = TradingState.State(form.cleaned_data["state"])
    if not switch.may_change(request.user, state, scope=scope, key=key):
        raise PermissionDenied(MAY_NOT_RELEASE)
    row = switch.change(state, scope=scope, key=key, reason=form.cleaned_data["reason"])
    cache.delete(CACHE_KEY)
    messages.success(request, f"Trading for {row}.")
    return HttpResponseRedirect(reverse("admin:index"))


def _question() -> Question:
    return Question(
        title="Halt or resume trading",
        text="In force for every order not yet sent as soon as you confirm. Orders at a venue stay "
        "there: cancel them on their own pages.",
        button="Switch",
        back=reverse("admin:index"),
    )
