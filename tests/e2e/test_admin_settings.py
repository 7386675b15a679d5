"""What risk officers and security admins set: each form is filled in, saved with a reason, and kept."""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from brokers import venue_logins
from brokers.accounts import create_account
from brokers.connection import Connection
from brokers.models import Account, AccountLogin, SymbolAlias
from brokers.venue_logins import Tokens
from execution.authentication import digest_of
from execution.models import SpreadWatch, Strategy, WebhookSecret
from fks_site import roles
from risk import audit, breakers, proposals, switch
from risk.channels import Channel, Event, Notice
from risk.models import (
    IPAllowlist,
    Proposal,
    RateLimit,
    RiskLimit,
    RiskPolicy,
    Safeguards,
    TradingState,
)
from tests.e2e import rows
from tests.e2e.browser import PageFor, person
from tests.e2e.pressing import (
    action,
    add,
    answer,
    delete,
    list_of,
    open_menu,
    page_of,
    recorded,
    save,
    told,
)
from tests.factories import AccountFactory, StrategyFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WHY = "a new desk"


@pytest.mark.core
@pytest.mark.drives("brokers_account_change")
def test_going_live_takes_the_accounts_name(page_for: PageFor, complaints: list[str]) -> None:
    account = AccountFactory.create(name="main", environment=Account.Environment.SANDBOX)
    page = page_for(person("sam", roles.SECURITY_ADMIN))
    page.goto(page_of(account))
    page.locator("select[name=environment]").select_option("live")
    save(page, reason=WHY)
    told(page, "This trades real money from now on: type main to confirm it.")
    account.refresh_from_db()
    assert account.environment == "sandbox"
    save(page, reason=WHY, typed_name="main")
    told(page, "was changed successfully")
    expect(page.locator("#result_list tr").filter(has_text="main")).to_contain_text("live")
    account.refresh_from_db()
    assert account.environment == "live"
    assert recorded("account.changed") == ("sam", WHY)
    assert complaints == []


