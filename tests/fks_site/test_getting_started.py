"""From an empty installation to the first paper fill, by the buttons of one page."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from brokers.models import Account
from execution import tasks
from execution.models import Order, Signal, Strategy
from execution.states import OrderState
from risk.models import AuditEvent, IPAllowlist, RiskLimit
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
