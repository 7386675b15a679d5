"""Making accounts: every value is checked by the plugin it is meant for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from brokers.accounts import create_account, set_credentials
from brokers.errors import ConfigurationError, CredentialError
from brokers.models import Account, ExchangeCredential
from tests.brokers.scripted import ScriptedPlugin, registered

pytestmark = pytest.mark.django_db
KEYS = {"api_key": "key-canary-123456", "api_secret": "secret-canary"}


@pytest.fixture(autouse=True)
def scripted() -> Iterator[None]:
    with registered():
        yield


def create(name: str = "desk", **values: object) -> Account:
    given = {"broker": "scripted", "environment": "sandbox", "options": {}, "credentials": {}}
    return create_account(name, **given | values)


def test_an_account_with_its_credentials_sealed() -> None:
    account = create(options={"exchange": "kraken"}, credentials=KEYS)
    stored = ExchangeCredential.objects.get(account=account)
    assert stored.reveal() == KEYS
    assert "canary" not in stored.sealed + str(stored) + repr(stored)
    assert stored.hint == "…3456"
    assert (account.environment, account.quote_currency) == ("sandbox", "USD")


def test_a_short_key_gives_no_hint() -> None:
    create(credentials={"api_key": "short"})
    assert ExchangeCredential.objects.get().hint == ""


def test_an_account_without_credentials_has_none() -> None:
    assert create().quote_currency == "USDT"
    assert not ExchangeCredential.objects.exists()


def test_the_currency_may_be_named() -> None:
    assert create(quote_currency="EUR").quote_currency == "EUR"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"broker": "mt4"}, "there is no broker plugin 'mt4'"),
        ({"options": {"colour": "red"}}, "scripted has no option 'colour'; known: exchange"),
        (
            {"credentials": {"pin": "1"}},
            "scripted takes no credential 'pin'; known: api_key, api_secret",
        ),
        ({"name": "My Desk"}, "use 1 to 63 lowercase letters"),
        ({"name": ""}, "cannot be blank"),
        ({"environment": "moon"}, "no environment 'moon'; known: dry_run, sandbox, live"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(
    values: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        create(**values)
    assert not Account.objects.exists()


def test_a_name_is_taken_once() -> None:
    create()
    with pytest.raises(ConfigurationError, match="already exists"):
        create()


def test_a_plugin_that_refuses_the_key_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CredentialError("the secret is not base64")

    monkeypatch.setattr(ScriptedPlugin, "init", refuse)
    with pytest.raises(ConfigurationError, match="the secret is not base64") as refused:
        create(credentials=KEYS)
    assert refused.value.code == "CREDENTIALS_REFUSED"
    assert not Account.objects.exists()
    assert not ExchangeCredential.objects.exists()


def test_new_credentials_replace_the_old_and_let_workers_reconnect() -> None:
    account = create(credentials=KEYS)
    version = account.version
    set_credentials(account, {"api_key": "new", "api_secret": "newer"})
    assert ExchangeCredential.objects.get().reveal() == {"api_key": "new", "api_secret": "newer"}
    assert Account.objects.get().version == version + 1


def test_a_credential_copied_to_another_row_does_not_open() -> None:
    one, other = create(credentials=KEYS), create("other", credentials=KEYS)
    ExchangeCredential.objects.filter(account=other).update(sealed=one.credential.sealed)
    with pytest.raises(Exception, match="belongs to another row"):
        Account.objects.get(pk=other.pk).config()


def test_the_configuration_shows_no_secret() -> None:
    config = create(credentials=KEYS).config()
    assert config.credentials == KEYS
    assert "canary" not in repr(config)
