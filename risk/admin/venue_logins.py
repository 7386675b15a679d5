"""Logging an account in at its venue: the page that leads there, and the way back with a code.

The state that goes out and must come back is bound to the user's session and to the account. The
session's cookie does not come along from another site (it is SameSite=Strict), so the address the venue
leads to first opens itself once more, from here.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminTextInputWidget

from brokers import access, venue_logins
from brokers.admin.unfolded import action
from brokers.errors import BrokerError
from brokers.models import Account
from risk import audit

BEGUN = "venue_login"
GOOD_FOR = timedelta(minutes=15)
"""How long after it was shown the link to the venue may still be come back from."""
CHANGE = "brokers.change_account"
AGAIN = "again"
WAY_BACK = """<!doctype html><html lang="en"><head><title>Logging in</title>
<meta http-equiv="refresh" content="0; url={}"></head>
<body><p><a href="{}">Finish the log-in</a></p></body></html>"""


class AddressForm(forms.Form):
    """Where the venue's page led to, for a callback URL that does not lead here."""

    address = forms.CharField(
        label="Address",
        max_length=4000,
        help_text="All of it, from the browser's address bar; its code lives for half a minute.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
    )


class VenueLoginAdmin:
    """The action of an account's page that leads to the log-in; to be mixed into its admin."""

    def has_log_in_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        if not request.user.has_perm(CHANGE):
            return False
        if object_id is None:
            return True
        account = _own(request).filter(pk=unquote(str(object_id))).first()
        return account is not None and account.login_terms() is not None

    @action(description="Log in at the venue", icon="login", permissions=["log_in"])
    def log_in(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = _own(request).filter(pk=unquote(object_id)).first()
        if account is None or account.login_terms() is None:
            raise Http404
        form = AddressForm(request.POST or None)
        if form.is_valid():
            return _finish(request, *venue_logins.answer_in(form.cleaned_data["address"]))
        return _shown(request, account, form)


def _own(request: HttpRequest) -> QuerySet[Account]:
    return access.own(request.user, Account.objects.all())


def _shown(request: HttpRequest, account: Account, form: AddressForm) -> HttpResponse:
    try:
        address = venue_logins.authorise_address(account, _state_for(request, account))
        ends = venue_logins.ended_by(account, _own(request))
    except BrokerError as error:
        messages.error(request, f"Not possible yet: {error}.")
        return HttpResponseRedirect(_page_of(account))
    request.current_app = admin.site.name
    context = {
        **admin.site.each_context(request),
        "title": f"Log {account} in at its venue",
        "account": account,
        "address": address,
        "ends": ends,
        "terms": account.login_terms(),
        "here": request.build_absolute_uri(reverse("admin:venue_login_returned")),
        "back": _page_of(account),
        "form": form,
    }
    response = TemplateResponse(request, "fks/venue_login.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _state_for(request: HttpRequest, account: Account) -> str:
    """The state of a log-in this session has begun for the account, or a new one."""
    begun = _begun(request)
    if begun is None or begun["account"] != account.pk:
        now = int(timezone.now().timestamp())
        begun = {"state": secrets.token_urlsafe(32), "account": account.pk, "at": now}
        request.session[BEGUN] = begun
    return str(begun["state"])


def _begun(request: HttpRequest) -> dict[str, Any] | None:
    begun: dict[str, Any] | None = request.session.get(BEGUN)
    if begun is None or timezone.now().timestamp() - begun["at"] > GOOD_FOR.total_seconds():
        return None
    return begun


def returned(request: HttpRequest) -> HttpResponse:
    """Where the venue leads back to, if the callback URL on file there is this page's."""
    code, state = request.GET.get("code", ""), request.GET.get("state", "")
    if admin.site.has_permission(request):
        return _finish(request, code, state)
    if AGAIN in request.GET:
        return redirect_to_login(reverse("admin:index"), reverse("admin:login"))
    address = f"{request.path}?{urlencode({'code': code, 'state': state, AGAIN: '1'})}"
    response = HttpResponse(format_html(WAY_BACK, address, address))
    response["Cache-Control"] = "no-store"
    return response


def _finish(request: HttpRequest, code: str, state: str) -> HttpResponse:
    """Take the code once, for the account this session began with."""
    begun = _begun(request)
    wanted = str(begun["state"]) if begun else ""
    if begun is None or not code or not secrets.compare_digest(state.encode(), wanted.encode()):
        messages.error(
            request, "This log-in was not begun here, or too long ago: begin on the account's page."
        )
        return HttpResponseRedirect(reverse("admin:brokers_account_changelist"))
    account = _own(request).filter(pk=begun["account"]).first()
    if account is None or not request.user.has_perm(CHANGE):
        raise Http404
    del request.session[BEGUN]
    try:
        _complete(account, code)
    except BrokerError as error:
        messages.error(request, f"Not logged in: {error}.")
        return HttpResponseRedirect(reverse("admin:brokers_account_log_in", args=[account.pk]))
    messages.success(request, f"{account} is logged in at its venue.")
    return HttpResponseRedirect(_page_of(account))


def _complete(account: Account, code: str) -> None:
    """Raises BrokerError."""
    with transaction.atomic():
        login = venue_logins.complete(account, code)
        audit.record(
            "login.completed",
            f"log-in of account {account}",
            after={"ends_at": login.ends_at.isoformat()},
            reason="a person logged in at the venue",
        )


def _page_of(account: Account) -> str:
    return reverse("admin:brokers_account_change", args=[account.pk])
