"""The four roles, as groups with Django's permissions. Pages, actions and API ask for permissions only.

A role's rights are what stands here: each start sets them anew. Rights of another cut belong in a
group of one's own.
"""

from __future__ import annotations

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

VIEWER, OPERATOR = "viewer", "operator"
RISK_OFFICER, SECURITY_ADMIN = "risk officer", "security admin"

SHOWN = ("brokers", "risk", "execution")
"""Every role sees all of these floors. Secrets are never shown to anybody."""

_HALT = frozenset({"risk.halt_tradingstate"})
_DESK = frozenset(
    {
        *_HALT,
        "risk.operate_circuitbreaker",
        "execution.add_order",
        "execution.change_order",
        "execution.approve_order",
        "execution.change_difference",
    }
)
RIGHTS: dict[str, frozenset[str]] = {
    VIEWER: frozenset(),
    OPERATOR: _DESK,
    RISK_OFFICER: _DESK
    | {
        "risk.change_tradingstate",
        "risk.change_circuitbreaker",
        "risk.add_riskpolicy",
        "risk.change_riskpolicy",
        "risk.delete_riskpolicy",
        "risk.add_risklimit",
        "risk.change_risklimit",
        "execution.add_strategy",
        "execution.change_strategy",
        "execution.add_spreadwatch",
        "execution.change_spreadwatch",
        "execution.delete_spreadwatch",
        "execution.add_route",
        "execution.change_route",
        "execution.delete_route",
        "brokers.add_symbolalias",
        "brokers.change_symbolalias",
        "brokers.delete_symbolalias",
    },
    SECURITY_ADMIN: _HALT
    | {
        "brokers.add_account",
        "brokers.change_account",
        "brokers.add_exchangecredential",
        "brokers.change_exchangecredential",
        "risk.change_safeguards",
        "risk.add_channel",
        "risk.change_channel",
        "risk.delete_channel",
        "risk.add_ipallowlist",
        "risk.change_ipallowlist",
        "risk.delete_ipallowlist",
        "risk.add_allowednetwork",
        "risk.change_allowednetwork",
        "risk.delete_allowednetwork",
        "risk.change_clientaddress",
        "execution.change_strategy",
        "execution.change_webhooksecret",
        "auth.view_user",
        "auth.add_user",
        "auth.change_user",
        "auth.view_group",
        "axes.view_accessattempt",
        "axes.delete_accessattempt",
        "axes.view_accesslog",
    },
}


def install() -> None:
    """Make the groups, and give each exactly its rights. A second run changes nothing."""
    seen = Q(content_type__app_label__in=SHOWN, codename__startswith="view_")
    for role, rights in RIGHTS.items():
        group, _ = Group.objects.get_or_create(name=role)
        group.permissions.set(Permission.objects.filter(seen | _named(rights)))


def _named(rights: frozenset[str]) -> Q:
    found = Q(pk__in=())
    for right in rights:
        app, _, codename = right.partition(".")
        found |= Q(content_type__app_label=app, codename=codename)
    return found
