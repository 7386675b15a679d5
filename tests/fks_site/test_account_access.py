"""Who works with some accounts only: each role against rows of one's own account and of others'."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.core.cache import cache
from django.db import models, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers import access
from brokers.models import Account, AccountRestriction, Instrument, SymbolAlias
from execution import bearer, halting
from execution.halting import Mode
from execution.models import (
    Alarm,
    Difference,
    Order,
    Protection,
    QuarantinedBody,
    Route,
    Signal,
    Strategy,
)
from execution.proposable import RELEASE, release_payload
from execution.states import OrderState
from fks_site import roles
from fks_site.roles import OPERATOR, RISK_OFFICER, SECURITY_ADMIN, VIEWER
from fks_site.users import restrict
from risk import audit, breakers, proposals, switch
from risk.models import (
    AuditEvent,
    CircuitBreaker,
    LimitHit,
    Proposal,
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

pytestmark = pytest.mark.django_db

EVERYBODY = sorted(roles.RIGHTS)
DESK = frozenset({OPERATOR, RISK_OFFICER})
Scope = TradingState.Scope


def member(role: str, *accounts: Account, **columns: Any) -> User:
    """Somebody with ``role`` on ``accounts`` only."""
    roles.install()
    user: User = UserFactory.create(**columns)
    user.groups.set([Group.objects.get(name=role)])
    restrict(user, list(accounts), reason="one desk only")
    return User.objects.get(pk=user.pk)


def client_of(user: User) -> Client:
    cache.clear()
    client = Client()
    client.force_login(user)
    return client


@contextmanager
def undone() -> Iterator[None]:
    """What is done inside is taken back: the next case finds the same rows, made once."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def bearer_of(client: Client, user: User) -> dict[str, str]:
    given = {"username": user.username, "password": PASSWORD}
    answer = client.post("/api/token", given, content_type="application/json")
    return {"Authorization": f"Bearer {answer.json()['access']}"}


class Desk:
    """One account with one row of everything that belongs to an account."""

    def __init__(self, name: str) -> None:
        now = timezone.now()
        self.account = AccountFactory.create(name=name)
        self.strategy = StrategyFactory.create(slug=f"{name}-alone")
        RouteFactory.create(strategy=self.strategy, account=self.account)
        self.signal = SignalFactory.create(strategy=self.strategy)
        self.order = OrderFactory.create(
            account=self.account, strategy=self.strategy, signal=self.signal, state=OrderState.OPEN
        )
        self.held = OrderFactory.create(
            account=self.account,
            state=OrderState.AWAITING_APPROVAL,
            approve_by=now + timedelta(minutes=5),
        )
        self.fill = FillFactory.create(order=self.order)
        self.position = PositionFactory.create(account=self.account)
        self.protection = Protection.objects.create(
            account=self.account, symbol="BTC/USDT", entry=self.order, naked_since=now
        )
        self.difference = Difference.objects.create(
            account=self.account, symbol="ETH/USDT", kind=Difference.Kind.POSITION, key="ETH/USDT",
            ours="0", theirs="1", detail="one too many", first_seen_at=now, last_seen_at=now,
        )  # fmt: skip
        self.alarm = Alarm.objects.create(
            kind=Alarm.Kind.NEEDS_OPERATOR,
            key=name,
            account=self.account,
            detail="x",
            raised_at=now,
        )
        self.hit = LimitHit.objects.create(
            at=now, kind=LimitHit.Kind.WARNED, rule="daily_loss", scope="everything",
            account=self.account, symbol="BTC/USDT", order_id=self.order.pk, detail="x",
        )  # fmt: skip
        self.instrument = Instrument.objects.create(
            account=self.account, symbol="BTC/USDT", venue_symbol="BTCUSDT", base="BTC",
            quote="USDT", quantity_step=Decimal("0.001"), price_tick=Decimal("0.1"),
            refreshed_at=now,
        )  # fmt: skip
        self.alias = SymbolAlias.objects.create(
            account=self.account, alias=f"{name}-BTC", symbol="BTC/USDT"
        )
        self.policy = RiskPolicy.objects.create(account=self.account)
        self.breaker = breakers.of_account(self.account.pk)
        CircuitBreaker.objects.filter(pk=self.breaker.pk).update(failures=1)
        self.quarantined = QuarantinedBody.objects.create(
            strategy=self.strategy, received_at=now, body="?", code="NOT_JSON", detail="x"
        )
        self.switch = TradingState.objects.create(
            scope=Scope.ACCOUNT, key=name, state="reducing", changed_at=now
        )

    def rows(self) -> list[models.Model]:
        return [
            self.account, self.strategy, self.signal, self.order, self.held, self.fill,
            self.position, self.protection, self.difference, self.alarm, self.hit,
            self.instrument, self.alias, self.policy, self.breaker, self.quarantined, self.switch,
        ]  # fmt: skip


