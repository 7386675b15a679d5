"""The second factor in the browser: who is asked, how long it counts, and the page that asks.

Sessions end eight hours after the login, and after thirty minutes without a person's doing. What
loosens something asks for a code again (``STEP_UP``, and ``execution.rest`` for the API); halting
never does.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from urllib.parse import urlencode

import qrcode
import qrcode.image.svg
from django import forms
from django.contrib import admin, messages
from django.contrib.auth import logout
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import Resolver404, resolve, reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from unfold.widgets import UnfoldAdminTextInputWidget

from execution.halting import Mode
from fks_site import logins
from risk import second_factor, switch
from risk.models import TradingState

GetResponse = Callable[[HttpRequest], HttpResponseBase]

ABSOLUTE, IDLE = 8 * 3600, 30 * 60  # seconds
NOTE_EVERY = 60  # seconds
FRESH_FORM = 30 * 60  # seconds a proof counts for a form whose page was opened in time
OPEN_PAGES = frozenset({"second_factor", "logout", "login", "jsi18n"})
POLLED, POLLING = frozenset({"dashboard"}), frozenset({"approvals", "unknown_desk"})
"""Fragments, and pages that ask for themselves again."""
GUARDED = (
    "risk_riskpolicy",
    "risk_channel",
    "risk_ipallowlist",
    "risk_proposal",
    "risk_safeguards",
    "brokers_account",
    "auth_user",
    "auth_group",
)
STEP_UP = frozenset(
    f"{model}_{act}" for model in GUARDED for act in ("add", "change", "delete")
) | {
    "auth_user_password_change",
    "auth_user_reset_second_factor",
    "brokers_account_log_in",
    "execution_strategy_rotate",
    "getting_started",
    "risk_proposal_approve",
}
BEGAN, SEEN = "began", "seen"


def sessions(get_response: GetResponse) -> GetResponse:
    """End sessions that are too old, and let nobody further who has still to prove a second factor."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        user = request.user
        if not isinstance(user, User):
            return get_response(request)
        page = _page_name(request)
        if _has_ended(request, page):
            logout(request)
            return get_response(request)
        if page in OPEN_PAGES or _is_proved(request, page) or not second_factor.is_asked(user):
            return get_response(request)
        return _ask_first(request, get_response)

    return middleware


def _page_name(request: HttpRequest) -> str:
    try:
        return resolve(request.path_info).url_name or ""
    except Resolver404:
        return ""


def _has_ended(request: HttpRequest, page: str) -> bool:
    """Whether the session is too old or was left alone; what a page polls by itself is no doing."""
    now, session = int(timezone.now().timestamp()), request.session
    began, seen = session.setdefault(BEGAN, now), session.setdefault(SEEN, now)
    if now - began > ABSOLUTE or now - seen > IDLE:
        return True
    polls = page in POLLED or (page in POLLING and "HX-Request" in request.headers)
    if not polls and now - seen > NOTE_EVERY:
        session[SEEN] = now
    return False


def _is_proved(request: HttpRequest, page: str) -> bool:
    age = second_factor.age_of_proof(request.session)
    if age is None:
        return False
    if page == "trading":
        return age <= second_factor.FRESH or not _releases(request)
    if page in STEP_UP:
        return age <= (FRESH_FORM if request.method == "POST" else second_factor.FRESH)
    return True


def _releases(request: HttpRequest) -> bool:
    """Whether trading is asked to be less strict than it is: halting never asks for a code."""
    mode, target = request.POST.get("mode", ""), request.POST.get("target", "")
    scope, _, key = target.partition(":")
    if mode not in list(Mode) or scope not in TradingState.Scope.values:
        return False  # nothing that could be pressed
    return switch.loosens(Mode(mode).state, scope=TradingState.Scope(scope), key=key)


def _ask_first(request: HttpRequest, get_response: GetResponse) -> HttpResponseBase:
    """Pages lead to the question; for the API the session counts for nobody."""
    if not request.path_info.startswith("/admin/"):
        request.user = AnonymousUser()
        return get_response(request)
    address = reverse("admin:second_factor")
    return HttpResponseRedirect(f"{address}?{urlencode({'next': request.get_full_path()})}")


class CodeForm(forms.Form):
    """A one-time code, or a recovery code where one is set up already."""

    code = forms.CharField(
        label="Code",
        max_length=20,
        widget=UnfoldAdminTextInputWidget(
            attrs={"autocomplete": "one-time-code", "autofocus": "", "inputmode": "text"}
        ),
    )


def page(request: HttpRequest) -> HttpResponse:
    """Set up a second factor, or prove it."""
    user = request.user
    if not isinstance(user, User) or not user.is_staff:
        raise PermissionDenied
    form = CodeForm(request.POST or None)
    if not second_factor.has_one(user):
        return _set_up(request, user, form)
    if form.is_valid():
        if second_factor.verify(user, form.cleaned_data["code"]):
            _prove(request)
            logins.greet(request)
            return HttpResponseRedirect(_next(request))
        form.add_error(
            "code", "This code is wrong, or was used already; after five, wait a minute."
        )
    return _shown(request, form=form)


def _set_up(request: HttpRequest, user: User, form: CodeForm) -> HttpResponse:
    key = second_factor.begin(user)
    if form.is_valid():
        session = request.session.session_key
        codes = second_factor.confirm(user, form.cleaned_data["code"], session=session)
        if codes:
            _prove(request)
            logins.greet(request)
            messages.success(request, "The second factor is set up.")
            return _shown(request, codes=codes, next=_next(request))
        form.add_error("code", "This code is wrong: is the clock of your telephone right?")
    picture = _qr(second_factor.address_of(user, key))
    return _shown(request, form=form, key=key, picture=picture)


def _prove(request: HttpRequest) -> None:
    request.session.cycle_key()
    second_factor.note_proof(request.session)


def _next(request: HttpRequest) -> str:
    wanted = request.GET.get("next", "")
    if url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()}):
        return wanted
    return reverse("admin:index")


def _qr(text: str) -> str:
    """The text as a picture's address."""
    image = qrcode.make(text, image_factory=qrcode.image.svg.SvgPathFillImage, border=2)
    buffer = io.BytesIO()
    image.save(buffer)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown(request: HttpRequest, **more: object) -> HttpResponse:
    request.current_app = admin.site.name
    context = {**admin.site.each_context(request), "title": "Second factor", **more}
    response = TemplateResponse(request, "fks/second_factor.html", context)
    response["Cache-Control"] = "no-store"
    return response
