"""Logging an account in at its venue: there and back, for whoever began it and nobody else."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers import venue_logins
from brokers.accounts import create_account
from brokers.errors import LoginNeededError
from brokers.models import Account, AccountLogin
from brokers.venue_logins import Tokens
from fks_site import twofactor
from risk.models import AuditEvent
from tests.factories import AccountFactory, UserFactory

pytestmark = pytest.mark.django_db
BACK = "/admin/venue-login/"


@pytest.fixture
def account() -> Account:
    return create_account(
        "shares",
        broker="schwab",
        environment="live",
        options={"account": "12345678"},
        credentials={"api_key": "app-key", "api_secret": "canary-secret"},
    )


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the venue was given, by way of its token endpoint; it takes every code but ``bad``."""
    given: list[str] = []

    def request_tokens(terms: Any, credentials: Any, asked: Any) -> Tokens:
        given.append(asked["code"])
        if asked["code"] == "bad":
            raise LoginNeededError("the venue refuses the log-in (invalid_grant)")
        return Tokens("canary-access", "canary-refresh", 1800)

    monkeypatch.setattr(venue_logins, "_request_tokens", request_tokens)
    return given


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(UserFactory.create(username="olivia", is_superuser=True))
    return client


def page_of(account: Account) -> str:
    return f"/admin/brokers/account/{account.pk}/change/"


def login_page(account: Account) -> str:
    return reverse("admin:brokers_account_log_in", args=[account.pk])


def begin(client: Client, account: Account) -> dict[str, str]:
    """What the link to the venue asks for."""
    page = client.get(login_page(account))
    assert page.status_code == 200, page
    assert page["Cache-Control"].startswith("no-store")
    found = re.search(r'id="to-the-venue" href="([^"]+)"', page.text)
    assert found is not None
    address = urlsplit(html.unescape(found[1]))
    assert (address.scheme, address.netloc) == ("https", "api.schwabapi.com")
    return {name: values[0] for name, values in parse_qs(address.query).items()}


def test_the_page_leads_to_the_venue(client: Client, account: Account) -> None:
    asked = begin(client, account)
    assert asked | {"state": ""} == {
        "response_type": "code",
        "client_id": "app-key",
        "redirect_uri": "https://127.0.0.1",
        "state": "",
    }
    assert len(asked["state"]) >= 40
    assert begin(client, account)["state"] == asked["state"], "a second look begins nothing anew"


@pytest.mark.parametrize(
    ("key", "is_active", "is_named"),
    [("app-key", True, True), ("app-key", False, False), ("another-key", True, False)],
)
def test_the_page_names_accounts_whose_log_in_would_end(
    client: Client, account: Account, key: str, is_active: bool, is_named: bool
) -> None:
    other = create_account(
        "more-shares",
        broker="schwab",
        environment="live",
        options={"account": "87654321"},
        credentials={"api_key": key, "api_secret": "canary-secret"},
    )
    Account.objects.filter(pk=other.pk).update(is_active=is_active)
    page = client.get(login_page(account)).text
    assert ("The same application's key: more-shares." in page) is is_named


def test_the_way_back_completes_it_and_is_audited(
    client: Client, account: Account, codes: list[str]
) -> None:
    state = begin(client, account)["state"]
    answer = client.get(BACK, {"code": "C0.good@", "state": state})
    assert (answer.status_code, answer["Location"]) == (302, page_of(account))
    assert codes == ["C0.good@"]
    assert AccountLogin.objects.get().reveal()["refresh"] == "canary-refresh"
    event = AuditEvent.objects.get(kind="login.completed")
    assert (event.actor, event.subject) == ("olivia", "log-in of account shares")
    page = client.get(page_of(account))
    assert "logged in, 6 days left" in page.text
    assert "canary" not in page.text
    assert "canary" not in str(list(AuditEvent.objects.values()))


def test_an_address_may_be_pasted(client: Client, account: Account, codes: list[str]) -> None:
    state = begin(client, account)["state"]
    pasted = f"https://127.0.0.1/?code=C0.good%40&session=1&state={state}"
    answer = client.post(login_page(account), {"address": pasted})
    assert (answer["Location"], codes) == (page_of(account), ["C0.good@"])