@pytest.fixture
def mine() -> Desk:
    return Desk("mine")


@pytest.fixture
def theirs() -> Desk:
    return Desk("theirs")


@pytest.fixture
def shared(mine: Desk, theirs: Desk) -> Strategy:
    """A strategy that trades on both."""
    strategy: Strategy = StrategyFactory.create(slug="shared")
    for desk in (mine, theirs):
        RouteFactory.create(strategy=strategy, account=desk.account)
    return strategy


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", EVERYBODY)
def test_lists_hold_the_rows_of_ones_own_account(role: str, mine: Desk, theirs: Desk) -> None:
    client = client_of(member(role, mine.account))
    for row, other in zip(mine.rows(), theirs.rows(), strict=True):
        name = f"admin:{row._meta.app_label}_{row._meta.model_name}_changelist"
        shown = {one.pk for one in client.get(reverse(name)).context["cl"].result_list}
        assert row.pk in shown, name
        assert other.pk not in shown, name


@pytest.mark.parametrize("role", EVERYBODY)
def test_a_page_of_another_account_does_not_exist(role: str, mine: Desk, theirs: Desk) -> None:
    client = client_of(member(role, mine.account))
    for row, other in zip(mine.rows(), theirs.rows(), strict=True):
        for view in ("change", "history", "delete"):
            name = f"admin:{row._meta.app_label}_{row._meta.model_name}_{view}"
            expected = (200,) if view == "change" else (200, 403)
            assert client.get(reverse(name, args=[row.pk])).status_code in expected, name
            assert client.get(reverse(name, args=[other.pk])).status_code in (403, 404), name
            answer = client.post(reverse(name, args=[other.pk]), {"reason": "x", "post": "yes"})
            assert answer.status_code in (403, 404), name


def test_restricted_to_nothing_is_to_see_nothing(mine: Desk) -> None:
    client = client_of(member(RISK_OFFICER))
    for row in mine.rows():
        name = f"admin:{row._meta.app_label}_{row._meta.model_name}"
        assert not client.get(reverse(f"{name}_changelist")).context["cl"].result_list, name
        assert client.get(reverse(f"{name}_change", args=[row.pk])).status_code == 404, name


def test_who_is_not_restricted_sees_everything(mine: Desk, theirs: Desk) -> None:
    user = member(OPERATOR, mine.account)
    restrict(user, None, reason="back on the main desk")
    client = client_of(User.objects.get(pk=user.pk))
    for row in (*mine.rows(), *theirs.rows()):
        name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
        assert client.get(reverse(name, args=[row.pk])).status_code == 200, name


def test_a_superuser_is_never_restricted(mine: Desk, theirs: Desk) -> None:
    user = member(VIEWER, mine.account, is_superuser=True)
    assert access.reach_of(user) is None


