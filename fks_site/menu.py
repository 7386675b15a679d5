"""The admin's menu, tabs and environment label, with what needs attention counted beside them."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.http import HttpRequest
from django.urls import reverse

from brokers import access
from brokers.types import Environment
from execution.admin import approvals, desk, lab
from execution.admin.orders import STAGES
from fks_site import dashboard, getting_started, performance

_GROUPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Trading": (
        ("execution.signal", "Signals", "sensors"),
        ("execution.order", "Orders", "receipt_long"),
        ("execution.fill", "Fills", "handshake"),
        ("execution.position", "Positions", "account_balance_wallet"),
        ("execution.protection", "Protections", "health_and_safety"),
        ("execution.spreadwatch", "Spreads", "compare_arrows"),
        ("execution.quarantinedbody", "Quarantine", "report"),
    ),
    "Safety": (
        ("risk.riskpolicy", "Limits", "speed"),
        ("risk.limithit", "Limit hits", "front_hand"),
        ("risk.riskreport", "Self-tests", "fact_check"),
        ("risk.circuitbreaker", "Breakers", "electric_bolt"),
        ("execution.alarm", "Alarms", "notifications_active"),
        ("execution.difference", "Differences", "difference"),
        ("risk.tradingstate", "Trading states", "emergency_home"),
        ("risk.clientaddress", "Failed attempts", "lock_clock"),
        ("risk.proposal", "Proposals", "how_to_vote"),
        ("risk.auditevent", "Audit", "history"),
    ),
    "Set-up": (
        ("execution.strategy", "Strategies", "psychology"),
        ("brokers.account", "Accounts", "account_balance"),
        ("risk.ipallowlist", "Allowlists", "shield"),
        ("risk.ratelimit", "Rate limit", "speed_camera"),
        ("risk.channel", "Notifications", "campaign"),
        ("brokers.symbolalias", "Symbol aliases", "swap_horiz"),
        ("brokers.instrument", "Instruments", "straighten"),
    ),
    "Access": (
        ("auth.user", "Users", "person"),
        ("auth.group", "Groups", "group"),
        ("axes.accessattempt", "Failed log-ins", "gpp_maybe"),
        ("risk.safeguards", "Safeguards", "admin_panel_settings"),
    ),
}
_PERFORMANCE = {"title": "Performance", "icon": "monitoring"}
_APPROVALS = {"title": "Approvals", "icon": "how_to_reg"}
_DESK = {"title": "Unknown desk", "icon": "contact_support"}
_LAB = {"title": "Payload lab", "icon": "science"}
_START = {"title": "Getting started", "icon": "rocket_launch"}
_COUNTED = ("execution.order", "execution.difference", "execution.protection", "execution.alarm")


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar: what this user may see, in four groups under the home page."""
    home = {"title": "Home", "icon": "space_dashboard", "link": reverse("admin:index")}
    groups: list[dict[str, Any]] = [{"title": "", "items": [home]}]
    for title, entries in _GROUPS.items():
        items = [_item(request, *entry) for entry in entries if _may_see(request, entry[0])]
        if title == "Trading" and request.user.has_perms(approvals.LOOK):
            items.insert(0, _APPROVALS | {"link": reverse("admin:approvals")} | _awaiting(request))
        if title == "Trading" and request.user.has_perm(desk.LOOK):
            items.append(_DESK | {"link": reverse("admin:unknown_desk")} | _unresolved(request))
        if title == "Trading" and request.user.has_perms(performance.PERMISSIONS):
            items.append(_PERFORMANCE | {"link": reverse("admin:performance")})
        if title == "Set-up" and getting_started.may_look(request.user):
            items.insert(0, _START | {"link": reverse("admin:getting_started")})
        if title == "Set-up" and request.user.has_perms(lab.PERMISSIONS):
            items.append(_LAB | {"link": reverse("admin:execution_lab")})
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def _item(request: HttpRequest, model: str, title: str, icon: str) -> dict[str, Any]:
    item: dict[str, Any] = {"title": title, "icon": icon, "link": _list_of(model)}
    if model in _COUNTED:
        item |= _badge(model, dashboard.cached_view(request.user))
    return item


def _badge(model: str, view: dashboard.View) -> dict[str, str]:
    """Red for what waits for an operator, blue for what is under way, nothing for zero."""
    alarms = {
        "execution.order": view.unresolved,
        "execution.difference": view.differences,
        "execution.protection": view.unguarded,
        "execution.alarm": view.alarms_raised,
    }[model]
    if alarms:
        return {"badge": str(alarms), "badge_variant": "danger"}
    if model == "execution.order" and view.working:
        return {"badge": str(view.working), "badge_variant": "info"}
    return {}


def _awaiting(request: HttpRequest) -> dict[str, str]:
    count = dashboard.cached_view(request.user).awaiting
    return {"badge": str(count), "badge_variant": "danger"} if count else {}


def _unresolved(request: HttpRequest) -> dict[str, str]:
    count = dashboard.cached_view(request.user).unresolved
    return {"badge": str(count), "badge_variant": "danger"} if count else {}


def _may_see(request: HttpRequest, model: str) -> bool:
    app, _, name = model.partition(".")
    user = request.user
    if access.is_hidden(user, apps.get_model(model)):
        return False
    return user.has_perm(f"{app}.view_{name}") or user.has_perm(f"{app}.change_{name}")


def _list_of(model: str) -> str:
    return reverse(f"admin:{model.replace('.', '_')}_changelist")


def account(_request: HttpRequest) -> list[dict[str, str]]:
    """What everybody may do about their own log-in."""
    return [
        {"title": "Change password", "link": reverse("admin:password_change")},
        {"title": "Sign out everywhere", "link": reverse("admin:sign_out_everywhere")},
    ]


def tabs(request: HttpRequest) -> list[dict[str, Any]]:
    """Tabs over the list of orders: one per stage, then all."""
    address = _list_of("execution.order")
    chosen = request.GET.get("stage", "")
    items = [
        {"title": label, "link": f"{address}?stage={name}", "active": chosen == name}
        for name, (label, _) in STAGES.items()
    ]
    items.append({"title": "All", "link": address, "active": not chosen})
    return [{"models": ["execution.order"], "items": items}]


def environment(request: HttpRequest) -> list[str] | None:
    """The most serious environment of the accounts in use, with its colour; none before log-in."""
    if not request.user.is_authenticated:
        return None
    match dashboard.cached_view(request.user).environment:
        case Environment.LIVE:
            return ["live", "danger"]
        case Environment.SANDBOX:
            return ["sandbox", "warning"]
    return ["paper", "info"]
