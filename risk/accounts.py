"""Adding accounts: each with its audit row; going live takes two people where that is switched on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from brokers.accounts import create_account
from brokers.models import Account
from risk import audit
from risk.models import Safeguards


def must_start_off(environment: str) -> bool:
    """Whether a new account of ``environment`` waits for another person to switch it on."""
    return environment == Account.Environment.LIVE and Safeguards.current().two_person


def add_account(
    name: str,
    *,
    broker: str,
    environment: str,
    options: Mapping[str, Any],
    credentials: Mapping[str, str],
    quote_currency: str = "",
    reason: str = "",
    is_active: bool = True,
) -> Account:
    """A new account as ``brokers.accounts.create_account`` makes it, recorded in one transaction.

    One that trades live is switched off while two people have to agree to that: switching it on is a
    proposal then. Raises ConfigurationError.
    """
    with transaction.atomic():
        account = create_account(
            name,
            broker=broker,
            environment=environment,
            options=options,
            credentials=credentials,
            quote_currency=quote_currency,
        )
        if must_start_off(environment) or not is_active:
            account.is_active = False
            account.save(update_fields=["is_active"])
        audit.record(
            "account.created", f"account {account}", after=audit.snapshot(account), reason=reason
        )
        if credentials:
            audit.record(
                "credential.changed",
                f"credential of account {account}",
                after={"hint": account.credential.hint},
                reason=reason,
            )
    return account