def test_choices_and_filters_name_no_other_account(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(RISK_OFFICER, mine.account))
    pages = [
        reverse("admin:execution_order_changelist"),
        reverse("admin:execution_signal_changelist"),
        reverse("admin:risk_riskpolicy_changelist"),
        reverse("admin:risk_riskpolicy_add"),
        reverse("admin:execution_strategy_add"),
        reverse("admin:execution_strategy_change", args=[mine.strategy.pk]),
        reverse("admin:execution_signal_change", args=[mine.signal.pk]),
        reverse("admin:trading"),
        reverse("admin:execution_lab"),
        reverse("admin:performance"),
        reverse("admin:approvals"),
        reverse("admin:index"),
        reverse("admin:dashboard"),
        reverse("admin:search") + "?s=strategy&extended=1",
    ]
    for page in pages:
        text = client.get(page).content.decode()
        assert "theirs" not in text, page
    assert "mine" in client.get(pages[0]).content.decode()


def test_a_shared_strategy_shows_what_is_mine_of_it(
    mine: Desk, theirs: Desk, shared: Strategy
) -> None:
    signal = SignalFactory.create(strategy=shared)
    orders = [
        OrderFactory.create(account=desk.account, signal=signal, strategy=shared)
        for desk in (mine, theirs)
    ]
    user = member(OPERATOR, mine.account)
    client = client_of(user)
    for name, row in (("signal", signal), ("strategy", shared)):
        page = client.get(reverse(f"admin:execution_{name}_change", args=[row.pk]))
        assert page.status_code == 200
        assert "theirs" not in page.content.decode()
    headers = bearer_of(client, user)
    told = client.get(f"/api/v1/signals/{signal.pk}", headers=headers).json()
    assert [one["id"] for one in told["orders"]] == [str(orders[0].pk)]
    told = client.get("/api/v1/strategies/shared", headers=headers).json()
    assert [one["account"] for one in told["routes"]] == ["mine"]


def test_pages_about_all_accounts_are_closed(mine: Desk) -> None:
    client = client_of(member(SECURITY_ADMIN, mine.account))
    hidden = ("risk_riskreport", "risk_channel", "risk_notice", "auth_user", "auth_group")
    for name in hidden:
        address = reverse(f"admin:{name}_changelist")
        assert client.get(address).status_code == 403, name
        assert address not in client.get(reverse("admin:index")).content.decode(), name
    assert client.get(reverse("admin:getting_started")).status_code == 403


def test_every_page_says_whose_its_rows_are() -> None:
    """A model nobody named is hidden from the restricted: on purpose, then, and only these."""
    unnamed = {model._meta.label for model in admin.site._registry if model not in access.RULES}
    assert unnamed == {"auth.Group", "auth.User", "axes.AccessAttempt", "axes.AccessLog"}


# --- actions --------------------------------------------------------------------------------------

ACTIONS = {
    "admin:execution_order_cancel": ("order", DESK),
    "admin:execution_order_ask_venue": ("order", DESK),
    "admin:execution_difference_adopt": ("difference", DESK),
    "admin:execution_difference_ignore": ("difference", DESK),
    "admin:execution_difference_flatten": ("difference", DESK),
    "admin:execution_protection_guard_again": ("protection", DESK),
    "admin:risk_circuitbreaker_trip": ("breaker", DESK),
    "admin:risk_circuitbreaker_reset": ("breaker", DESK),
    "admin:execution_strategy_rotate": ("strategy", {SECURITY_ADMIN}),
}


@pytest.mark.parametrize("role", EVERYBODY)
def test_an_action_is_for_rows_of_ones_own_account(role: str, mine: Desk, theirs: Desk) -> None:
    user = member(role, mine.account)
    for address, (name, allowed) in ACTIONS.items():
        own, other = (reverse(address, args=[getattr(desk, name).pk]) for desk in (mine, theirs))
        with undone():
            client = client_of(user)
            for method in (client.get, client.post):
                case = (address, method)
                assert method(own, {}).status_code == (200 if role in allowed else 403), case
                refused = method(other, {"reason": "a drill"}).status_code
                assert refused == (404 if role in allowed else 403), case
            assert not AuditEvent.objects.filter(reason="a drill").exists(), address


