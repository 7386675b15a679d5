"""Brokers' admins with an audit trail: brokers lies below and knows of none."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from brokers.admin.accounts import AccountAdmin
from brokers.admin.base import changed_columns
from brokers.admin.symbols import SymbolAliasAdmin
from brokers.admin.unfolded import action
from brokers.connection import test_connection
from brokers.models import Account, SymbolAlias
from risk import audit, proposals
from risk.accounts import must_start_off
from risk.admin.audited import REASON, AuditedAdmin
from risk.admin.venue_logins import VenueLoginAdmin
from risk.breakers import OPERATE
from risk.proposable import account_values

MAY_TEST = ("brokers.change_account", OPERATE)
"""Either right: a test asks a venue and starts a process."""


class AuditedAccountAdmin(AuditedAdmin, VenueLoginAdmin, AccountAdmin):
    audit_name = "account"
    actions_detail: tuple[str, ...] = ("test_connection", "log_in")

    def has_test_connection_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        may = any(request.user.has_perm(right) for right in MAY_TEST)
        return may and self.is_mine(request, object_id)

    @action(description="Test connection", icon="network_check", permissions=["test_connection"])
    def test_connection(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask the venue for health, permissions and clock; nothing is changed."""
        account: Account = self.row_to_act_on(request, object_id)
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": f"Connection of {account}",
            "account": account,
            "told": test_connection(account),
            "back": reverse("admin:brokers_account_change", args=[account.pk]),
        }
        return TemplateResponse(request, "fks/connection.html", context)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        reason = form.cleaned_data[REASON]
        if change and self._must_wait(obj, form):
            proposal = proposals.submit(
                *_change(obj, form), reason=reason, secrets=form.credentials()
            )
            self.note_proposal(request, proposal)
            return
        if not change and must_start_off(obj.environment) and obj.is_active:
            obj.is_active = False
            messages.warning(request, "It is switched off: going live takes another person.")
        super().save_model(request, obj, form, change)
        if form.credentials():
            audit.record(
                "credential.changed",
                f"credential of account {obj}",
                after={"hint": obj.credential.hint},
                reason=reason,
            )

    def _must_wait(self, account: Account, form: Any) -> bool:
        return proposals.must_wait(*_change(account, form), form.credentials())


def _change(account: Account, form: Any) -> tuple[str, dict[str, Any]]:
    """What the form asks for, as a proposal has it."""
    columns = changed_columns(account, form)
    now = account_values(Account.objects.get(pk=account.pk), columns)
    wanted = account_values(account, columns)
    values = {name: value for name, value in wanted.items() if value != now[name]}
    return "account", {"account": account.name, "values": values}


class AuditedSymbolAliasAdmin(AuditedAdmin, SymbolAliasAdmin):
    audit_name = "alias"


for _model, _admin in ((Account, AuditedAccountAdmin), (SymbolAlias, AuditedSymbolAliasAdmin)):
    admin.site.unregister(_model)
    admin.site.register(_model, _admin)
