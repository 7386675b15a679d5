"""Who may do what: each role against every page, action and API endpoint."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from execution.states import OrderState
from fks_site import roles
from fks_site.roles import OPERATOR, RISK_OFFICER, SECURITY_ADMIN, VIEWER
from risk import breakers, switch
from risk.models import (
    AuditEvent,
    CircuitBreaker,
    IPAllowlist,
    RiskPolicy,
    Safeguards,
    TradingState,
)
from tests.factories import (
    PASSWORD,
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
)
from tests.risk.test_proposals import strategy_form

pytestmark = pytest.mark.django_db

EVERYBODY = frozenset(roles.RIGHTS)
DESK = frozenset({OPERATOR, RISK_OFFICER})
NOT_VIEWERS = EVERYBODY - {VIEWER}
OFFICER = frozenset({RISK_OFFICER})
SECURITY = frozenset({SECURITY_ADMIN})
NOBODY: frozenset[str] = frozenset()

LOOK_ONLY_FOR_SECURITY = {"user", "group", "accessattempt", "accesslog"}
ADD = {
    "riskpolicy": OFFICER,
    "strategy": OFFICER,
    "spreadwatch": OFFICER,
    "symbolalias": OFFICER,
    "account": SECURITY,
    "channel": {SECURITY_ADMIN},
    "ipallowlist": SECURITY,
    "user": SECURITY,
}
CHANGE = ADD | {"circuitbreaker": OFFICER, "strategy": OFFICER | SECURITY, "safeguards": SECURITY}


def member(role: str) -> User:
    roles.install()
    user: User = UserFactory.create()
    user.groups.set([Group.objects.get(name=role)])
    return user


def client_of(role: str) -> Client:
    cache.clear()
    client = Client()
    client.force_login(member(role))
    return client


# --- pages ----------------------------------------------------------------------------------------

PAGES = sorted(admin.site._registry, key=lambda model: model._meta.label)


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_a_role_sees_and_adds_exactly_what_it_should(role: str) -> None:
    client = client_of(role)
    for model in PAGES:
        name = model._meta.model_name
        address = f"admin:{model._meta.app_label}_{name}"
        if model is Safeguards:  # one row: its list leads to it
            assert client.get(reverse(f"{address}_changelist")).status_code == 302
            continue
        seen = role == SECURITY_ADMIN or name not in LOOK_ONLY_FOR_SECURITY
        expected = 200 if seen else 403
        assert client.get(reverse(f"{address}_changelist")).status_code == expected, name
        expected = 200 if role in ADD.get(str(name), NOBODY) else 403
        assert client.get(reverse(f"{address}_add")).status_code == expected, name


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_a_role_changes_exactly_what_it_should(role: str) -> None:
    client = client_of(role)
    account = AccountFactory.create()
    rows: dict[str, Any] = {
        "strategy": StrategyFactory.create(),
        "account": account,
        "ipallowlist": IPAllowlist.objects.create(name="office"),
        "riskpolicy": RiskPolicy.objects.create(),
        "circuitbreaker": breakers.of_account(account.pk),
        "safeguards": Safeguards.objects.create(),
        "signal": SignalFactory.create(),
        "order": OrderFactory.create(account=account),
        "position": PositionFactory.create(account=account),
        "fill": FillFactory.create(),
    }
    for name, row in rows.items():
        url = reverse(f"admin:{row._meta.app_label}_{name}_change", args=[row.pk])
        answer = client.post(url, {})
        # A form that may be sent is refused for what it lacks; one that may not, for who sends it.
        assert (answer.status_code == 200) == (role in CHANGE.get(name, NOBODY)), name
        assert answer.status_code in (200, 403), name
        assert client.get(url).status_code == 200, name


ACTIONS = {
    "admin:execution_order_cancel": DESK,
    "admin:risk_circuitbreaker_trip": DESK,
    "admin:risk_circuitbreaker_reset": DESK,
    "admin:execution_strategy_rotate": SECURITY,
    "admin:execution_difference_adopt": DESK,
    "admin:execution_difference_ignore": DESK,
    "admin:risk_clientaddress_release": SECURITY,
}


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_a_role_takes_exactly_the_actions_it_should(role: str) -> None:
    client = client_of(role)
    order = OrderFactory.create(state=OrderState.OPEN)
    rows = {
        "order": order.pk,
        "circuitbreaker": breakers.of_account(order.account_id).pk,
        "strategy": RouteFactory.create().strategy_id,
        "difference": 0,
        "clientaddress": 0,
    }
    for address, allowed in ACTIONS.items():
        _, model, _ = address.split("_")
        url = reverse(address, args=[rows[model]])
        expected = {403} if role not in allowed else {200, 404}
        assert client.post(url, {}).status_code in expected, address


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_who_approves_orders(role: str) -> None:
    client = client_of(role)
    order = OrderFactory.create(
        state=OrderState.AWAITING_APPROVAL, approve_by=timezone.now() + timedelta(minutes=1)
    )
    assert client.get(reverse("admin:approvals")).status_code == 200
    for verb in ("approve", "reject"):
        url = reverse("admin:decide_approval", args=[order.pk, verb])
        assert client.get(url).status_code == (200 if role in DESK else 403)
        answer = client.post(f"/api/v1/orders/{order.pk}/{verb}", {}, "application/json")
        assert (answer.status_code != 403) == (role in DESK)


def test_who_may_post_is_not_the_risk_officers_to_change() -> None:
    row = StrategyFactory.create(is_enabled=False, client_fingerprints="aa" * 20)
    url = reverse("admin:execution_strategy_change", args=[row.pk])
    theirs = {"auth", "allowlist", "senders", "client_fingerprints", "client_issuer"}
    officer = client_of(RISK_OFFICER)
    shown = officer.get(url)
    assert theirs.isdisjoint(shown.context["adminform"].form.fields)
    somebody = UserFactory.create()
    form = strategy_form(shown) | {
        "senders": [somebody.pk],
        "client_fingerprints": "",
        "client_issuer": "CN=anybody",
        "note": "mine",
        "reason": "a try",
    }
    assert officer.post(url, form).status_code == 302
    row.refresh_from_db()
    assert (row.client_fingerprints, row.client_issuer, row.note) == ("aa" * 20, "", "mine")
    assert not row.senders.exists()
    new = officer.get(reverse("admin:execution_strategy_add"))
    assert "senders" not in new.context["adminform"].form.fields


# --- the kill switch ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_who_halts_and_who_releases(role: str) -> None:
    client = client_of(role)
    url = reverse("admin:trading")

    def press(mode: str) -> bool:
        given = {"mode": mode, "target": "global:", "reason": "a drill"}
        answer = client.post(url, given)
        assert answer.status_code in (302, 403)
        return bool(answer.status_code == 302)

    assert press("halt") == (role in NOT_VIEWERS)
    assert press("cancel_all") == (role in DESK)
    assert press("flatten") == (role in DESK)
    switch.change(TradingState.State.HALTED, reason="by somebody else")
    assert press("reduce_only") == (role in OFFICER)
    switch.change(TradingState.State.HALTED, reason="by somebody else")
    assert press("resume") == (role in OFFICER)


# --- the API --------------------------------------------------------------------------------------

LISTS = [
    "signals",
    "orders",
    "fills",
    "positions",
    "accounts",
    "strategies",
    "breakers",
    "limits",
    "audit",
    "trading-state",
]


def bearer(client: Client, user: User) -> dict[str, str]:
    given = {"username": user.username, "password": PASSWORD}
    answer = client.post("/api/token", given, content_type="application/json")
    return {"Authorization": f"Bearer {answer.json()['access']}"}


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_a_role_does_exactly_what_it_should_through_the_api(role: str, client: Client) -> None:
    headers = bearer(client, member(role))
    account = AccountFactory.create(name="desk")
    order = OrderFactory.create(account=account)
    breakers.of_account(account.pk)

    def post(path: str, body: dict[str, Any]) -> bool:
        answer = client.post(
            f"/api/v1/{path}", body, content_type="application/json", headers=headers
        )
        assert answer.status_code in (200, 201, 202, 400, 403, 422), path
        return bool(answer.status_code != 403)

    for name in LISTS:
        assert client.get(f"/api/v1/{name}", headers=headers).status_code == 200, name
    assert post("orders", {}) == (role in DESK)
    assert post(f"orders/{order.pk}/cancel", {}) == (role in DESK)
    assert post("breakers/desk/reset", {"reason": "a drill"}) == (role in DESK)
    assert post("trading-state", {"state": "halted", "reason": "x"}) == (role in NOT_VIEWERS)
    switch.change(TradingState.State.HALTED, reason="by somebody else")
    assert post("trading-state", {"state": "active", "reason": "x"}) == (role in OFFICER)


def test_without_a_role_nothing_is_seen() -> None:
    client = Client()
    client.force_login(UserFactory.create())
    for model in PAGES:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        assert client.get(reverse(name)).status_code == 403


# --- the groups -----------------------------------------------------------------------------------


def test_every_right_exists_and_a_second_start_changes_nothing() -> None:
    roles.install()
    named = set().union(*roles.RIGHTS.values())
    known = {
        f"{app}.{name}"
        for app, name in Permission.objects.values_list("content_type__app_label", "codename")
    }
    assert named - known == set()
    before = {group.name: group.permissions.count() for group in Group.objects.all()}
    roles.install()
    assert {group.name: group.permissions.count() for group in Group.objects.all()} == before


def test_a_role_that_was_bent_is_straightened() -> None:
    roles.install()
    group = Group.objects.get(name=VIEWER)
    group.permissions.add(Permission.objects.get(codename="change_tradingstate"))
    roles.install()
    assert not group.permissions.filter(codename="change_tradingstate").exists()


# --- users ----------------------------------------------------------------------------------------


def user_form(user: User, **changes: Any) -> dict[str, Any]:
    return {
        "username": user.username,
        "is_active": "on",
        "is_staff": "on",
        "groups": [group.pk for group in user.groups.all()],
        "reason": "new colleague",
    } | changes


def test_a_security_admin_gives_roles_and_it_is_recorded() -> None:
    client = client_of(SECURITY_ADMIN)
    user = member(VIEWER)
    wanted = [Group.objects.get(name=OPERATOR).pk]
    url = reverse("admin:auth_user_change", args=[user.pk])
    assert client.post(url, user_form(user, groups=wanted)).status_code == 302
    assert [group.name for group in user.groups.all()] == [OPERATOR]
    event = AuditEvent.objects.get(kind="user.rights_changed")
    assert (event.before, event.after, event.reason) == (
        {"groups": [VIEWER], "user_permissions": []},
        {"groups": [OPERATOR], "user_permissions": []},
        "new colleague",
    )


def test_a_security_admin_makes_nobody_a_superuser() -> None:
    client = client_of(SECURITY_ADMIN)
    user = member(VIEWER)
    url = reverse("admin:auth_user_change", args=[user.pk])
    right = Permission.objects.get(codename="change_tradingstate").pk
    form = user_form(user, is_superuser="on", user_permissions=[right])
    assert client.post(url, form).status_code == 302
    user.refresh_from_db()
    assert not user.is_superuser
    assert not user.user_permissions.exists()


def test_a_security_admin_touches_no_superuser_and_not_their_own_roles() -> None:
    client = client_of(SECURITY_ADMIN)
    root = UserFactory.create(is_superuser=True)
    url = reverse("admin:auth_user_change", args=[root.pk])
    assert client.post(url, user_form(root, is_active="")).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[root.pk])
    assert client.post(password, {"password1": "x", "password2": "x"}).status_code == 403

    me = User.objects.get(pk=client.session["_auth_user_id"])
    all_roles = [group.pk for group in Group.objects.all()]
    url = reverse("admin:auth_user_change", args=[me.pk])
    assert client.post(url, user_form(me, groups=all_roles)).status_code == 302
    assert [group.name for group in me.groups.all()] == [SECURITY_ADMIN]


@pytest.mark.parametrize("given_up", ["is_superuser", "is_active", "is_staff"])
def test_the_last_superuser_stays_one(given_up: str) -> None:
    """Else nobody could make another one but in a shell."""
    root = UserFactory.create(is_superuser=True)
    UserFactory.create(is_superuser=True, is_active=False)
    UserFactory.create(is_superuser=True, is_staff=False)
    client = Client()
    client.force_login(root)
    url = reverse("admin:auth_user_change", args=[root.pk])
    form = user_form(root, is_superuser="on")
    form[given_up] = ""
    page = client.post(url, form).content.decode()
    assert "make another superuser first: nobody else is one" in page
    root.refresh_from_db()
    assert getattr(root, given_up) is True

    UserFactory.create(is_superuser=True)
    assert client.post(url, form).status_code == 302
    root.refresh_from_db()
    assert getattr(root, given_up) is False


def test_a_user_is_added_with_a_reason_and_never_deleted() -> None:
    client = client_of(SECURITY_ADMIN)
    form = {
        "username": "nadia",
        "password1": PASSWORD,
        "password2": PASSWORD,
        "usable_password": "true",
    }
    assert client.post(reverse("admin:auth_user_add"), form).status_code == 200
    form["reason"] = "joins the desk"
    assert client.post(reverse("admin:auth_user_add"), form).status_code == 302
    event = AuditEvent.objects.get(kind="user.created")
    assert (event.subject, event.reason) == ("user nadia", "joins the desk")
    assert event.after is not None
    assert event.after["password"] == "***"
    nadia = User.objects.get(username="nadia")
    delete = reverse("admin:auth_user_delete", args=[nadia.pk])
    assert client.post(delete, {"reason": "left"}).status_code == 403


def test_a_password_set_for_somebody_is_recorded_without_it() -> None:
    client = client_of(SECURITY_ADMIN)
    user = member(VIEWER)
    url = reverse("admin:auth_user_password_change", args=[user.pk])
    new = "another battery staple"
    form = {"password1": new, "password2": new, "usable_password": "true"}
    assert client.post(url, form).status_code == 302
    event = AuditEvent.objects.get(kind="user.password_changed")
    assert (event.subject, event.before, event.after) == (f"user {user.username}", None, None)


def test_the_four_roles_are_not_edited() -> None:
    roles.install()
    root = UserFactory.create(is_superuser=True)
    client = Client()
    client.force_login(root)
    group = Group.objects.get(name=VIEWER)
    url = reverse("admin:auth_group_change", args=[group.pk])
    assert client.post(url, {"name": "x", "reason": "y"}).status_code == 403
    own = Group.objects.create(name="auditors")
    url = reverse("admin:auth_group_change", args=[own.pk])
    right = Permission.objects.get(codename="view_auditevent")
    form = {"name": "auditors", "permissions": [right.pk], "reason": "yearly audit"}
    assert client.post(url, form).status_code == 302
    event = AuditEvent.objects.get(kind="group.rights_changed")
    assert event.after == {"permissions": [str(right)]}


# --- logins ---------------------------------------------------------------------------------------


def test_logins_are_recorded(client: Client) -> None:
    user = UserFactory.create(username="olivia")
    login = reverse("admin:login")
    client.post(login, {"username": "olivia", "password": "wrong"})
    client.post(login, {"username": "olivia", "password": PASSWORD})
    client.post(reverse("admin:logout"))
    events = AuditEvent.objects.filter(kind__startswith="login.").order_by("id")
    assert [(event.kind, event.actor, event.subject, event.address) for event in events] == [
        ("login.failed", "anonymous", "user olivia", "127.0.0.1"),
        ("login.succeeded", "olivia", "user olivia", "127.0.0.1"),
        ("login.ended", "olivia", "user olivia", "127.0.0.1"),
    ]
    assert user.username == "olivia"


def test_attempts_after_the_lock_out_do_not_fill_the_trail(client: Client) -> None:
    UserFactory.create(username="olivia")
    for _ in range(9):
        client.post(reverse("admin:login"), {"username": "olivia", "password": "wrong"})
    assert AuditEvent.objects.filter(kind="login.failed").count() == 5


def test_a_lock_out_is_lifted_for_a_reason_that_is_kept(client: Client) -> None:
    UserFactory.create(username="olivia")
    for _ in range(5):
        client.post(reverse("admin:login"), {"username": "olivia", "password": "wrong"})
    attempt = AccessAttempt.objects.get()
    desk = client_of(SECURITY_ADMIN)
    lists = desk.get(reverse("admin:axes_accessattempt_changelist"))
    assert b"delete_selected" not in lists.content
    address = reverse("admin:axes_accessattempt_delete", args=[attempt.pk])
    desk.post(address, {"post": "yes", "reason": " "})
    assert AccessAttempt.objects.exists()
    desk.post(address, {"post": "yes", "reason": "called by telephone"})
    assert not AccessAttempt.objects.exists()
    event = AuditEvent.objects.get(kind="failed_login.deleted")
    assert event.reason == "called by telephone"
    assert event.before is not None
    assert (event.before["username"], event.before["post_data"]) == ("olivia", "***")


def test_failed_tokens_are_recorded(client: Client) -> None:
    given = {"username": "no\x00body", "password": "wrong"}
    client.post("/api/token", {**given, "username": "nobody"}, content_type="application/json")
    assert AuditEvent.objects.get(kind="login.failed").subject == "user nobody"
    assert not CircuitBreaker.objects.exists()