def test_a_state_works_once(client: Client, account: Account, codes: list[str]) -> None:
    told = {"code": "C0.good@", "state": begin(client, account)["state"]}
    client.get(BACK, told)
    answer = client.get(BACK, told, follow=True)
    assert "was not begun here" in answer.text
    assert len(codes) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told | {"state": "x" * 43},
        lambda told: told | {"state": ""},
        lambda told: told | {"state": "ü"},
        lambda told: told | {"code": ""},
    ],
)
def test_a_state_that_is_not_the_sessions_is_refused(
    client: Client, account: Account, codes: list[str], spoil: Callable[[Any], Any]
) -> None:
    told = spoil({"code": "C0.good@", "state": begin(client, account)["state"]})
    assert "was not begun here" in client.get(BACK, told, follow=True).text
    assert (codes, AccountLogin.objects.count()) == ([], 0)


def test_nobody_completes_what_another_began(
    client: Client, account: Account, codes: list[str]
) -> None:
    state = begin(client, account)["state"]
    other = Client()
    other.force_login(UserFactory.create(is_superuser=True))
    other.get(BACK, {"code": "C0.good@", "state": state})
    assert codes == []


def test_a_link_grows_old(client: Client, account: Account, codes: list[str]) -> None:
    state = begin(client, account)["state"]
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=16)):
        client.get(BACK, {"code": "C0.good@", "state": state})
    assert codes == []


def test_a_code_the_venue_refuses_leads_back_to_the_page(
    client: Client, account: Account, codes: list[str]
) -> None:
    state = begin(client, account)["state"]
    answer = client.get(BACK, {"code": "bad", "state": state}, follow=True)
    assert "invalid_grant" in answer.text
    assert not AccountLogin.objects.exists()


def test_the_way_back_opens_itself_once_more_because_the_cookie_stays_behind(
    account: Account, codes: list[str]
) -> None:
    """The session's cookie is SameSite=Strict: from the venue's page nobody is logged in here."""
    stranger = Client()
    answer = stranger.get(BACK, {"code": "C0.g@&<", "state": "s"})
    assert answer.status_code == 200
    found = re.search(r'content="0; url=([^"]+)"', answer.text)
    assert found is not None
    again = html.unescape(found[1])
    assert parse_qs(urlsplit(again).query) == {"code": ["C0.g@&<"], "state": ["s"], "again": ["1"]}
    assert urlsplit(again).path == BACK
    login = stranger.get(again)
    assert (login.status_code, login["Location"].startswith("/admin/login/")) == (302, True)
    assert codes == []


def test_who_may_not_change_accounts_may_not_log_them_in(account: Account) -> None:
    viewer = UserFactory.create()
    viewer.user_permissions.add(Permission.objects.get(codename="view_account"))
    client = Client()
    client.force_login(viewer)
    assert client.get(login_page(account)).status_code == 403
    assert login_page(account) not in client.get(page_of(account)).text


def test_accounts_without_a_log_in_have_no_such_page(client: Client) -> None:
    paper: Account = AccountFactory.create()
    assert client.get(login_page(paper)).status_code in (403, 404)
    assert login_page(paper) not in client.get(page_of(paper)).text


def test_it_asks_for_the_second_factor_again() -> None:
    assert "brokers_account_log_in" in twofactor.STEP_UP


@pytest.fixture
def clean_home() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.mark.parametrize(
    ("left", "text"), [(None, "needs log-in: nobody has"), (30, "logged in, 1 day left")]
)
@pytest.mark.usefixtures("clean_home")
def test_home_shows_how_it_stands(
    client: Client, account: Account, left: int | None, text: str
) -> None:
    if left is not None:
        now = timezone.now()
        AccountLogin.objects.create(
            account=account, sealed="x", access_until=now, ends_at=now + timedelta(hours=left)
        )
    assert text in client.get("/admin/").text
