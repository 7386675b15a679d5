"""A person's log-in at a venue: begun, completed, renewed once however many ask, and over."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import time_machine

from brokers import venue_logins
from brokers.accounts import create_account
from brokers.crypto import DecryptionError
from brokers.errors import ConfigurationError, LoginNeededError, QueryFailedError
from brokers.models import Account, AccountLogin
from brokers.sessions import forget_all, plugin_for
from brokers.venue_logins import StoredTokens
from tests.factories import AccountFactory
from tests.threads import together
from tests.venues.client import RunningVenue
from tests.venues.credentials import SCHWAB_KEY, SCHWAB_SECRET
from tests.venues.faults import Action, Endpoint, Fault, When
from tests.venues.schwab.rules import ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)
TOKEN_PATH = "/v1/oauth/token"
USED_UP = 14
"""Seconds: too few for a request."""
REFUSAL = Fault(Action.CODE, When.BEFORE, Endpoint.QUERY, code="unsupported_token_type")


@pytest.fixture
def account(venue: RunningVenue) -> Iterator[Account]:
    yield create_account(
        "shares",
        broker="schwab",
        environment="sandbox",
        options={"account": ACCOUNT, "base_url": venue.base_url},
        credentials={"api_key": SCHWAB_KEY, "api_secret": SCHWAB_SECRET},
    )
    forget_all()


def led_back(account: Account, state: str = "s1") -> str:
    """Where the venue's page leads a person who agrees."""
    address = urlsplit(venue_logins.authorise_address(account, state))
    connection = http.client.HTTPConnection(address.netloc, timeout=10)
    connection.request("GET", f"{address.path}?{address.query}")
    answer = connection.getresponse()
    connection.close()
    assert answer.status == 302
    return answer.headers["Location"]


def log_in(account: Account) -> AccountLogin:
    code, _ = venue_logins.answer_in(led_back(account))
    return venue_logins.complete(account, code)


def asked_for_tokens(venue: RunningVenue) -> int:
    return sum(one.path == TOKEN_PATH for one in venue.control.requests())


def grown_old(login: AccountLogin, left: int = 90) -> None:
    """Its access token is about to end."""
    login.access_until = datetime.now(UTC) + timedelta(seconds=left)
    login.save()


def test_a_code_from_the_venues_page_becomes_a_log_in_of_seven_days(account: Account) -> None:
    address = led_back(account, "a state")
    assert address.startswith("https://127.0.0.1?code=")
    code, state = venue_logins.answer_in(f"  {address}\n")
    assert (code, state) == ("C0.loopback@0", "a state")
    login = venue_logins.complete(account, code)
    assert timedelta(days=6, hours=23) < login.left <= timedelta(days=7)
    assert StoredTokens(account.pk).token() == "loopback-access-1"
    assert plugin_for(account).balances()[0].total == 1_000_000


def test_tokens_are_sealed_into_their_row(account: Account) -> None:
    login = log_in(account)
    assert "loopback" not in login.sealed
    other = AccountLogin(account=AccountFactory.create(), sealed=login.sealed)
    with pytest.raises(DecryptionError):
        other.reveal()
    assert "loopback" not in repr(account.config())


def test_a_code_works_once(account: Account) -> None:
    code, _ = venue_logins.answer_in(led_back(account))
    venue_logins.complete(account, code)
    with pytest.raises(LoginNeededError, match="unsupported_token_type"):
        venue_logins.complete(account, code)
    assert AccountLogin.objects.get().left, "the log-in that holds is left alone"


def test_a_token_is_used_until_little_is_left_of_it(account: Account, venue: RunningVenue) -> None:
    log_in(account)
    tokens = StoredTokens(account.pk)
    assert {tokens.token() for _ in range(5)} == {"loopback-access-1"}
    grown_old(AccountLogin.objects.get())
    assert StoredTokens(account.pk).token() == "loopback-access-2"
    assert asked_for_tokens(venue) == 2


def test_two_workers_never_renew_at_once(account: Account, venue: RunningVenue) -> None:
    grown_old(log_in(account))
    workers = [StoredTokens(account.pk) for _ in range(6)]
    given = together(*[worker.token for worker in workers])
    assert given == ["loopback-access-2"] * 6
    assert asked_for_tokens(venue) == 2