@pytest.mark.drives("brokers_account_add", "brokers_account_test_connection")
def test_an_account_is_added_and_its_connection_tested(
    page_for: PageFor, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = Connection((), ("the key may withdraw",), latency_ms=12, may_trade=True)
    monkeypatch.setattr("risk.admin.accounts.test_connection", lambda _: answered)
    page = page_for(person("sam", roles.SECURITY_ADMIN))
    add(page, Account)
    page.locator("[name=broker]").select_option("paper")
    save(page, reason=WHY, name="rehearsal")
    told(page, "Added rehearsal.")
    account = Account.objects.get()
    assert (account.broker, account.environment) == ("paper", "dry_run")
    assert recorded("account.created") == ("sam", WHY)
    page.locator(f'a[href="{action(account, "test_connection")}"]:visible').click()
    told(page, "The venue answers, and this account may trade.")
    told(page, "the key may withdraw")
    told(page, "12 ms")
    assert complaints == []


@pytest.mark.drives("brokers_account_compare")
def test_an_account_is_compared(page_for: PageFor, complaints: list[str]) -> None:
    account = AccountFactory.create()
    page = page_for(person("olga", roles.OPERATOR))
    page.goto(page_of(account))
    answer(
        page,
        action(account, "compare"),
        says="A worker reads open orders, positions and balances from the venue.",
        button="Compare now",
    )
    told(page, "A worker compares it now")
    assert recorded("account.compare_asked")[0] == "olga"
    assert complaints == []


def _begin_at_the_venue(page: Page, account: Account) -> str:
    """Open the page of the log-in; returns the state its link takes to the venue."""
    page.goto(page_of(account))
    page.locator(f'a[href="{action(account, "log_in")}"]:visible').click()
    link = page.locator("#to-the-venue").get_attribute("href")
    assert link is not None
    return parse_qs(urlsplit(link).query)["state"][0]


@pytest.mark.drives("brokers_account_log_in", "venue_login_returned")
def test_an_account_is_logged_in_at_its_venue(
    page_for: PageFor, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def tokens(terms: object, credentials: object, asked: dict[str, str]) -> Tokens:
        given.append(asked["code"])
        return Tokens("access", f"refresh {asked['code']}", 1800)

    monkeypatch.setattr(venue_logins, "_request_tokens", tokens)
    account = create_account(
        rows.SHARES,
        broker="schwab",
        environment="live",
        options={"account": "12345678"},
        credentials={"api_key": "app-key", "api_secret": "app-secret"},
    )
    page = page_for(person("sam", roles.SECURITY_ADMIN))
    state = _begin_at_the_venue(page, account)
    pasted = f"https://127.0.0.1/?code=first&session=1&state={state}"
    page.get_by_label("Address").fill(pasted)
    page.get_by_role("button", name="Finish the log-in").click()
    told(page, "shares is logged in at its venue.")
    state = _begin_at_the_venue(page, account)
    page.goto(f"{reverse('admin:venue_login_returned')}?code=second&state={state}")
    told(page, "shares is logged in at its venue.")
    told(page, "logged in, 6 days left")
    assert given == ["first", "second"]
    assert AccountLogin.objects.get().reveal()["refresh"] == "refresh second"
    assert complaints == []


@pytest.mark.drives(
    "risk_riskpolicy_add",
    "risk_riskpolicy_change",
    "risk_riskpolicy_delete",
    "risk_circuitbreaker_change",
)
def test_limits_and_thresholds_are_set(page_for: PageFor, complaints: list[str]) -> None:
    page = page_for(person("rita", roles.RISK_OFFICER))
    add(page, RiskPolicy)
    page.get_by_role("link", name="Add another").click()
    page.locator("[name=limits-0-rule]").select_option("max_order_value")
    page.locator("[name=limits-0-value]").fill("500")
    save(page, reason=WHY, symbol="BTC/USDT")
    told(page, "was added successfully")
    told(page, "max_order_value 500")
    limit = RiskLimit.objects.get()
    assert (limit.policy.symbol, limit.value, limit.mode) == ("BTC/USDT", 500, "enforce")
    page.goto(page_of(limit.policy))
    page.locator("[name=limits-0-value]").fill("400")
    save(page, reason=WHY)
    told(page, "max_order_value 400")
    delete(page, limit.policy, reason=WHY)
    assert not RiskPolicy.objects.exists()
    assert recorded("policy.deleted") == ("rita", WHY)

    breaker = breakers.of_account(AccountFactory.create().pk)
    page.goto(page_of(breaker))
    save(page, reason=WHY, failure_threshold="9")
    told(page, "was changed successfully")
    breaker.refresh_from_db()
    assert breaker.failure_threshold == 9
    assert recorded("breaker.changed") == ("rita", WHY)
    assert complaints == []


@pytest.mark.drives("execution_strategy_add", "execution_strategy_change", "execution_strategy_lab")
def test_a_strategy_is_made_and_tried(page_for: PageFor, complaints: list[str]) -> None:
    account = AccountFactory.create(name="main")
    page = page_for(person("rita", roles.RISK_OFFICER))
    add(page, Strategy)
    page.get_by_role("link", name="Add another").click()
    page.locator("[name=routes-0-account]").select_option(label="main")
    page.locator("[name=routes-0-quantity]").fill("0.01")
    save(page, reason=WHY, slug="trend")
    told(page, "trend does not trade yet.")
    strategy = Strategy.objects.get()
    route = strategy.routes.get()
    assert (route.account, route.quantity) == (account, Decimal("0.01"))
    assert recorded("strategy.created") == ("rita", WHY)
    page.goto(page_of(strategy))
    save(page, reason=WHY, note="of the night shift")
    told(page, "was changed successfully")
    strategy.refresh_from_db()
    assert strategy.note == "of the night shift"
    page.goto(page_of(strategy))
    page.locator(f'a[href="{action(strategy, "lab")}"]:visible').click()
    expect(page.locator("select[name=strategy]")).to_have_value(str(strategy.pk))
    assert complaints == []


@pytest.mark.drives(
    "brokers_symbolalias_add",
    "brokers_symbolalias_change",
    "brokers_symbolalias_delete",
    "execution_spreadwatch_add",
    "execution_spreadwatch_change",
    "execution_spreadwatch_delete",
)
def test_names_and_gaps_are_set(page_for: PageFor, complaints: list[str]) -> None:
    page = page_for(person("rita", roles.RISK_OFFICER))
    add(page, SymbolAlias)
    save(page, reason=WHY, alias="BTCUSD", symbol="BTC/USD")
    told(page, "was added successfully")
    alias = SymbolAlias.objects.get()
    page.goto(page_of(alias))
    save(page, reason=WHY, symbol="BTC/USDT")
    told(page, "was changed successfully")
    alias.refresh_from_db()
    assert (alias.alias, alias.symbol) == ("BTCUSD", "BTC/USDT")
    delete(page, alias, reason=WHY)
    assert not SymbolAlias.objects.exists()
    assert recorded("alias.deleted") == ("rita", WHY)

    for name in ("main", "other"):
        AccountFactory.create(name=name)
    add(page, SpreadWatch)
    for name in ("main", "other"):
        page.get_by_role("checkbox", name=name).check()
    save(page, reason=WHY, symbol="BTC/USDT")
    told(page, "was added successfully")
    spread = SpreadWatch.objects.get()
    assert spread.accounts.count() == 2
    page.goto(page_of(spread))
    save(page, reason=WHY, threshold="0.005")
    told(page, "was changed successfully")
    spread.refresh_from_db()
    assert spread.threshold == Decimal("0.005")
    delete(page, spread, reason=WHY)
    assert not SpreadWatch.objects.exists()
    assert complaints == []


@pytest.mark.drives(
    "risk_channel_add",
    "risk_channel_change",
    "risk_channel_delete",
    "risk_channel_test",
    "risk_channel_told",
)
def test_a_channel_is_set_up_and_tested(page_for: PageFor, complaints: list[str]) -> None:
    page = page_for(person("sam", roles.SECURITY_ADMIN))
    add(page, Channel)
    save(page, reason=WHY, name="desk", address="json://127.0.0.1:9/secret")
    told(page, "was added successfully")
    channel = Channel.objects.get()
    assert channel.reveal() == "json://127.0.0.1:9/secret"
    page.goto(page_of(channel))
    assert "127.0.0.1:9" not in page.content()
    save(page, reason=WHY, per_minute="3")
    told(page, "was changed successfully")
    channel.refresh_from_db()
    assert channel.per_minute == 3
    open_menu(page, "desk")
    answer(
        page,
        action(channel, "test"),
        says="the list of notices says how it went",
        button="Send",
    )
    told(page, "This is a test of the channel desk")
    assert Notice.objects.get(event=Event.TEST).channel == channel
    page.goto(list_of(channel))
    open_menu(page, "desk")
    page.locator(f'a[href="{action(channel, "told")}"]:visible').click()
    told(page, "This is a test of the channel desk")
    expect(page.locator("#modal-content")).to_be_hidden()
    delete(page, channel, reason=WHY)
    assert not Channel.objects.exists()
    assert recorded("channel.deleted") == ("sam", WHY)
    assert complaints == []


@pytest.mark.drives(
    "risk_ipallowlist_add",
    "risk_ipallowlist_change",
    "risk_ipallowlist_delete",
    "execution_strategy_rotate",
    "risk_safeguards_change",
)
def test_who_may_post_and_who_must_agree(page_for: PageFor, complaints: list[str]) -> None:
    strategy = StrategyFactory.create(slug="trend")
    page = page_for(person("sam", roles.SECURITY_ADMIN))
    add(page, IPAllowlist)
    page.get_by_role("link", name="Add another").click()
    page.locator("[name=networks-0-cidr]").fill("192.0.2.0/24")
    save(page, reason=WHY, name="office")
    told(page, "was added successfully")
    listed = IPAllowlist.objects.get()
    assert [str(one.cidr) for one in listed.networks.all()] == ["192.0.2.0/24"]
    page.goto(page_of(listed))
    page.locator("[name=networks-0-cidr]").fill("192.0.2.7/32")
    save(page, reason=WHY)
    told(page, "was changed successfully")
    assert [str(one.cidr) for one in listed.networks.all()] == ["192.0.2.7/32"]
    delete(page, listed, reason=WHY)
    assert not IPAllowlist.objects.exists()

    page.goto(page_of(strategy))
    answer(
        page,
        action(strategy, "rotate"),
        says="It is shown once, on the next page.",
        button="Make the secret",
        reason=WHY,
    )
    shown = page.locator("#new-secret").inner_text()
    assert WebhookSecret.objects.get().digest == digest_of(shown).hex()
    assert recorded("secret.rotated") == ("sam", WHY)

    page.goto(list_of(Safeguards))
    page.locator("[name=two_person]").check(force=True)
    save(page, reason=WHY)
    told(page, "was changed successfully")
    assert Safeguards.current().two_person
    assert complaints == []


@pytest.mark.drives("risk_proposal_reject")
def test_who_proposed_a_release_takes_it_back(page_for: PageFor, complaints: list[str]) -> None:
    Safeguards.objects.create(two_person=True)
    switch.change(TradingState.State.HALTED, reason="a drill")
    rita = person("rita", roles.RISK_OFFICER)
    with audit.acting(audit.Actor("rita")):
        payload = {"mode": "resume", "scope": "global", "key": ""}
        row = proposals.submit("release", payload, reason="drill over")
    assert row is not None
    page = page_for(rita)
    page.goto(list_of(Proposal))
    open_menu(page, "rita")
    told(page, "nobody approves what they proposed")
    answer(page, action(row, "reject"), says="Nothing changes.", button="Reject", reason=WHY)
    told(page, "trading for everything: rejected.")
    row.refresh_from_db()
    assert (row.state, row.decided_by, row.note) == (Proposal.State.REJECTED, "rita", WHY)
    assert TradingState.objects.get().state == TradingState.State.HALTED
    assert complaints == []


@pytest.mark.drives("risk_ratelimit_add", "risk_ratelimit_change")
def test_how_many_failures_are_allowed_is_set(page_for: PageFor, complaints: list[str]) -> None:
    RateLimit.objects.all().delete()
    page = page_for(UserFactory.create(username="sue", is_superuser=True))
    add(page, RateLimit)
    save(page, reason=WHY, lockout_after="20")
    told(page, "was added successfully")
    page.goto(page_of(RateLimit.objects.get()))
    save(page, reason=WHY, lockout_after="10")
    told(page, "was changed successfully")
    assert RateLimit.objects.get().lockout_after == 10
    assert recorded("rate_limit.changed") == ("sue", WHY)
    assert complaints == []


@pytest.mark.drives("risk_clientaddress_release")
def test_a_lock_out_is_lifted(page_for: PageFor, complaints: list[str]) -> None:
    locked = rows.locked_out()
    page = page_for(person("sam", roles.SECURITY_ADMIN))
    page.goto(list_of(locked))
    open_menu(page, locked.network)
    answer(
        page,
        action(locked, "release"),
        says="Its failures are forgotten",
        button="Release",
        reason=WHY,
    )
    told(page, "192.0.2.7 (webhook) is released.")
    assert recorded("address.released") == ("sam", WHY)
    assert complaints == []