@pytest.mark.parametrize("role", EVERYBODY)
def test_a_dry_run_is_of_what_trades_on_no_other_account(
    role: str, mine: Desk, theirs: Desk, shared: Strategy
) -> None:
    """It shows facts and verdicts of every account of the strategy."""
    client = client_of(member(role, mine.account))
    in_part = SignalFactory.create(strategy=shared)
    for address, row, expected in (
        ("admin:execution_signal_replay", theirs.signal, 404),
        ("admin:execution_signal_replay", in_part, 403),
        ("admin:execution_quarantinedbody_try_again", theirs.quarantined, 404),
    ):
        assert client.post(reverse(address, args=[row.pk])).status_code == expected


@pytest.mark.parametrize("role", EVERYBODY)
@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_orders_that_wait_are_decided_by_who_works_with_their_account(
    role: str, verb: str, mine: Desk, theirs: Desk
) -> None:
    user = member(role, mine.account)
    client = client_of(user)
    page = client.get(reverse("admin:approvals")).content.decode()
    assert str(mine.held.pk) in page
    assert str(theirs.held.pk) not in page

    def decide(order: Order) -> int:
        url = reverse("admin:decide_approval", args=[order.pk, verb])
        return client.post(url, {"reason": "looked at"}).status_code

    assert decide(theirs.held) == (404 if role in DESK else 403)
    path = f"/api/v1/orders/{theirs.held.pk}/{verb}"
    answer = client.post(
        path, {"reason": "x"}, content_type="application/json", headers=bearer_of(client, user)
    )
    assert answer.status_code == (404 if role in DESK else 403)
    theirs.held.refresh_from_db()
    assert theirs.held.state == OrderState.AWAITING_APPROVAL
    assert decide(mine.held) == (302 if role in DESK else 403)
    mine.held.refresh_from_db()
    assert (mine.held.state != OrderState.AWAITING_APPROVAL) == (role in DESK)


def test_what_a_venue_has_in_common_is_seen_and_not_touched(mine: Desk) -> None:
    venue = CircuitBreaker.objects.create(venue="paper")
    user = member(RISK_OFFICER, mine.account)
    client = client_of(user)
    page = reverse("admin:risk_circuitbreaker_change", args=[venue.pk])
    assert client.get(page).status_code == 200
    assert client.post(page, {"failure_threshold": 99, "reason": "x"}).status_code == 403
    trip = reverse("admin:risk_circuitbreaker_trip", args=[venue.pk])
    assert client.post(trip, {"reason": "x"}).status_code == 403
    answer = client.post(
        "/api/v1/breakers/venue:paper/reset",
        {"reason": "x"},
        content_type="application/json",
        headers=bearer_of(client, user),
    )
    assert answer.status_code == 403
    venue.refresh_from_db()
    assert (venue.state, venue.failure_threshold) == (CircuitBreaker.State.CLOSED, 5)


# --- the kill switch ------------------------------------------------------------------------------

TARGETS = {
    "account:mine": True,
    "strategy:mine-alone": True,
    "strategy:shared": False,
    "strategy:theirs-alone": False,
    "account:theirs": False,
    "venue:paper": False,
    "symbol:BTC/USDT": False,
    "global:": False,
}


MODES = ("halt", "cancel_all", "flatten")


@pytest.mark.parametrize("role", EVERYBODY)
def test_the_switch_is_pressed_for_what_is_ones_own(
    role: str, mine: Desk, theirs: Desk, shared: Strategy
) -> None:
    user = member(role, mine.account)
    headers = bearer_of(client_of(user), user)
    for target, mode in product(TARGETS, MODES):
        with undone():
            press_both(user, headers, role, target, mode)


def press_both(user: User, headers: dict[str, str], role: str, target: str, mode: str) -> None:
    """On its page and through the API."""
    client, case = client_of(user), (target, mode)
    scope, _, key = target.partition(":")
    may = TARGETS[target] and role in (DESK if mode != "halt" else DESK | {SECURITY_ADMIN})

    def stands() -> bool:
        return TradingState.objects.filter(scope=scope, key=key, state="halted").exists()

    client.post(reverse("admin:trading"), {"mode": mode, "target": target, "reason": "a drill"})
    assert stands() == may, case
    TradingState.objects.all().delete()
    answer = client.post(
        "/api/v1/trading-state",
        {"mode": mode, "scope": scope, "key": key, "reason": "a drill"},
        content_type="application/json",
        headers=headers,
    )
    assert answer.status_code == (200 if may else 403), case
    assert stands() == may, case


