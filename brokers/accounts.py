"""Making and changing accounts: every value is checked by the plugin it is meant for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from brokers.base import ExecutionPlugin
from brokers.crypto import DecryptionError
from brokers.errors import BrokerError, ConfigurationError
from brokers.models import Account, ExchangeCredential
from brokers.registry import registry
from brokers.types import AccountConfig, Environment

AIM = frozenset({"environment", "options"})
"""The columns that say where an account trades."""

objections: list[Callable[[Account], str]] = []
"""Why an account cannot go to another environment now, or nothing; higher floors add theirs."""

QUOTE_BY_EXCHANGE = {
    "kraken": "USD",
    "coinbase": "USD",
    "krakenfutures": "USD",
    "hyperliquid": "USDC",
}


def create_account(
    name: str,
    *,
    broker: str,
    environment: str,
    options: Mapping[str, Any],
    credentials: Mapping[str, str],
    quote_currency: str = "",
) -> Account:
    """A new account with its sealed credentials, in one transaction.

    ``quote_currency`` defaults to the exchange's or the broker's usual one. Raises
    ConfigurationError with a sentence for the operator.
    """
    check(name, broker=broker, environment=environment, options=options, credentials=credentials)
    account = Account(
        name=name,
        broker=broker,
        environment=environment,
        options=dict(options),
        quote_currency=quote_currency
        or QUOTE_BY_EXCHANGE.get(str(options.get("exchange", "")))
        or registry().get(broker).quote_currency,
    )
    try:
        account.full_clean()
    except ValidationError as error:
        raise ConfigurationError("; ".join(error.messages)) from error
    with transaction.atomic():
        account.save()
        if credentials:
            set_credentials(account, credentials)
    return account


def set_credentials(account: Account, credentials: Mapping[str, str]) -> None:
    """Seal ``credentials`` for ``account`` and let every worker reconnect with them.

    It trades again once a worker has asked the venue what the key may do, and compared the account.
    """
    with transaction.atomic():
        row = ExchangeCredential.objects.filter(account=account).first()
        row = row or ExchangeCredential(account=account)
        row.seal(dict(credentials))
        row.save()
        account.version += 1
        account.reconciled_at, account.is_key_refused = None, False
        account.save(update_fields=["version", "reconciled_at", "is_key_refused"])


def stored_credentials(account: Account) -> dict[str, str]:
    """For a plugin only; empty where none are stored, or none that can be read."""
    row = ExchangeCredential.objects.filter(account=account.pk).first()
    try:
        return row.reveal() if row else {}
    except DecryptionError:
        return {}


def refuse_other_environment(account: Account) -> None:
    """Raise ConfigurationError while something of ``account`` is under way where it trades now."""
    for objection in objections:
        if said := objection(account):
            raise ConfigurationError(f"{account}: {said}")


def forget_comparison(account: Account, changed: Collection[str]) -> list[str]:
    """Whoever changes ``environment`` or ``options`` may trade elsewhere: what is known of the account
    and of its key counts no more. The columns of ``account`` to be saved; the caller saves them, in
    one transaction with this.
    """
    if not AIM & set(changed):
        return []
    ExchangeCredential.objects.filter(account=account).update(asked_at=None, checked_at=None)
    account.reconciled_at = None
    return ["reconciled_at"]


def check(
    name: str,
    *,
    broker: str,
    environment: str,
    options: Mapping[str, Any],
    credentials: Mapping[str, str],
) -> None:
    """Raise ConfigurationError unless the plugin can work with this.

    Nothing is sent anywhere, and no SDK is loaded: what only that or the venue knows, a worker finds.
    """
    plugin_class = registry().get(broker)
    _refuse_unknown_names(plugin_class, options, credentials)
    try:
        where = Environment(environment)
    except ValueError as error:
        known = ", ".join(Environment)
        raise ConfigurationError(
            f"there is no environment {environment!r}; known: {known}"
        ) from error
    plugin = plugin_class()
    try:
        plugin.check_config(
            AccountConfig(
                key="0",
                name=name,
                environment=where,
                options=dict(options),
                credentials=dict(credentials),
            )
        )
    except ConfigurationError:
        raise
    except BrokerError as error:
        raise ConfigurationError(str(error), code=error.code) from error


def _refuse_unknown_names(
    plugin_class: type[ExecutionPlugin], options: Mapping[str, Any], credentials: Mapping[str, str]
) -> None:
    broker = plugin_class.name
    unknown = sorted(set(options) - set(plugin_class.option_fields))
    if unknown:
        known = ", ".join(plugin_class.option_fields) or "none"
        raise ConfigurationError(f"{broker} has no option {unknown[0]!r}; known: {known}")
    foreign = sorted(set(credentials) - set(plugin_class.credential_fields))
    if foreign:
        known = ", ".join(plugin_class.credential_fields) or "none"
        raise ConfigurationError(f"{broker} takes no credential {foreign[0]!r}; known: {known}")
