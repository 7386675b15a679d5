"""The page that halts and resumes trading."""

from __future__ import annotations

import json
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
    seen = forms.JSONField(required=False, widget=forms.HiddenInput())
    """The generation of each switch when the page was opened."""

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        accounts = access.own(user, Account.objects.all()).values_list("name", flat=True)
        strategies = access.own(user, Strategy.objects.all()).values_list("slug", flat=True)
        narrow = [
            *((f"account:{name}", f"account {name}") for name in accounts),
            *((f"strategy:{slug}", f"strategy {slug}") for slug in strategies),
        ]
        self.targets = narrow
        if not access.is_restricted(user):
            self.targets = [
                ("global:", "everything"),
                *narrow,
                *((f"venue:{name}", f"venue {name}") for name in halting.venues()),
                *((f"symbol:{name}", f"symbol {name}") for name in halting.symbols()),
            ]
        target = self.fields["target"]
        assert isinstance(target, forms.ChoiceField)  # noqa: S101  (for the type checker)
        target.choices = self.targets
        self.fields["seen"].initial = self._generations()

    def scope_and_key(self) -> tuple[TradingState.Scope, str]:
        scope, _, key = self.cleaned_data["target"].partition(":")
        return TradingState.Scope(scope), key

    def refuse_if_stale(self) -> None:
        """Raise Stale for a release of a state that whoever asks for it has not seen; a halt is never
        too late.
        """
        scope, key = self.scope_and_key()
        if not switch.loosens(Mode(self.cleaned_data["mode"]).state, scope=scope, key=key):
            return
        seen, now = self.cleaned_data["seen"], TradingState.objects.get(scope=scope, key=key)
        if isinstance(seen, dict) and seen.get(self.cleaned_data["target"], 0) != now.generation:
            raise Stale(
                f"{now} by now ({now.changed_by}: {now.reason}). That was not so when you opened this "
                "page, so nothing was changed. Confirm again if you mean it."
            )

    def look_again(self) -> None:
        """Have the next try know what this one has not seen."""
        self.data = {**self.data, "seen": json.dumps(self._generations())}

    def _generations(self) -> dict[str, int]:
        """How often each switch has been changed that may be chosen."""
        rows = TradingState.objects.values_list("scope", "key", "generation")
        found = {f"{scope}:{key}": generation for scope, key, generation in rows}
        return {target: found[target] for target, _ in self.targets if target in found}


class Stale(Exception):
    """The switch has been changed since its page was opened."""


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

    def may() -> None:
        if not halting.may_press(request.user, mode, scope, key):
            raise PermissionDenied(MAY_NOT)
        form.refuse_if_stale()

    try:
        row, proposal = commands.switch_trading(
            mode=mode, scope=scope, key=key, reason=form.cleaned_data["reason"], may=may
        )
    except Stale as error:
        form.add_error("mode", str(error))
        form.look_again()
        return ask(request, admin.site, form, _question())
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
