"""Keys on an account's page: checked for their form there, asked about by a worker, shown with both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.models import Account, ExchangeCredential
from tests.factories import AccountFactory

OPTIONS = '{"exchange": "binance"}'
SAVED_BY_A_PROCESS = """
import sys
import django; django.setup()
from django.contrib.auth.models import User
from django.test import Client
from brokers.models import Account, ExchangeCredential
client, account = Client(), Account.objects.get()
client.force_login(User.objects.create_superuser("root", password="x"))
page = f"/admin/brokers/account/{account.pk}/change/"
form = {
    "environment": "sandbox", "quote_currency": "USDT", "options": '{"exchange": "binance"}',
    "day_zone": "UTC", "day_starts": "00:00:00", "is_active": "on", "reason": "a new key",
    "credential_api_key": "key-0123456789", "credential_api_secret": "secret",
}
status = client.post(page, form, headers={"host": "127.0.0.1"}).status_code
shown = "Not asked yet" in client.get(page, headers={"host": "127.0.0.1"}).content.decode()
print(status, ExchangeCredential.objects.count(), shown, "ccxt" in sys.modules)
"""


def page_of(account: Account) -> str:
    return reverse("admin:brokers_account_change", args=[account.pk])


def form_of(account: Account, **changes: str) -> dict[str, str]:
    return {
        "environment": account.environment,
        "quote_currency": account.quote_currency,
        "options": OPTIONS,
        "day_zone": "UTC",
        "day_starts": "00:00:00",
        "is_active": "on",
        "reason": "because",
    } | changes


@pytest.fixture
def account() -> Account:
    row: Account = AccountFactory.create(
        name="desk", broker="ccxt", environment="sandbox", options={"exchange": "binance"}
    )
    credential = ExchangeCredential(account=row)
    credential.seal({"api_key": "key-0123456789", "api_secret": "secret"})
    credential.save()
    return row


def told(withdraw: bool | None, ip_restricted: bool | None = True) -> None:
    ExchangeCredential.objects.update(
        may_trade=True,
        may_withdraw=withdraw,
        ip_restricted=ip_restricted,
        asked_at=timezone.now(),
        checked_at=timezone.now(),
    )
    Account.objects.update(is_key_refused=withdraw is True)


@pytest.mark.django_db(transaction=True)
def test_the_web_server_saves_a_key_without_the_library() -> None:
    AccountFactory.create(broker="ccxt", environment="sandbox", options={"exchange": "binance"})
    name = str(connection.settings_dict["NAME"])
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAVED_BY_A_PROCESS],
        cwd=settings.BASE_DIR,
        env=os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "fks_site.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["302", "1", "True", "False"], done.stderr


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("environment", "options", "sentence"),
    [
        ("sandbox", '{"exchange": "kraken"}', "has no sandbox: use environment dry_run"),
        ("sandbox", '{"exchange": "binance", "base_url": "http://x.org"}', "only to this machine"),
        ("sandbox", '{"exchange": "nowhere"}', "nowhere"),
    ],
)
def test_what_needs_no_library_is_refused_at_once(
    admin_client: Client, account: Account, environment: str, options: str, sentence: str
) -> None:
    secret = "c2VjcmV0c2VjcmV0c2VjcmV0"
    typed = {"credential_api_key": "another-key-01", "credential_api_secret": secret}
    form = form_of(account, environment=environment, options=options, **typed)
    page = admin_client.post(page_of(account), form).content.decode()
    assert sentence in page
    assert ExchangeCredential.objects.get().hint == "…6789"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"options": '{"exchange": "nowhere"}'}, "nowhere"),
        ({"options": '{"exchange": "binance", "submit_timeout": "soon"}'}, "submit_timeout"),
        ({"options": '{"exchange": "kraken"}'}, "has no sandbox: use environment dry_run"),
        ({"options": '{"exchange": "binance", "base_url": "http://[::1"}'}, "is no address"),
    ],
)
@pytest.mark.parametrize("is_stored", [True, False])
def test_options_are_checked_also_where_no_key_is_typed(
    admin_client: Client,
    account: Account,
    changes: dict[str, str],
    sentence: str,
    *,
    is_stored: bool,
) -> None:
    if not is_stored:
        ExchangeCredential.objects.all().delete()
    page = admin_client.post(page_of(account), form_of(account, **changes)).content.decode()
    assert sentence in page
    account.refresh_from_db()
    assert account.options == {"exchange": "binance"}


@pytest.mark.django_db
def test_another_environment_is_checked_with_the_key_that_is_stored(admin_client: Client) -> None:
    options = {"account": "101-004-1234567-001"}
    row = AccountFactory.create(broker="oanda", environment="dry_run", options=options)
    credential = ExchangeCredential(account=row)
    credential.seal({"api_key": "key with spaces"})
    credential.save()
    form = form_of(row, environment="sandbox", options=json.dumps(options))
    page = admin_client.post(page_of(row), form).content.decode()
    assert "OANDA needs a personal access token as api_key" in page
    credential.delete()
    assert admin_client.post(page_of(row), form).status_code == 302, "the key is typed next"
    row.refresh_from_db()
    assert row.environment == "sandbox"


@pytest.mark.django_db
def test_what_its_plugin_does_not_see_is_changed_whatever_its_options_are(
    admin_client: Client,
) -> None:
    row = AccountFactory.create(broker="ccxt", environment="sandbox", options={"exchange": "gone"})
    options = json.dumps(row.options)
    form = form_of(row, options=options, day_starts="01:00:00") | {"initial-options": options}
    assert admin_client.post(page_of(row), form).status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("withdraw", "ip_restricted", "words"),
    [
        (False, True, "It may trade, may not withdraw, and is bound to an address"),
        (False, False, "This key works from any address: bind it to yours"),
        (None, None, "does not tell whether this key may withdraw: look there"),
        (True, True, "Refused: its key may withdraw, so nothing is opened with it"),
    ],
)
def test_the_page_shows_what_a_worker_was_told(
    admin_client: Client,
    account: Account,
    withdraw: bool | None,
    ip_restricted: bool | None,
    words: str,
) -> None:
    told(withdraw, ip_restricted)
    assert words in admin_client.get(page_of(account)).content.decode()


@pytest.mark.django_db
def test_nothing_goes_live_with_a_key_that_may_withdraw(
    admin_client: Client, account: Account
) -> None:
    told(withdraw=True)
    live = form_of(account, environment="live", typed_name="desk")
    page = admin_client.post(page_of(account), live).content.decode()
    assert "make a key at the venue that may only read and trade" in page
    assert Account.objects.get().environment == "sandbox"
    typed = {"credential_api_key": "another-key-4321", "credential_api_secret": "secret"}
    assert admin_client.post(page_of(account), live | typed).status_code == 302
    stored = Account.objects.get()
    assert (stored.environment, stored.is_key_refused) == ("live", False)
    assert ExchangeCredential.objects.get().asked_at is None
