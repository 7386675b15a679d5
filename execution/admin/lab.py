"""The payload lab: paste an alert and see all that FKS would make of it; nothing is stored or sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
)

from brokers import access
from execution.admin.search import uuid_of
from execution.dry_run import DryRunFailed, from_a_web_process
from execution.formats import FORMATS, option_problems
from execution.models import QuarantinedBody, Signal, Strategy

Replay = Callable[[], dict[str, Any]]
PERMISSIONS = ("execution.view_strategy", "execution.view_signal", "execution.view_order")
MOST = 65_536
_CODE = {"class": "fks-editor", "spellcheck": "false", "autocomplete": "off"}


class OptionalJSON(forms.JSONField):
    """A JSON field that is empty when nothing was given."""

    def prepare_value(self, value: Any) -> Any:
        return "" if value is None else super().prepare_value(value)


class LabForm(forms.Form):
    """An alert, the strategy it is meant for, and settings to try that are not saved."""

    strategy = forms.ModelChoiceField(
        Strategy.objects.all(), widget=UnfoldAdminSelectWidget(), empty_label=None
    )
    body = forms.CharField(
        label="Alert",
        max_length=MOST,
        strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={**_CODE, "rows": 12}),
        help_text="The body as the sender posts it. Credentials in it are masked in the result.",
    )
    token = forms.CharField(
        label="Token of the address",
        required=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="If it is the last part of the address instead of a field of the body.",
    )
    headers = forms.CharField(
        required=False,
        max_length=MOST,
        widget=UnfoldAdminTextareaWidget(attrs={**_CODE, "rows": 3}),
        help_text="Of a sender that signs or bears a token: one a line, X-Webhook-Signature: 3a7b…",
    )
    format = forms.ChoiceField(
        label="Try another format",
        required=False,
        choices=[("", "the strategy's"), *((name, one.label) for name, one in FORMATS.items())],
        widget=UnfoldAdminSelectWidget(),
    )
    format_options = OptionalJSON(
        label="Try other format options",
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={**_CODE, "rows": 6}),
        help_text="A mapping before it is saved; empty: the strategy's.",
    )

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        """A dry run shows every account of a strategy: it takes one that has no others' accounts."""
        super().__init__(*args, **kwargs)
        strategies = self.fields["strategy"]
        assert isinstance(strategies, forms.ModelChoiceField)  # noqa: S101  (for the type checker)
        strategies.queryset = access.own(user, Strategy.objects.all())

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        strategy, options = cleaned.get("strategy"), cleaned.get("format_options")
        if strategy is not None and options is not None:
            name = cleaned.get("format") or strategy.format
            for problem in option_problems(name, options):
                self.add_error("format_options", problem)
        return cleaned

    def headers_given(self) -> dict[str, str]:
        """The headers as WSGI names them."""
        pairs = (line.partition(":") for line in self.cleaned_data["headers"].splitlines())
        return {
            "HTTP_" + name.strip().upper().replace("-", "_"): value.strip()
            for name, _, value in pairs
            if name.strip()
        }

    def tried(self) -> Strategy:
        """The strategy with the settings to try, in memory only."""
        strategy: Strategy = self.cleaned_data["strategy"]
        if self.cleaned_data["format"] and self.cleaned_data["format"] != strategy.format:
            strategy.format, strategy.format_options = self.cleaned_data["format"], {}
        if self.cleaned_data["format_options"] is not None:
            strategy.format_options = self.cleaned_data["format_options"]
        return strategy


def urls() -> list[URLPattern]:
    return [path("lab/", admin.site.admin_view(page), name="execution_lab")]


def page(request: HttpRequest) -> HttpResponse:
    """The form, and below it what would become of the alert."""
    if not request.user.has_perms(PERMISSIONS):
        raise PermissionDenied
    form = LabForm(request.user, request.POST or None, initial=_initial(request))
    result, failure = None, ""
    if form.is_valid():
        result, failure = run(form)
        if result is not None:
            form.data = {name: form.data[name] for name in form.fields if name in form.data}
            form.data |= {"body": result["body"], "token": "", "headers": ""}
    return answer(
        request,
        "fks/lab.html",
        title="Payload lab",
        form=form,
        result=result,
        failure=failure,
    )


def run(form: LabForm) -> tuple[dict[str, Any] | None, str]:
    """The result, or a sentence why there is none."""
    # A browser sends every line break as two characters; a signature is over one.
    body = form.cleaned_data["body"].replace("\r\n", "\n").encode()
    token, headers = form.cleaned_data["token"], form.headers_given()
    return _told(lambda: from_a_web_process(form.tried(), body, path_token=token, headers=headers))


def _told(replay: Replay) -> tuple[dict[str, Any] | None, str]:
    try:
        return _shown(replay()), ""
    except DryRunFailed as error:
        return None, str(error)
    except DatabaseError:
        return None, "the database did not answer in time; try again"


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    """The result with a headline, and with lists and objects as JSON text."""
    for name in ("alert", "unread"):
        values = result.get(name) or {}
        result[name] = {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in values.items()
        }
    return result | {"headline": _headline(result)}


def _headline(result: dict[str, Any]) -> str:
    if result["error"]:
        return "It would not be accepted"
    if result["refusal"]:
        return "It would be refused"
    if result["waits"]:
        return "It would wait"
    sent = sum(order["would_be_sent"] for order in result["orders"])
    if not result["orders"]:
        return "No order would be made"
    held = sum(order["needs_approval"] for order in result["orders"])
    after = f", {held} of them once a person has approved" if held else ""
    return f"{sent} of {len(result['orders'])} orders would be sent{after}"


def answer(request: HttpRequest, template: str, **context: Any) -> HttpResponse:
    """A page of the admin that no cache keeps: it shows what an operator pasted."""
    request.current_app = admin.site.name
    response = TemplateResponse(request, template, {**admin.site.each_context(request), **context})
    response["Cache-Control"] = "no-store"
    return response


def replayed(request: HttpRequest, title: str, back: str, lab: str, replay: Replay) -> HttpResponse:
    """A page with the dry run of something stored."""
    if not request.user.has_perms(PERMISSIONS):
        raise PermissionDenied
    result, failure = _told(replay)
    if result is not None:
        result.pop("authentication", None)  # it was proven when it came, and is masked since
    lab = f"{reverse('admin:execution_lab')}?{lab}"
    context = {"title": title, "back": back, "lab": lab, "result": result, "failure": failure}
    return answer(request, "fks/dry_run_page.html", **context)


def _initial(request: HttpRequest) -> dict[str, Any]:
    """An alert that is stored already, when the address names one; else the strategy it names."""
    if identity := uuid_of(request.GET.get("signal", "")):
        row = access.own(request.user, Signal.objects.filter(pk=identity)).first()
        return {} if row is None else {"strategy": row.strategy_id, "body": row.body}
    if (number := request.GET.get("quarantined", "")).isdigit():
        bodies = QuarantinedBody.objects.filter(pk=int(number[:18]))
        kept = access.own(request.user, bodies).first()
        return {} if kept is None else {"strategy": kept.strategy_id, "body": kept.body}
    strategy = Strategy.objects.filter(slug=request.GET.get("strategy", "")).first()
    return {} if strategy is None else {"strategy": strategy.pk}
