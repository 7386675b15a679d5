"""The page of limits shows how much of each is used, by the latest order of every account."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from execution.ids import first_id_at
from fks_site.users import restrict
from tests.factories import AccountFactory, OrderFactory, UserFactory

pytestmark = pytest.mark.django_db

LIMITS = "/admin/risk/riskpolicy/"


def verdict(rule: str, measured: str, allowed: str) -> dict[str, Any]:
    return {"rule": rule, "passed": True, "numbers": {"measured": measured, "allowed": allowed}}


def shown(client: Client) -> str:
    return client.get(LIMITS).content.decode()


def test_the_most_used_limit_comes_first(admin_client: Client) -> None:
    account = AccountFactory.create(name="paper")
    yesterday = first_id_at(timezone.now() - timedelta(hours=25))
    OrderFactory.create(id=yesterday, verdicts=[verdict("odd one", "1", "2")])
    OrderFactory.create(account=account, verdicts=[verdict("max_order_value", "999", "1000")])
    OrderFactory.create(
        account=account,
        verdicts=[
            verdict("max_order_value", "100", "1000"),
            verdict("daily_loss", "400", "500"),
            verdict("max_position_value", "1200", "1000"),
            {"rule": "duplicate_order", "passed": True, "numbers": {}},
            verdict("<b>odd</b>", "NaN", "1"),
            verdict("off", "1", "0"),
        ],
    )
    OrderFactory.create(account=account)  # an operator's: nothing was judged
    OrderFactory.create(
        account=account, state="denied", verdicts=[verdict("max_order_value", "9000", "1000")]
    )
    page = shown(admin_client)
    rules = ["max_position_value", "daily_loss", "max_order_value"]
    places = [page.index(f'<th scope="row" data-label="Limit">{rule}') for rule in rules]
    assert places == sorted(places)
    bars = ["danger", "warning", "success"]
    assert [page.count(f"fks-used-{tone}") for tone in bars] == [1, 1, 1]
    assert 'value="100"' in page, "a bar never passes its end"
    assert 'value="80"' in page
    assert 'value="10"' in page
    assert "odd" not in page


def test_nothing_is_shown_of_what_one_may_not_see() -> None:
    mine, theirs = (
        OrderFactory.create(verdicts=[verdict(rule, "1", "2")]) for rule in ("mine", "theirs")
    )
    user = UserFactory.create()
    rights = Permission.objects.filter(codename__in=("view_riskpolicy", "view_order"))
    user.user_permissions.set(rights)
    restrict(user, [mine.account], reason="one desk only")
    client = Client()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    page = shown(client)
    assert str(mine.pk) in page
    assert str(theirs.pk) not in page
    user.user_permissions.remove(*rights.filter(codename="view_order"))
    assert str(mine.pk) not in shown(client)


def test_as_many_questions_for_many_accounts(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(10):
        OrderFactory.create(verdicts=[verdict("x", str(Decimal(1)), "2")])
    with time_machine.travel(timezone.now(), tick=False):  # what is kept for seconds stays
        admin_client.get(reverse("admin:index"))
        with django_assert_max_num_queries(16):
            admin_client.get(LIMITS)