def test_a_strategy_is_not_ones_own_while_something_of_it_is_left_elsewhere(
    mine: Desk, theirs: Desk, shared: Strategy
) -> None:
    """Its route there is gone; a flatten would close what it holds all the same."""
    user = member(OPERATOR, mine.account)

    def may() -> bool:
        return halting.may_press(user, Mode.FLATTEN, Scope.STRATEGY, "shared")

    Route.objects.filter(strategy=shared, account=theirs.account).delete()
    assert may()
    order = OrderFactory.create(account=theirs.account, strategy=shared, state=OrderState.UNKNOWN)
    assert not may()
    Order.objects.filter(pk=order.pk).update(state=OrderState.FILLED)
    assert may()
    FillFactory.create(order=order)
    assert not may()
    theirs.position.quantity = 0
    theirs.position.save()
    assert may()


def test_a_release_is_for_what_is_ones_own(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(RISK_OFFICER, mine.account))
    for name in ("mine", "theirs"):
        switch.change(TradingState.State.HALTED, scope=Scope.ACCOUNT, key=name, reason="x")
        given = {"mode": "resume", "target": f"account:{name}", "reason": "looked at"}
        client.post(reverse("admin:trading"), given)
    states = dict(TradingState.objects.values_list("key", "state"))
    assert (states["mine"], states["theirs"]) == ("active", "halted")


def test_what_a_switch_has_left_is_told_of_ones_own_account(mine: Desk, theirs: Desk) -> None:
    user = member(OPERATOR, mine.account)
    TradingState.objects.create(
        scope=Scope.GLOBAL, state="halted", flatten=True, changed_at=timezone.now()
    )
    Order.objects.filter(state=OrderState.OPEN).update(cancel_reason="CANCELED_BY_OPERATOR")
    client = client_of(user)
    rows = client.get("/api/v1/trading-state?scope=global", headers=bearer_of(client, user))
    (row,) = rows.json()["results"]
    assert row["left"] == {
        "orders": [str(mine.order.pk)],
        "positions": [str(mine.position)],
    }


# --- the API --------------------------------------------------------------------------------------

API = {
    "orders": "order",
    "fills": "fill",
    "positions": "position",
    "signals": "signal",
    "accounts": "account",
    "strategies": "strategy",
    "breakers": "account",
}


@pytest.mark.parametrize("role", EVERYBODY)
def test_the_api_holds_the_rows_of_ones_own_account(role: str, mine: Desk, theirs: Desk) -> None:
    user = member(role, mine.account)
    client = client_of(user)
    headers = bearer_of(client, user)

    def address(path: str, row: Any) -> str:
        keys = {Account: "name", Strategy: "slug"}
        return f"/api/v1/{path}/{getattr(row, keys.get(type(row), 'pk'))}"

    for path, name in API.items():
        whole = client.get(f"/api/v1/{path}", headers=headers)
        assert whole.json()["results"], path
        assert "theirs" not in whole.content.decode(), path
        own, other = getattr(mine, name), getattr(theirs, name)
        assert client.get(address(path, own), headers=headers).status_code == 200, path
        assert client.get(address(path, other), headers=headers).status_code == 404, path
    for path in ("limits", "trading-state", "audit", "proposals"):
        answer = client.get(f"/api/v1/{path}", headers=headers)
        assert answer.status_code == 200
        assert "theirs" not in answer.content.decode(), path


