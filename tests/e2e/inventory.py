"""What the admin has: its pages, and what can be done on them, as the code says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.contrib import admin
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.urls import Resolver404, resolve
from playwright.sync_api import Response

from execution.admin.approvals import APPROVE, REJECT
from execution.halting import Mode
from fks_site import getting_started

CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "trading": ("mode", tuple(mode.value for mode in Mode)),
    "getting_started": ("step", tuple(getting_started.RIGHTS)),
    "decide_approval": ("verb", (APPROVE, REJECT)),
}
"""Pages with several deeds: what tells them apart, a field of the form or a part of the address."""

SHOWN = {
    "index",
    "dashboard",
    "performance",
    "approvals",
    "unknown_desk",
    "adoption",
    "password_change_done",
}
"""Pages of the site that only show."""

ASKING_NOTHING = {
    "brokers_account_test_connection",
    "execution_quarantinedbody_try_again",
    "execution_signal_replay",
    "execution_strategy_lab",
    "execution_strategy_messages",
    "risk_channel_told",
    "search",
    "venue_login_returned",
}
"""Deeds that are done as soon as their address is opened; all others send a form."""

DJANGOS = {"autocomplete", "jsi18n", "view_on_site", "app_list"}
"""Addresses of Django's own that no page leads to."""

LEADING_ON = {
    "dashboard",
    "execution_strategy_lab",
    "logout",
    "risk_channel_told",
    "search",
    "take_adoption",
    "venue_login_returned",
}
"""Addresses that are no page of their own: parts of one, and what leads to one."""

FORMS = ("add", "change", "delete")


def deeds() -> set[str]:
    """Every action, form and choice of a page. What is new counts until it stands in ``SHOWN``."""
    models = set(_of_models())
    further = _names(admin.site.get_urls()) - _of_django() - SHOWN - DJANGOS
    chosen = {f"{name} {one}" for name, (_, choices) in CHOICES.items() for one in choices}
    return models | (further - set(CHOICES)) | chosen


def pages() -> set[str]:
    """Every page by the name of its address, but for ``questions``."""
    lists = {f"{_name(model)}_changelist" for model in admin.site._registry}
    rows = {
        f"{_name(model)}_change"
        for model, shown in admin.site._registry.items()
        if shown.list_display_links is not None
    }
    done = {deed.partition(" ")[0] for deed in deeds()}
    return (lists | rows | done | SHOWN) - questions() - LEADING_ON


def questions() -> set[str]:
    """The pages that ask before something is done: all of them alike."""
    asking = {
        f"{_name(model)}_{name}"
        for model, shown in admin.site._registry.items()
        for place in ("list", "row", "detail")
        for name in getattr(shown, f"actions_{place}")
        if getattr(getattr(shown, name), "dialog", None)
    }
    ends = {deed for deed in deeds() if deed.endswith("_delete")}
    return asking | ends | {"decide_approval"}


def deed_of(response: Response) -> Iterator[str]:
    """What an answer of the server has done, by the names of ``deeds``; a refusal has done nothing."""
    address = urlsplit(response.url)
    try:
        found = resolve(address.path)
    except Resolver404:
        return
    if found.namespace != "admin" or response.status >= 400:
        return
    name = found.url_name or ""
    field, _ = CHOICES.get(name, ("", ()))
    if response.request.method == "POST":
        given = parse_qs(response.request.post_data or "")
        yield f"{name} {found.kwargs.get(field) or given[field][0]}" if field else name
    elif name in ASKING_NOTHING:
        yield name


def _of_models() -> Iterator[str]:
    for model, shown in admin.site._registry.items():
        request, name = _request(), _name(model)
        may = {verb: getattr(shown, f"has_{verb}_permission")(request) for verb in FORMS}
        yield from (f"{name}_{verb}" for verb in FORMS if may[verb])
        yield from (f"{name}_changelist {action}" for action in shown.get_actions(request))


def _of_django() -> set[str]:
    """The addresses every model has."""
    kinds = ("changelist", "history", *FORMS)
    return {f"{_name(model)}_{kind}" for model in admin.site._registry for kind in kinds}


def _names(patterns: Iterable[Any]) -> set[str]:
    found = {one.name for one in patterns if getattr(one, "name", None)}
    for one in patterns:
        found |= _names(getattr(one, "url_patterns", ()))
    return found


def _name(model: Any) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}"


def _request() -> Any:
    request = RequestFactory().get("/admin/")
    request.user = User(username="inventory", is_superuser=True, is_active=True, is_staff=True)
    return request
