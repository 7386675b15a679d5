"""A change form that was opened before somebody else changed the same: it takes nothing back unseen."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from brokers.models import Account
from execution.authentication import new_secret
from execution.models import Route, Strategy
from risk import limits
from risk.admin.audited import AuditedAdmin
from risk.models import AllowedNetwork, AuditEvent, IPAllowlist, RiskLimit, RiskPolicy
from tests.factories import AccountFactory, RouteFactory, StrategyFactory

pytestmark = pytest.mark.django_db


def page_of(row: Model) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def opened(client: Client, row: Model) -> dict[str, Any]:
    """What a browser posts of a page that was opened and not touched, with a reason."""
    page = client.get(page_of(row))
    assert 'name="seen"' in page.content.decode()
    forms = [page.context["adminform"].form]
    for inline in page.context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    posted = {"seen": page.context["seen"]}
    for field in (field for form in forms for field in form):
        value = field.value()
        if value is not None and value is not False:
            posted[field.html_name] = "on" if value is True else value
    return posted | {"reason": "tidying up"}


def save(client: Client, row: Model, posted: dict[str, Any]) -> str:
    """What the page says then."""
    answer: HttpResponse = client.post(page_of(row), posted, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def strategy() -> Strategy:
    row: Strategy = StrategyFactory.create(note="as it was")
    RouteFactory.create(strategy=row, account=AccountFactory.create(name="paper"))
    new_secret(row, "token")
    return row


def test_a_strategy_switched_off_meanwhile_stays_off(
    admin_client: Client, strategy: Strategy
) -> None:
    posted = opened(admin_client, strategy) | {"note": "another"}
    Strategy.objects.update(is_enabled=False)
    audited = AuditEvent.objects.count()

    page = save(admin_client, strategy, posted)

    assert "Changed by somebody since you opened this page: " in page
    strategy.refresh_from_db()
    assert (strategy.is_enabled, strategy.note) == (False, "as it was")
    assert AuditEvent.objects.count() == audited

    again = opened(admin_client, strategy) | {"note": "another"}
    assert "is_enabled" not in again
    save(admin_client, strategy, again)
    strategy.refresh_from_db()
    assert (strategy.is_enabled, strategy.note) == (False, "another")


def test_a_route_changed_meanwhile_stays_as_it_is(admin_client: Client, strategy: Strategy) -> None:
    posted = opened(admin_client, strategy) | {"note": "another"}
    Route.objects.update(is_enabled=False)
    page = save(admin_client, strategy, posted)
    assert f"since you opened this page: {Route.objects.get()}." in page
    strategy.refresh_from_db()
    assert (strategy.note, Route.objects.get().is_enabled) == ("as it was", False)


def test_a_limit_tightened_meanwhile_stays_tight(admin_client: Client) -> None:
    limits.set_limit("max_order_value", Decimal(10000), reason="test")
    policy = RiskPolicy.objects.get()
    posted = opened(admin_client, policy) | {"limits-0-mode": "observe"}
    RiskLimit.objects.update(value=Decimal(1000))
    assert "since you opened this page" in save(admin_client, policy, posted)
    assert RiskLimit.objects.values_list("value", "mode").get() == (Decimal(1000), "enforce")


def test_networks_and_groups_and_accounts_are_held_to_it_too(admin_client: Client) -> None:
    allowlist = IPAllowlist.objects.create(name="senders")
    network = AllowedNetwork.objects.create(allowlist=allowlist, cidr="10.0.0.0/8")
    group = Group.objects.create(name="night")
    user = User.objects.create_user("nora", is_staff=True)
    user.groups.add(group)
    account = AccountFactory.create(name="paper")
    pages = {row: opened(admin_client, row) for row in (allowlist, user, account)}
    AllowedNetwork.objects.update(cidr="10.1.0.0/16")
    user.groups.clear()
    Account.objects.update(is_active=False)
    for row, posted in pages.items():
        assert "since you opened this page" in save(admin_client, row, posted), row
    network.refresh_from_db()
    account.refresh_from_db()
    assert (network.cidr, account.is_active) == ("10.1.0.0/16", False)
    assert not user.groups.exists()


def test_an_untouched_page_is_saved(admin_client: Client, strategy: Strategy) -> None:
    posted = opened(admin_client, strategy) | {"note": "another"}
    AccountFactory.create(name="another")
    assert "since you opened this page" not in save(admin_client, strategy, posted)
    strategy.refresh_from_db()
    assert (strategy.is_enabled, strategy.note) == (True, "another")


def test_what_was_typed_wrong_is_still_held_to_the_page_it_began_with(
    admin_client: Client, strategy: Strategy
) -> None:
    posted = opened(admin_client, strategy) | {"note": "another", "reason": ""}
    first = admin_client.post(page_of(strategy), posted)
    Strategy.objects.update(is_enabled=False)
    second = posted | {"reason": "now", "seen": first.context["seen"]}
    assert "since you opened this page" in save(admin_client, strategy, second)


def test_every_audited_form_carries_what_it_showed() -> None:
    audited = [one for one in admin.site._registry.values() if isinstance(one, AuditedAdmin)]
    assert {one.change_form_template for one in audited} == {"fks/change_form.html"}