@pytest.mark.parametrize("role", EVERYBODY)
def test_the_api_does_things_on_ones_own_account(role: str, mine: Desk, theirs: Desk) -> None:
    user = member(role, mine.account)
    client = client_of(user)
    headers = bearer_of(client, user)

    def post(path: str, **body: Any) -> int:
        answer = client.post(
            f"/api/v1/{path}", body, content_type="application/json", headers=headers
        )
        return answer.status_code

    absent = 404 if role in DESK else 403
    assert post(f"orders/{theirs.order.pk}/cancel") == absent
    assert post(f"orders/{theirs.order.pk}/amend", price="1") == absent
    assert post("breakers/theirs/reset", reason="x") == absent
    assert post("breakers/theirs/trip", reason="x") == absent
    placed = {"symbol": "BTC/USDT", "side": "buy", "quantity": "0.01"}
    assert post("orders", account="theirs", **placed) == (422 if role in DESK else 403)
    assert not Signal.objects.filter(auth="operator").exists()
    assert post(f"orders/{mine.order.pk}/cancel") == (202 if role in DESK else 403)
    assert post("breakers/mine/reset", reason="x") == (200 if role in DESK else 403)


# --- settings -------------------------------------------------------------------------------------

_NO_INLINE = {"limits-TOTAL_FORMS": "0", "limits-INITIAL_FORMS": "0"}


def test_limits_are_set_for_ones_own_account(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(RISK_OFFICER, mine.account))
    RiskPolicy.objects.all().delete()
    url = reverse("admin:risk_riskpolicy_add")

    def add(**scope: Any) -> int:
        return client.post(url, {**_NO_INLINE, "reason": "x", **scope}).status_code

    assert add(account=mine.account.pk) == 302
    assert add(strategy="mine-alone") == 302
    assert add(account=theirs.account.pk) == 200  # no such choice: the form comes back
    assert add() == 403
    assert add(strategy="theirs-alone") == 403
    assert add(symbol="BTC/USDT") == 403
    found = {str(row) for row in RiskPolicy.objects.all()}
    assert found == {"account mine", "strategy mine-alone"}


def test_limits_of_everything_are_seen_and_not_changed(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(RISK_OFFICER, mine.account))
    policy = RiskPolicy.objects.create()
    url = reverse("admin:risk_riskpolicy_change", args=[policy.pk])
    assert client.get(url).status_code == 200
    assert client.post(url, {**_NO_INLINE, "reason": "x"}).status_code == 403
    delete = reverse("admin:risk_riskpolicy_delete", args=[policy.pk])
    assert client.post(delete, {"post": "yes", "reason": "x"}).status_code == 403
    own = reverse("admin:risk_riskpolicy_delete", args=[mine.policy.pk])
    assert client.post(own, {"post": "yes", "reason": "x"}).status_code == 302
    assert RiskPolicy.objects.filter(pk=policy.pk).exists()
    assert not RiskPolicy.objects.filter(pk=mine.policy.pk).exists()


def test_a_shared_strategy_is_not_changed(mine: Desk, shared: Strategy) -> None:
    for role in (RISK_OFFICER, SECURITY_ADMIN):
        client = client_of(member(role, mine.account))
        url = reverse("admin:execution_strategy_change", args=[shared.pk])
        assert client.post(url, {"reason": "x"}).status_code == 403
        own = reverse("admin:execution_strategy_change", args=[mine.strategy.pk])
        assert client.post(own, {}).status_code == 200  # refused for what the form lacks
        rotate = reverse("admin:execution_strategy_rotate", args=[shared.pk])
        assert client.post(rotate, {"old": "now", "reason": "x"}).status_code == 403


def test_a_route_leads_to_no_other_account(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(RISK_OFFICER, mine.account))
    url = reverse("admin:execution_strategy_change", args=[mine.strategy.pk])
    form = client.get(url).context["inline_admin_formsets"][0].formset.forms[0]
    choices = [str(label) for _, label in form.fields["account"].choices]
    assert "mine" in choices
    assert "theirs" not in choices
    assert Route.objects.filter(strategy=mine.strategy).count() == 1