def test_renewing_does_not_lengthen_the_log_in(account: Account) -> None:
    login = log_in(account)
    ends_at = login.ends_at
    grown_old(login)
    StoredTokens(account.pk).token()
    assert AccountLogin.objects.get().ends_at == ends_at


def test_a_token_the_venue_refused_is_not_given_out_again(account: Account) -> None:
    log_in(account)
    tokens, other = StoredTokens(account.pk), StoredTokens(account.pk)
    tokens.refused(tokens.token())
    assert tokens.token() == "loopback-access-2"
    other.refused("loopback-access-1")
    assert other.token() == "loopback-access-2", "an old refusal does not cost the new one"


def test_a_venue_that_takes_none_of_its_own_tokens_is_left_alone_for_a_minute(
    account: Account, venue: RunningVenue
) -> None:
    log_in(account)
    tokens = StoredTokens(account.pk)
    for _ in range(2):
        tokens.refused(tokens.token())
    asked = asked_for_tokens(venue)
    for _ in range(3):
        with pytest.raises(QueryFailedError, match="does not take the tokens it gives"):
            tokens.token()
    assert asked_for_tokens(venue) == asked
    tokens._refusals._rests_until = 0.0
    assert tokens.token() == "loopback-access-3"


def test_one_old_token_refused_in_many_threads_counts_once(account: Account) -> None:
    log_in(account)
    tokens = StoredTokens(account.pk)
    old = tokens.token()
    together(*[lambda: tokens.refused(old)] * 6)
    assert tokens.token() == "loopback-access-2"


def test_a_new_log_in_reaches_every_worker(account: Account) -> None:
    log_in(account)
    before = plugin_for(account)
    log_in(account)
    account.refresh_from_db()
    assert plugin_for(account) is not before


def test_a_lost_answer_about_tokens_is_asked_for_again_later(
    account: Account, venue: RunningVenue
) -> None:
    grown_old(log_in(account), USED_UP)
    venue.control.queue_faults(Fault(Action.DROP, When.BEFORE, Endpoint.QUERY))
    tokens = StoredTokens(account.pk)
    with pytest.raises(QueryFailedError, match="RemoteProtocolError"):
        tokens.token()
    assert account.venue_login is not None
    assert tokens.token() == "loopback-access-2"


def test_an_answer_without_tokens_is_none(account: Account, venue: RunningVenue) -> None:
    grown_old(log_in(account), USED_UP)
    venue.control.queue_faults(Fault(Action.HTML, endpoint=Endpoint.QUERY))
    with pytest.raises(QueryFailedError, match="no tokens"):
        StoredTokens(account.pk).token()


def test_a_refused_renewal_needs_a_person_and_is_tried_once_a_minute(
    account: Account, venue: RunningVenue
) -> None:
    grown_old(log_in(account), USED_UP)
    venue.control.queue_faults(REFUSAL)
    tokens = StoredTokens(account.pk)
    for _ in range(3):
        with pytest.raises(LoginNeededError, match="unsupported_token_type"):
            tokens.token()
    assert asked_for_tokens(venue) == 2
    state = Account.objects.get().venue_login
    assert state is not None
    assert (state.state, state.left) == ("needs_login", timedelta(0))
    later = datetime.now(UTC) + timedelta(seconds=70)
    with time_machine.travel(later):
        assert tokens.token() == "loopback-access-2", "it was a bad moment of the venue's"
    assert AccountLogin.objects.get().refused_at is None


@pytest.mark.parametrize(
    ("trouble", "state"),
    [
        (REFUSAL, "needs_login"),
        (Fault(Action.STATUS, When.BEFORE, Endpoint.QUERY, status=503), "logged_in"),
        (Fault(Action.DROP, When.BEFORE, Endpoint.QUERY), "logged_in"),
    ],
    ids=["refused", "503", "dropped"],
)
def test_a_token_that_cannot_be_renewed_serves_while_it_is_good(
    account: Account, venue: RunningVenue, trouble: Fault, state: str
) -> None:
    grown_old(log_in(account))
    venue.control.queue_faults(trouble)
    tokens = StoredTokens(account.pk)
    assert [tokens.token() for _ in range(3)] == ["loopback-access-1"] * 3
    assert asked_for_tokens(venue) == 2, "not every request tries"
    found = Account.objects.get().venue_login
    assert found is not None
    assert found.state == state
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=62)):
        assert tokens.token() == "loopback-access-2"
    assert asked_for_tokens(venue) == 3


