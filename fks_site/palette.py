"""The command palette (Ctrl-K): pages, actions and rows, as far as whoever asks may see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache

from brokers.admin.paging import PATIENCE, key_page
from brokers.models import Account
from execution.admin import lab
from execution.admin.search import by_id, uuid_of
from execution.models import Fill, Order, Signal, Strategy
from fks_site.menu import account, navigation
from risk import switch

MOST = 8
"""Rows of each kind."""
LONGEST = 100
SHORTEST = 2
"""Fewer letters find pages and actions only."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the palette, and where it leads."""

    title: str
    kind: str
    link: str
    icon: str


@never_cache
def search(request: HttpRequest) -> HttpResponse:
    """What ``?s=`` names, as a fragment. Nothing is remembered: rows and rights are today's."""
    term = request.GET.get("s", "").replace("\x00", "").strip()[:LONGEST]
    known = [*_actions(request), *_pages(request)]
    entries = _matching(known, term) if term else known
    if len(term) >= SHORTEST:
        entries += _rows(request, term)
    return TemplateResponse(request, "fks/palette.html", {"entries": entries, "term": term})


def _matching(entries: Iterable[Entry], term: str) -> list[Entry]:
    """Those with every word of ``term``, the ones that begin with it first."""
    wanted = term.casefold()
    found = [one for one in entries if all(w in _text(one) for w in wanted.split())]
    return sorted(found, key=lambda one: not one.title.casefold().startswith(wanted))


def _text(entry: Entry) -> str:
    return f"{entry.title} {entry.kind}".casefold()


def _actions(request: HttpRequest) -> Iterator[Entry]:
    trading = reverse("admin:trading")
    user = request.user
    if user.has_perm(switch.HALT) or user.has_perm(switch.CHANGE):
        yield Entry("Halt trading", "action", f"{trading}?mode=halt", "stop_circle")
        yield Entry("Reduce only", "action", f"{trading}?mode=reduce_only", "trending_down")
    if user.has_perm(switch.CHANGE):
        yield Entry("Resume trading", "action", f"{trading}?mode=resume", "play_circle")
    if user.has_perms(lab.PERMISSIONS):
        yield Entry("Try an alert", "action", reverse("admin:execution_lab"), "science")
    for own in account(request):
        yield Entry(own["title"], "my log-in", own["link"], "password")
    yield Entry("Documentation of the API", "docs", reverse("docs"), "menu_book")


def _pages(request: HttpRequest) -> Iterator[Entry]:
    for group in navigation(request):
        for item in group["items"]:
            yield Entry(item["title"], group["title"] or "page", item["link"], item["icon"])


def _rows(request: HttpRequest, term: str) -> Iterator[Entry]:
    accounts = _shown(request, Account).filter(name__icontains=term)
    yield from _named(accounts, "account_balance")
    named = Q(slug__icontains=term) | Q(note__icontains=term)
    yield from _named(_shown(request, Strategy).filter(named), "psychology")
    yield from _orders(_shown(request, Order), term)
    yield from _signals(_shown(request, Signal), term)
    fills = _shown(request, Fill).filter(trade_id=term).select_related("account")
    yield from (_entry(one, f"fill on {one.account}", one.at) for one in fills[:MOST])


def _shown(request: HttpRequest, model: type[Model]) -> QuerySet[Any]:
    """The rows whose list whoever asks may open; none without that right."""
    pages = admin.site.get_model_admin(model)
    rows: QuerySet[Any] = pages.get_queryset(request)
    return rows if pages.has_view_permission(request) else rows.none()


def _named(rows: QuerySet[Any], icon: str) -> Iterator[Entry]:
    for row in rows[:MOST]:
        yield Entry(str(row), row._meta.verbose_name, _page_of(row), icon)


def _orders(rows: QuerySet[Any], term: str) -> Iterator[Entry]:
    wanted = by_id(
        term, id="uuid", signal="uuid", client_order_id="exact", broker_order_id="exact",
        symbol="symbol",
    )  # fmt: skip
    found = _newest(rows.filter(wanted).select_related("account"))
    yield from _list_of(found, term, "order")
    yield from (_entry(one, f"order, {one.get_state_display()}", one.created_at) for one in found)


def _signals(rows: QuerySet[Any], term: str) -> Iterator[Entry]:
    wanted = by_id(term, id="uuid", symbol="symbol")
    found = _newest(rows.filter(wanted).select_related("strategy"))
    yield from _list_of(found, term, "signal")
    yield from (_entry(one, f"signal, {one.get_state_display()}", one.received_at) for one in found)


def _newest(rows: QuerySet[Any]) -> list[Any]:
    """A few of what may be many, in bounded time."""
    return key_page(rows.order_by("-pk"), None, MOST, patience=PATIENCE).rows


def _list_of(found: list[Any], term: str, noun: str) -> Iterator[Entry]:
    """The whole list, where it has more rows than the palette shows."""
    if len(found) == MOST and uuid_of(term) is None:
        link = reverse(f"admin:execution_{noun}_changelist", query={"q": term})
        yield Entry(f"All {noun}s that match {term}", "list", link, "list")


def _entry(row: Any, kind: str, at: datetime) -> Entry:
    shown = f"{kind}, {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    icons = {"order": "receipt_long", "signal": "sensors", "fill": "handshake"}
    return Entry(str(row), shown, _page_of(row), icons[row._meta.model_name])


def _page_of(row: Any) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