def test_only_ones_own_account_is_changed_and_none_is_added(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(SECURITY_ADMIN, mine.account))
    own = reverse("admin:brokers_account_change", args=[mine.account.pk])
    assert client.post(own, {}).status_code == 200
    other = reverse("admin:brokers_account_change", args=[theirs.account.pk])
    assert client.post(other, {}).status_code == 404
    assert client.get(reverse("admin:brokers_account_add")).status_code == 403
    for name in ("ipallowlist", "channel"):
        assert client.get(reverse(f"admin:risk_{name}_add")).status_code == 403, name
    Safeguards.objects.create()
    safeguards = reverse("admin:risk_safeguards_change", args=[1])
    assert client.post(safeguards, {"two_person": "on", "reason": "x"}).status_code == 403


def test_proposals_are_decided_by_who_works_with_their_account(mine: Desk, theirs: Desk) -> None:
    Safeguards.objects.create(two_person=True)
    made = {}
    for name in ("mine", "theirs"):
        switch.change(TradingState.State.HALTED, scope=Scope.ACCOUNT, key=name, reason="x")
        payload = release_payload(Mode.RESUME, Scope.ACCOUNT, name)
        made[name] = proposals.submit(RELEASE.name, payload, reason="looked at")
    user = member(RISK_OFFICER, mine.account)
    client = client_of(user)
    shown = client.get(reverse("admin:risk_proposal_changelist")).context["cl"].result_list
    assert [row.pk for row in shown] == [made["mine"].pk]  # type: ignore[union-attr]
    for name, expected in (("mine", 302), ("theirs", 404)):
        row = made[name]
        assert isinstance(row, Proposal)
        url = reverse("admin:risk_proposal_approve", args=[row.pk])
        assert client.post(url, {"reason": "agreed"}).status_code == expected
        row.refresh_from_db()
        assert row.state == ("approved" if name == "mine" else "open")
    other = made["theirs"]
    assert isinstance(other, Proposal)
    with pytest.raises(proposals.NotDecided) as refused:
        proposals.approve(other.pk, user, "x")
    assert refused.value.code == "NOT_ALLOWED"


# --- reports --------------------------------------------------------------------------------------


def test_the_home_page_counts_ones_own_account(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(OPERATOR, mine.account))
    view = client.get(reverse("admin:dashboard")).context["view"]
    assert [row.name for row in view.accounts] == ["mine"]
    assert (view.signals, view.working, view.awaiting, view.differences) == (1, 2, 1, 1)
    assert [row.pk for row in view.positions] == [mine.position.pk]
    assert [row.pk for row in view.alarms] == [mine.alarm.pk]
    assert {row.account_id for row in view.latest_orders} == {mine.account.pk}
    whole = client_of(UserFactory.create(is_superuser=True))
    assert whole.get(reverse("admin:dashboard")).context["view"].signals == 2


def test_trades_are_exported_of_ones_own_account(mine: Desk, theirs: Desk) -> None:
    client = client_of(member(VIEWER, mine.account))
    for query in ("", "&account=theirs", "&strategy=theirs-alone"):
        answer = client.get(reverse("admin:performance") + f"?format=csv{query}")
        text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["account"] for row in rows] == ["mine"], query


def test_the_lab_runs_only_what_trades_on_no_other_account(
    mine: Desk, theirs: Desk, shared: Strategy
) -> None:
    client = client_of(member(OPERATOR, mine.account))
    form = client.get(reverse("admin:execution_lab")).context["form"]
    assert [row.slug for row in form.fields["strategy"].queryset] == ["mine-alone"]
    page = client.get(reverse("admin:execution_lab") + f"?signal={theirs.signal.pk}")
    assert page.context["form"].initial == {}


def test_the_audit_trail_of_ones_own(mine: Desk, theirs: Desk) -> None:
    user = member(OPERATOR, mine.account)
    with audit.acting(audit.Actor("somebody")):
        for name in ("mine", "theirs"):
            audit.record("account.changed", f"account {name}")
            audit.record("limit.changed", f"limit daily_loss (account {name})")
            audit.record("strategy.changed", f"strategy {name}-alone")
            audit.record("difference.adopted", f"position: BTC/USDT on {name}")
    with audit.acting(audit.Actor(user.username)):
        audit.record("order.cancel_asked", "order 7")
    client = client_of(user)
    shown = client.get(reverse("admin:risk_auditevent_changelist")).context["cl"].result_list
    assert {row.subject for row in shown if not row.kind.startswith("login.")} == {
        "order 7",
        "account mine",
        "limit daily_loss (account mine)",
        "strategy mine-alone",
        "position: BTC/USDT on mine",
    }