def test_a_refused_renewal_costs_no_worker_its_token(account: Account, venue: RunningVenue) -> None:
    grown_old(log_in(account))
    venue.control.queue_faults(REFUSAL)
    workers = [StoredTokens(account.pk) for _ in range(4)]
    assert together(*[worker.token for worker in workers]) == ["loopback-access-1"] * 4
    assert asked_for_tokens(venue) == 2


def test_a_token_that_cannot_be_renewed_is_not_used_to_its_last_second(
    account: Account, venue: RunningVenue
) -> None:
    grown_old(log_in(account))
    venue.control.queue_faults(replace(REFUSAL, count=2))
    tokens = StoredTokens(account.pk)
    assert tokens.token() == "loopback-access-1"
    start = datetime.now(UTC)
    with time_machine.travel(start + timedelta(seconds=62)):
        assert tokens.token() == "loopback-access-1"
    with (
        time_machine.travel(start + timedelta(seconds=76)),
        pytest.raises(LoginNeededError, match="unsupported_token_type"),
    ):
        tokens.token()
    assert asked_for_tokens(venue) == 3


def test_the_last_token_serves_beyond_the_log_ins_end(
    account: Account, venue: RunningVenue
) -> None:
    login = log_in(account)
    login.ends_at = datetime.now(UTC)
    grown_old(login)
    assert StoredTokens(account.pk).token() == "loopback-access-1"
    assert asked_for_tokens(venue) == 1


def test_after_seven_days_nothing_is_asked(account: Account, venue: RunningVenue) -> None:
    log_in(account)
    before = asked_for_tokens(venue)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=7, seconds=1)):
        with pytest.raises(LoginNeededError, match="ended"):
            StoredTokens(account.pk).token()
        state = Account.objects.get().venue_login
        assert state is not None
        assert state.text == "needs log-in: it ended; log in again on the account's page"
    assert asked_for_tokens(venue) == before


@pytest.mark.parametrize(
    ("days", "state", "text"),
    [
        (0, "logged_in", "6 days left"),
        (4, "logged_in", "2 days left"),
        (5.5, "ends_soon", "1 day left"),
        (6.5, "ends_soon", "11 h left"),
    ],
)
def test_how_it_stands(account: Account, days: float, state: str, text: str) -> None:
    log_in(account)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=days)):
        found = Account.objects.get().venue_login
    assert found is not None
    assert (found.state, text in found.text) == (state, True)


def test_of_two_log_ins_with_one_application_the_newest_holds(
    account: Account, venue: RunningVenue
) -> None:
    other = create_account(
        "more-shares",
        broker="schwab",
        environment="sandbox",
        options={"account": "87654321", "base_url": venue.base_url},
        credentials={"api_key": SCHWAB_KEY, "api_secret": SCHWAB_SECRET},
    )
    first = log_in(account)
    grown_old(log_in(other), USED_UP)
    grown_old(first, USED_UP)
    with pytest.raises(LoginNeededError, match="unsupported_token_type"):
        StoredTokens(account.pk).token()
    assert StoredTokens(other.pk).token() == "loopback-access-3"


def test_nobody_has_logged_in(account: Account) -> None:
    with pytest.raises(LoginNeededError, match="nobody has logged in"):
        StoredTokens(account.pk).token()
    assert account.venue_login is not None
    assert account.venue_login.state == "needs_login"
    assert not plugin_for(account).health_check().ok


def test_other_accounts_need_no_log_in() -> None:
    paper: Account = AccountFactory.create()
    assert paper.venue_login is None
    assert paper.config().tokens is None
    with pytest.raises(ConfigurationError):
        venue_logins.authorise_address(paper, "s")


def test_without_the_applications_key_nobody_is_led_anywhere(account: Account) -> None:
    account.credential.delete()
    with pytest.raises(ConfigurationError, match="key and secret"):
        venue_logins.authorise_address(Account.objects.get(), "s")


def test_options_that_cannot_work_break_no_page(account: Account) -> None:
    account.options["callback_url"] = "nonsense"
    assert account.venue_login is None
