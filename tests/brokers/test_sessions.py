"""Ready plugins: one per account and configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pytest_django import Settings

from brokers import sessions
from brokers.accounts import set_credentials
from brokers.errors import ConfigurationError
from brokers.models import Account
from brokers.sessions import forget_all, plugin_for
from tests.brokers.scripted import ScriptedPlugin, registered, script_of
from tests.factories import AccountFactory
from tests.threads import together

pytestmark = pytest.mark.django_db
Accounts = Callable[..., Account]


@pytest.fixture
def scripted() -> Iterator[Accounts]:
    with registered() as account:
        yield account


def plugin_of(account: Account) -> ScriptedPlugin:
    plugin = plugin_for(account)
    assert isinstance(plugin, ScriptedPlugin)
    return plugin


def test_an_account_keeps_its_plugin(scripted: Accounts) -> None:
    one, other = scripted(), scripted()
    assert plugin_of(one) is plugin_of(one) is plugin_of(Account.objects.get(pk=one.pk))
    assert plugin_of(one) is not plugin_of(other)
    assert script_of(one).inits == 1


def test_a_changed_account_gets_a_new_plugin_and_the_old_one_is_closed(scripted: Accounts) -> None:
    account = scripted()
    before = plugin_of(account)
    account.options = {"exchange": "other"}
    account.save()
    after = plugin_of(account)
    assert (before.closed, after.closed) == (True, False)
    assert after.config.options == {"exchange": "other"}


def test_new_credentials_reconnect(scripted: Accounts) -> None:
    account = scripted()
    assert plugin_of(account).config.credentials == {}
    set_credentials(account, {"api_key": "k", "api_secret": "s"})
    assert plugin_of(account).config.credentials == {"api_key": "k", "api_secret": "s"}


def test_what_is_known_of_an_account_does_not_reconnect_it(scripted: Accounts) -> None:
    account = scripted()
    before = plugin_of(account)
    account.balances = {"USDT": {"total": "1", "free": "1"}}
    account.save(update_fields=["balances"])
    assert plugin_of(account) is before


def test_an_older_copy_of_the_account_gets_the_newer_plugin(scripted: Accounts) -> None:
    account = scripted()
    stale = Account.objects.get(pk=account.pk)
    plugin_of(stale)
    account.save()
    newer = plugin_of(account)
    assert plugin_of(stale) is newer
    assert not newer.closed


def test_a_plugin_that_wants_to_end_the_process_is_its_own_accounts_trouble(
    scripted: Accounts,
) -> None:
    account, other = scripted(), scripted()
    script_of(account).init_failure = SystemExit("no licence")
    with pytest.raises(ConfigurationError, match="'scripted' gave up"):
        plugin_for(account)
    assert plugin_of(other).config.key == str(other.pk)


def test_a_plugin_that_cannot_start_is_tried_again(scripted: Accounts) -> None:
    account = scripted()
    script_of(account).init_failure = ConfigurationError("no such exchange")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no such exchange"):
            plugin_for(account)
    script_of(account).init_failure = None
    assert plugin_of(account).script.inits == 3


def test_a_credential_that_cannot_be_read_is_a_matter_of_configuration(
    scripted: Accounts, settings: Settings
) -> None:
    account = scripted()
    set_credentials(account, {"api_key": "canary", "api_secret": "canary"})
    settings.CREDENTIAL_KEYS = ["A" * 43 + "="]
    with pytest.raises(ConfigurationError, match="the stored credential cannot be read") as refused:
        plugin_for(account)
    assert "canary" not in str(refused.value)


def test_the_least_used_plugin_is_closed_when_there_are_too_many(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    accounts = [scripted() for _ in range(3)]
    first, second = plugin_of(accounts[0]), plugin_of(accounts[1])
    plugin_of(accounts[0])
    plugin_of(accounts[2])
    assert (first.closed, second.closed) == (False, True)


def test_all_can_be_forgotten(scripted: Accounts) -> None:
    account = scripted()
    before = plugin_of(account)
    forget_all()
    assert before.closed
    assert plugin_of(account) is not before


@pytest.mark.django_db(transaction=True)
def test_threads_share_one_plugin_that_is_made_once(scripted: Accounts) -> None:
    account = scripted()
    plugins = together(*[lambda: plugin_of(account)] * 8)
    assert len(set(map(id, plugins))) == 1
    assert script_of(account).inits == 1


def test_an_unknown_broker_is_refused() -> None:
    account = AccountFactory.create(broker="nobody")
    with pytest.raises(ConfigurationError, match="there is no broker plugin 'nobody'"):
        plugin_for(account)
