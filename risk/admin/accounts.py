"""Brokers' admins with an audit trail: brokers lies below and knows of none."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from brokers.admin.accounts import AccountAdmin
from brokers.admin.symbols import SymbolAliasAdmin
from brokers.models import Account, SymbolAlias
from risk import audit
from risk.admin.audited import REASON, AuditedAdmin


class AuditedAccountAdmin(AuditedAdmin, AccountAdmin):
    audit_name = "account"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if form.credentials():
            audit.record(
                "credential.changed",
                f"credential of account {obj}",
                after={"hint": obj.credential.hint},
                reason=form.cleaned_data[REASON],
            )


class AuditedSymbolAliasAdmin(AuditedAdmin, SymbolAliasAdmin):
    audit_name = "alias"


for _model, _admin in ((Account, AuditedAccountAdmin), (SymbolAlias, AuditedSymbolAliasAdmin)):
    admin.site.unregister(_model)
    admin.site.register(_model, _admin)