# --- who is restricted ----------------------------------------------------------------------------


def user_form(user: User, **changes: Any) -> dict[str, Any]:
    return {
        "username": user.username,
        "is_active": "on",
        "is_staff": "on",
        "groups": [group.pk for group in user.groups.all()],
        "reason": "one desk only",
    } | changes


def security() -> Client:
    roles.install()
    user = UserFactory.create(username="sara")
    user.groups.set([Group.objects.get(name=SECURITY_ADMIN)])
    return client_of(user)


@pytest.mark.parametrize("is_superuser", [False, True])
def test_nobody_renames_themselves(is_superuser: bool) -> None:
    """Whoever proposed a change is known by name, and does not approve it."""
    client = security()
    sara, olaf = User.objects.get(username="sara"), UserFactory.create(username="olaf")
    User.objects.filter(pk=sara.pk).update(is_superuser=is_superuser)
    UserFactory.create(is_superuser=True)
    for user, now in ((sara, "sara"), (olaf, "other")):
        url = reverse("admin:auth_user_change", args=[user.pk])
        assert client.post(url, user_form(user, username="other")).status_code == 302
        user.refresh_from_db()
        assert user.username == now


def test_a_security_admin_restricts_somebody_and_it_is_recorded(mine: Desk, theirs: Desk) -> None:
    client = security()
    user = UserFactory.create(username="olaf")
    url = reverse("admin:auth_user_change", args=[user.pk])

    assert "is_restricted" in client.get(url).context["adminform"].form.fields
    form = user_form(user, is_restricted="on", accounts=[mine.account.pk])
    assert client.post(url, form).status_code == 302
    assert client.post(url, user_form(user, is_restricted="on")).status_code == 302
    assert client.post(url, user_form(user)).status_code == 302

    events = AuditEvent.objects.filter(kind="user.accounts_changed").order_by("id")
    assert [(one.subject, one.actor, one.reason) for one in events] == [
        ("user olaf", "sara", "one desk only")
    ] * 3
    assert [(one.before, one.after) for one in events] == [
        ({"accounts": "all"}, {"accounts": ["mine"]}),
        ({"accounts": ["mine"]}, {"accounts": []}),
        ({"accounts": []}, {"accounts": "all"}),
    ]
    assert not AccountRestriction.objects.exists()


def test_accounts_without_the_switch_are_refused(mine: Desk) -> None:
    client = security()
    user = UserFactory.create()
    url = reverse("admin:auth_user_change", args=[user.pk])
    answer = client.post(url, user_form(user, accounts=[mine.account.pk]))
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors == {
        "is_restricted": ["switch it on, or choose no account"]
    }


def test_the_list_of_users_says_who_is_restricted(mine: Desk) -> None:
    client = security()
    member(VIEWER, mine.account, username="olaf")
    member(VIEWER, username="nobody")
    page = client.get(reverse("admin:auth_user_changelist"))
    model_admin = admin.site._registry[User]
    told = {row.username: model_admin.accounts(row) for row in page.context["cl"].result_list}  # type: ignore[attr-defined]
    assert told == {"sara": "all", "olaf": "mine", "nobody": "none"}


def test_a_permitted_sender_posts_to_strategies_of_their_accounts(
    mine: Desk, theirs: Desk, shared: Strategy
) -> None:
    user = member(VIEWER, mine.account)
    user.user_permissions.add(Permission.objects.get(codename="post_alert"))
    posts_to = {
        slug: user in bearer.senders_of(Strategy.objects.get(slug=slug))
        for slug in ("mine-alone", "shared", "theirs-alone")
    }
    assert posts_to == {"mine-alone": True, "shared": False, "theirs-alone": False}
    shared.senders.add(user)
    assert user in bearer.senders_of(shared)
