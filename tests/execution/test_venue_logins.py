"""Alarms for accounts that somebody must log in at their venue."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from brokers.models import Account, AccountLogin
from execution import account_tasks, alarms, venue_logins
from execution.models import Alarm
from risk.channels import Notice
from tests.execution.test_notify import channel_to
from tests.factories import AccountFactory

pytestmark = pytest.mark.django_db
LEFT = {"plenty": timedelta(days=3), "little": timedelta(hours=30), "none": timedelta(seconds=-1)}


@pytest.fixture
def account() -> Account:
    row: Account = AccountFactory.create(
        name="shares", broker="schwab", environment="live", options={"account": "12345678"}
    )
    return row


def logged_in(account: Account, left: timedelta) -> AccountLogin:
    now = timezone.now()
    login, _ = AccountLogin.objects.update_or_create(
        account=account, defaults={"sealed": "x", "access_until": now, "ends_at": now + left}
    )
    return login


def raised() -> list[tuple[str, str]]:
    return list(Alarm.objects.filter(cleared_at=None).values_list("kind", "key"))


@pytest.mark.parametrize(
    ("left", "kind"), [("plenty", None), ("little", "login_ends"), ("none", "login_needed")]
)
def test_what_is_left_decides(account: Account, left: str, kind: str | None) -> None:
    logged_in(account, LEFT[left])
    venue_logins.look()
    venue_logins.look()
    assert raised() == ([(kind, "shares")] if kind else [])


def test_people_are_told_before_it_ends(account: Account) -> None:
    channel_to("json://127.0.0.1:1/x")
    logged_in(account, LEFT["little"])
    venue_logins.look()
    notice = Notice.objects.get()
    assert (notice.event, notice.account) == ("login_needed", "shares")
    assert "1 day left" in notice.text


def test_an_account_nobody_logged_in_is_an_alarm(account: Account) -> None:
    (alarm,) = venue_logins.look()
    assert (alarm.kind, alarm.detail.startswith("needs log-in: nobody has")) == (
        Alarm.Kind.LOGIN_NEEDED,
        True,
    )


def test_a_refused_log_in_says_why(account: Account) -> None:
    login = logged_in(account, LEFT["plenty"])
    login.refused_at, login.refusal = timezone.now(), "the venue refuses the log-in (x)"
    login.save()
    (alarm,) = venue_logins.look()
    assert alarm.detail == "needs log-in: the venue refuses the log-in (x)"


def test_a_new_log_in_ends_the_warning(account: Account) -> None:
    logged_in(account, LEFT["little"])
    venue_logins.look()
    logged_in(account, timedelta(days=7))
    venue_logins.look()
    assert raised() == []


def test_a_switched_off_account_is_left_alone(account: Account) -> None:
    Account.objects.update(is_active=False)
    assert venue_logins.look() == []


def test_a_refusal_seen_by_the_comparison_stays_while_somebody_must_log_in(
    account: Account,
) -> None:
    venue_logins.look()
    alarms.clear(Alarm.Kind.LOGIN_NEEDED, "shares")
    venue_logins.look()
    assert raised() == [("login_needed", "shares")]


def test_a_comparison_with_the_last_token_ends_no_alarm(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The venue refuses to renew the token, and answers while it is good."""
    channel_to("json://127.0.0.1:1/x")
    monkeypatch.setattr("execution.reconcile.reconcile_account", lambda _: None)
    login = logged_in(account, LEFT["plenty"])
    login.refused_at, login.refusal = timezone.now(), "the venue refuses the log-in (x)"
    login.save()
    for _ in range(3):
        venue_logins.look()
        account_tasks.reconcile_account(account.pk)
    assert raised() == [("login_needed", "shares")]
    assert [one.event for one in Notice.objects.all()] == ["login_needed"]

    AccountLogin.objects.update(refused_at=None, refusal="")
    account_tasks.reconcile_account(account.pk)
    assert raised() == []
