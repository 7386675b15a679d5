"""Comparing accounts with their venues on demand: on an account's page, and over the differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString

from brokers import access
from brokers.admin.unfolded import display
from brokers.display import moment
from brokers.models import Account
from execution import commands
from risk.admin.accounts import AuditedAccountAdmin
from risk.admin.confirm import Question, ask, asking_action

COMPARE = "execution.change_difference"
TEXT = (
    "A worker reads open orders, positions and balances from the venue. What differs stands under "
    "Differences and blocks entries in its symbol; nothing is changed at the venue."
)


def confirmed(
    request: HttpRequest, site: Any, accounts: Sequence[Account], title: str, back: str
) -> HttpResponse:
    """Ask first; then have workers compare ``accounts``, and go ``back``."""
    form = forms.Form(request.POST if request.method == "POST" else None)
    if not form.is_valid():
        return ask(request, site, form, Question(title, TEXT, "Compare now", back, False))
    if commands.compare(accounts):
        messages.success(request, "A worker compares it now; the time of the comparison says when.")
    else:
        messages.warning(request, "The queue does not answer: it is compared within a minute.")
    return HttpResponseRedirect(back)


class ComparedAccountAdmin(AuditedAccountAdmin):
    actions_detail: tuple[str, ...] = (*AuditedAccountAdmin.actions_detail, "compare")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sets = list(super().get_fieldsets(request, obj))
        if obj is not None:
            sets.insert(1, ("Comparison with the venue", {"fields": ["shown_compared"]}))
        return sets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*super().get_readonly_fields(request, obj), "shown_compared"]

    @display(description="last compared")
    def shown_compared(self, account: Account) -> SafeString | str:
        return moment(account.reconciled_at) if account.reconciled_at else "not yet"

    def has_compare_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        may = request.user.has_perm(COMPARE) and self.is_mine(request, object_id)
        return may and self.allows(request, "compare", object_id)

    def refusal(self, request: HttpRequest, action: str, row: Account) -> str:
        return "it is switched off" if action == "compare" and not row.is_active else ""

    @asking_action(
        description="Compare now", icon="compare_arrows", permission="compare", danger=False
    )
    def compare(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account: Account = self.row_to_act_on(request, object_id)
        back = reverse("admin:brokers_account_change", args=[account.pk])
        if why := self.refusal(request, "compare", account):
            messages.warning(request, f"{account} is not compared: {why}.")
            return HttpResponseRedirect(back)
        title = f"Compare {account} with its venue?"
        return confirmed(request, self.admin_site, [account], title, back)


def compare_all(request: HttpRequest, site: Any) -> HttpResponse:
    """The accounts in use that the user works with."""
    accounts = list(access.own(request.user, Account.objects.filter(is_active=True)))
    back = reverse("admin:execution_difference_changelist")
    title = f"Compare {len(accounts)} account{'' if len(accounts) == 1 else 's'} with the venues?"
    return confirmed(request, site, accounts, title, back)


admin.site.unregister(Account)
admin.site.register(Account, ComparedAccountAdmin)
