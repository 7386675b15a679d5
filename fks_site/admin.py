"""The admin site: its own pages, and third parties' admins in the site's dress."""

from __future__ import annotations

from typing import Any

from axes import admin as axes_admin
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.urls import URLPattern, path

from brokers.admin.base import ReadOnlyAdmin
from brokers.display import moment_column
from execution.admin import adoptions, approvals, desk, lab
from fks_site import (
    dashboard,
    getting_started,
    palette,
    passwords,
    performance,
    sign_out,
    trading_switch,
    twofactor,
)
from fks_site.users import GroupAdmin, UserAdmin
from risk.admin import venue_logins
from risk.admin.audited import AuditedAdmin

admin.site.index_title = "Home"
admin.site.enable_nav_sidebar = True
admin.site.search = palette.search  # type: ignore[attr-defined]  # Unfold's would keep answers for minutes
admin.site.password_change = passwords.change_own  # type: ignore[method-assign,assignment]


def _urls() -> list[URLPattern]:
    return [
        *lab.urls(),
        *approvals.urls(),
        *desk.urls(),
        *adoptions.urls(),
        path("dashboard/", dashboard.fragment, name="dashboard"),
        path("second-factor/", twofactor.page, name="second_factor"),
        path("venue-login/", venue_logins.returned, name="venue_login_returned"),
        path("trading/", admin.site.admin_view(trading_switch.page), name="trading"),
        path(
            "sign-out-everywhere/",
            admin.site.admin_view(sign_out.page),
            name="sign_out_everywhere",
        ),
        path("start/", admin.site.admin_view(getting_started.page), name="getting_started"),
        path("performance/", admin.site.admin_view(performance.page), name="performance"),
    ]


admin.site.extra_urls = _urls  # type: ignore[attr-defined]  # Unfold's hook for further pages


class AccessAttemptAdmin(axes_admin.AccessAttemptAdmin, AuditedAdmin):  # type: ignore[misc]
    """Deleting an attempt lifts its lock-out: one at a time, for a reason that is kept."""

    audit_name = "failed_login"
    list_display = (
        moment_column("attempt_time", "last attempt"),
        "username",
        "ip_address",
        "user_agent",
        "path_info",
        "failures_since_start",
        "status",
    )
    actions = None
    nothing_yet = "Nobody failed to log in lately."

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class AccessLogAdmin(ReadOnlyAdmin):
    ordering = ("-id",)
    list_display = (
        moment_column("attempt_time", "logged in"),
        "username",
        "ip_address",
        "user_agent",
        moment_column("logout_time", "logged out"),
    )
    search_fields = ("username", "ip_address")


def _dress(model: Any, dressed: Any) -> None:
    """Replace the admin that its own app registered, or drop it."""
    if admin.site.is_registered(model):
        admin.site.unregister(model)
    if dressed is not None:
        admin.site.register(model, dressed)


_dress(User, UserAdmin)
_dress(Group, GroupAdmin)
_dress(AccessAttempt, AccessAttemptAdmin)
_dress(AccessLog, AccessLogAdmin)
_dress(AccessFailureLog, None)
