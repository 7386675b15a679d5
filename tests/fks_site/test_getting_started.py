"""From an empty installation to the first paper fill, by the buttons of one page."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from brokers.models import Account
from execution import tasks
from execution.models import Order, Signal, Strategy
from execution.states import OrderState
from fks_site import roles
from risk import limits, proposals
from risk.check import REQUIRED
from risk.models import AuditEvent, IPAllowlist, Proposal, RiskLimit, Safeguards
from risk.types import LimitMode
from tests.factories import AccountFactory, OrderFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """As the first start leaves it, less its account, limits and strategies."""
    cache.clear()
    IPAllowlist.objects.create(name="tradingview")


def do(client: Client, step: str, **answers: str) -> str:
    answer = client.post(reverse("admin:getting_started"), {"step": step} | answers, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def test_four_buttons_lead_to_a_fill(admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:getting_started")).content.decode()
    assert page.count(">done<") == 0
    assert "Make a paper account" in page
    assert "Buy on paper" not in page

    page = do(admin_client, "account")
    account = Account.objects.get()
    assert (account.name, account.broker, account.environment) == ("paper", "paper", "dry_run")

    page = do(admin_client, "limits")
    assert RiskLimit.objects.filter(rule="max_order_value", mode="enforce").exists()

    page = do(admin_client, "strategy", slug="trend")
    strategy = Strategy.objects.get()
    shown = re.search(r'id="new-address">([^<]+)<', page)
    assert shown is not None
    assert shown[1].startswith("http://testserver/webhook/trend/")
    assert [route.account for route in strategy.routes.all()] == [account]
    secret = shown[1].rpartition("/")[2]
    assert secret not in admin_client.get(reverse("admin:getting_started")).content.decode()

    account.reconciled_at = account.created_at
    account.save()
    do(admin_client, "order")
    signal = Signal.objects.get()
    tasks.process_signal(str(signal.pk))
    order = Order.objects.get()
    assert (order.state, order.account) == (OrderState.FILLED, account)
    page = admin_client.get(reverse("admin:getting_started")).content.decode()
    assert page.count("done</span>") == 4
    assert "What comes next" in page
    asked = AuditEvent.objects.get(kind="order.requested")
    assert (asked.actor, asked.reason) == ("admin", "getting started")


def test_a_step_done_twice_is_done_once(admin_client: Client) -> None:
    for step in ("account", "account", "limits", "limits"):
        do(admin_client, step)
    assert Account.objects.count() == 1
    account = Account.objects.get()
    OrderFactory.create(account=account, state=OrderState.OPEN)
    do(admin_client, "order")
    assert not Signal.objects.exists()


def test_a_step_before_its_time_does_nothing(admin_client: Client) -> None:
    do(admin_client, "order")
    do(admin_client, "strategy", slug="trend")
    assert not Signal.objects.exists()
    assert not Strategy.objects.exists()


def test_a_name_that_is_taken_is_said(admin_client: Client) -> None:
    do(admin_client, "account")
    do(admin_client, "limits")
    Strategy.objects.create(slug="trend", is_enabled=False)
    page = do(admin_client, "strategy", slug="trend")
    assert "already exists" in page
    assert Strategy.objects.count() == 1


def test_an_order_that_failed_is_explained_and_may_be_tried_again(admin_client: Client) -> None:
    do(admin_client, "account")
    do(admin_client, "limits")
    OrderFactory.create(
        account=Account.objects.get(),
        state=OrderState.DENIED,
        reason="MAX_ORDER_VALUE",
        detail="600 is more than 500",
    )
    page = admin_client.get(reverse("admin:getting_started")).content.decode()
    assert "600 is more than 500" in page
    assert "Buy on paper" in page


def test_limits_that_take_two_wait_for_another_person(admin_client: Client) -> None:
    Safeguards.objects.create(two_person=True)
    do(admin_client, "account")
    page = do(admin_client, "limits")
    assert "Another person has to approve this before it holds" in page
    assert "2 limits wait for another person's approval" in page
    assert "Set the usual limits" not in page
    assert not RiskLimit.objects.filter(rule__in=REQUIRED).exists()
    assert RiskLimit.objects.filter(rule="daily_loss", mode="enforce").exists()
    do(admin_client, "limits")
    waiting = Proposal.objects.order_by("subject")
    assert [one.subject for one in waiting] == [f"limit {rule} (everything)" for rule in REQUIRED]
    assert {(one.state, one.proposed_by, one.reason) for one in waiting} == {
        ("open", "admin", "getting started")
    }

    other = UserFactory.create(is_superuser=True)
    for one in waiting:
        proposals.approve(one.pk, other, "agreed")
    page = admin_client.get(reverse("admin:getting_started")).content.decode()
    assert "limits in force" in page
    assert page.count("done</span>") == 2


def test_limits_somebody_set_stay_as_they_are(admin_client: Client) -> None:
    do(admin_client, "account")
    limits.set_limit("max_order_value", Decimal(7), reason="small")
    do(admin_client, "limits")
    assert RiskLimit.objects.get(rule="max_order_value").value == 7
    assert RiskLimit.objects.filter(rule="max_position_value", mode="enforce").exists()


@pytest.mark.parametrize("two_person", [False, True])
def test_a_limit_that_only_observes_is_named_and_left(
    admin_client: Client, two_person: bool
) -> None:
    do(admin_client, "account")
    limits.set_limit("max_order_value", Decimal(7), mode=LimitMode.OBSERVE, reason="try it")
    Safeguards.objects.create(two_person=two_person)

    page = do(admin_client, "limits")

    assert "Set by somebody, and not enforced: max_order_value." in page
    assert "Limits are in force" not in page
    assert ("Another person has to approve" in page) == two_person
    assert RiskLimit.objects.get(rule="max_order_value").mode == "observe"


BUTTONS = {
    "account": "Make a paper account",
    "limits": "Set the usual limits",
    "strategy": "Make the strategy",
    "order": "Buy on paper",
}


@pytest.mark.parametrize(
    ("role", "offered"),
    [
        (roles.VIEWER, set()),
        (roles.OPERATOR, {"order"}),
        (roles.RISK_OFFICER, {"limits", "order"}),
        (roles.SECURITY_ADMIN, {"account"}),
    ],
)
def test_a_role_is_offered_the_steps_it_may_do(role: str, offered: set[str]) -> None:
    roles.install()
    user = UserFactory.create()
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    seen = client.get(reverse("admin:getting_started")).content.decode()
    AccountFactory.create(broker="paper")
    seen += client.get(reverse("admin:getting_started")).content.decode()
    for rule in REQUIRED:
        limits.set_limit(rule, Decimal(500), reason="test")
    page = client.get(reverse("admin:getting_started")).content.decode()
    assert {step for step, text in BUTTONS.items() if text in seen + page} == offered
    assert "This step takes the right to add strategies and the right to webhook secrets" in page


@pytest.mark.parametrize("step", ["account", "limits", "order", "strategy"])
def test_who_may_only_look_does_no_step(step: str) -> None:
    AccountFactory.create()
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    assert client.get(reverse("admin:getting_started")).status_code == 200
    answer = client.post(reverse("admin:getting_started"), {"step": step, "slug": "trend"})
    assert answer.status_code == 403
    assert (Account.objects.count(), Strategy.objects.count()) == (1, 0)
    assert not RiskLimit.objects.exists()
    assert not Signal.objects.exists()


@pytest.mark.parametrize(
    ("rights", "status"),
    [(["add_strategy"], 403), (["add_strategy", "change_webhooksecret"], 200)],
)
def test_a_webhook_secret_takes_its_own_right(rights: list[str], status: int) -> None:
    AccountFactory.create(broker="paper")
    user = UserFactory.create()
    looks = Permission.objects.filter(codename__startswith="view_")
    user.user_permissions.set(looks | Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    answer = client.post(reverse("admin:getting_started"), {"step": "strategy", "slug": "trend"})
    assert answer.status_code == status
    assert Strategy.objects.exists() == (status == 200)
