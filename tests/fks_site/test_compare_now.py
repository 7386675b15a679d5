"""Comparing accounts with their venues on demand."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from brokers.models import Account, AccountRestriction
from execution import account_tasks
from fks_site import roles
from risk.models import AuditEvent
from tests.factories import AccountFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def nudged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which accounts the workers were told to compare."""
    told: list[int] = []

    def take(row: tuple[int], **_: Any) -> None:
        told.append(row[0])

    monkeypatch.setattr(account_tasks.reconcile_account, "apply_async", take)
    return told


@pytest.fixture
def account() -> Account:
    return AccountFactory.create(name="main")


def test_an_accounts_page_compares_it(
    admin_client: Client, account: Account, nudged: list[int]
) -> None:
    page = reverse("admin:brokers_account_change", args=[account.pk])
    compare = reverse("admin:brokers_account_compare", args=[account.pk])
    shown = admin_client.get(page).content.decode()
    assert compare in shown
    assert "Last compared" in shown
    asked = admin_client.get(compare).content.decode()
    assert "Compare main with its venue?" in asked
    assert nudged == []
    answer = admin_client.post(compare, follow=True)
    assert "A worker compares it now" in answer.content.decode()
    assert nudged == [account.pk]
    event = AuditEvent.objects.get(kind="account.compare_asked")
    assert (event.actor, event.subject) == ("admin", "account main")

    account_tasks.reconcile_account(account.pk)
    before = account.reconciled_at
    account.refresh_from_db()
    assert before is not None
    assert account.reconciled_at is not None
    assert account.reconciled_at > before


def test_the_differences_compare_every_account_in_use(
    admin_client: Client, account: Account, nudged: list[int]
) -> None:
    other = AccountFactory.create(name="other")
    AccountFactory.create(name="off", is_active=False)
    listed = reverse("admin:execution_difference_changelist")
    page = admin_client.get(listed).content.decode()
    compare = reverse("admin:execution_difference_compare")
    assert compare in page
    assert "Last compared:" in page
    assert ">main</a>" in page
    assert ">off</a>" not in page
    assert "Compare 2 accounts with the venues?" in admin_client.get(compare).content.decode()
    admin_client.post(compare)
    assert sorted(nudged) == [account.pk, other.pk]


def test_a_queue_that_does_not_answer_is_said(
    admin_client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(account_tasks.reconcile_account, "apply_async", fail)
    compare = reverse("admin:brokers_account_compare", args=[account.pk])
    page = admin_client.post(compare, follow=True).content.decode()
    assert "The queue does not answer: it is compared within a minute." in page


def test_an_account_that_is_switched_off_is_not_compared(
    admin_client: Client, account: Account, nudged: list[int]
) -> None:
    Account.objects.update(is_active=False)
    compare = reverse("admin:brokers_account_compare", args=[account.pk])
    page = reverse("admin:brokers_account_change", args=[account.pk])
    assert compare not in admin_client.get(page).content.decode()
    assert "it is switched off" in admin_client.post(compare, follow=True).content.decode()
    assert nudged == []


@pytest.mark.parametrize(
    ("role", "may"), [(roles.VIEWER, False), (roles.OPERATOR, True), (roles.SECURITY_ADMIN, False)]
)
def test_it_takes_the_right_to_resolve_differences_on_ones_own_accounts(
    client: Client, account: Account, nudged: list[int], role: str, may: bool
) -> None:
    other = AccountFactory.create(name="other")
    roles.install()
    user = UserFactory.create()
    user.groups.add(Group.objects.get(name=role))
    AccountRestriction.objects.create(user=user).accounts.set([account])
    client.force_login(user)
    client.post(reverse("admin:execution_difference_compare"))
    client.post(reverse("admin:brokers_account_compare", args=[account.pk]))
    client.post(reverse("admin:brokers_account_compare", args=[other.pk]))
    assert nudged == ([account.pk, account.pk] if may else [])
