"""``manage.py rotate_keys``: encrypt everything anew with the first of ``CREDENTIAL_KEYS``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import models

from brokers import crypto
from brokers.models import AccountLogin, ExchangeCredential
from execution.authentication import binding_of
from execution.models import WebhookSecret
from risk import audit
from risk.models import Channel, Proposal, SecondFactor
from risk.proposals import binding
from risk.second_factor import binding_of as binding_of_user


@dataclass(frozen=True, slots=True)
class Store:
    """One sort of row with a sealed column, and what binds a token to its row."""

    label: str
    rows: models.QuerySet[Any]
    binding: Callable[[Any], str]


def stores() -> tuple[Store, ...]:
    """Everything that is encrypted with these keys."""
    return (
        Store("credentials", ExchangeCredential.objects.all(), lambda row: row.binding),
        Store("log-ins", AccountLogin.objects.all(), lambda row: row.binding),
        Store("webhook secrets", WebhookSecret.objects.exclude(sealed=""), binding_of),
        Store("second factors", SecondFactor.objects.all(), lambda row: binding_of_user(row.user)),
        Store("channels", Channel.objects.all(), lambda row: row.binding),
        Store("proposals", Proposal.objects.exclude(sealed=""), binding),
    )


class Command(BaseCommand):
    help = (
        "Encrypt every secret anew with the first of CREDENTIAL_KEYS. May be repeated and interrupted. "
        "Prints how many rows each key id still encrypts; drop a key once it encrypts none."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        current = crypto.current_key_id()
        unreadable: list[str] = []
        changed = 0
        for store in stores():
            for row in store.rows.exclude(sealed__startswith=f"{current}.").iterator():
                try:
                    changed += _seal_anew(row, store.binding(row))
                except crypto.DecryptionError as error:
                    unreadable.append(f"{store.label} {row.pk}: {error}")
        if changed:
            with audit.acting(audit.Actor("command")):
                after = {"key": current, "rows": changed}
                audit.record("keys.rotated", "credential keys", after=after)
        keys = dict(sorted(Counter(_key_ids()).items()))
        self.stdout.write(json.dumps({"current": current, "changed": changed, "rows_by_key": keys}))
        if unreadable:
            raise CommandError("cannot be read with any key: " + "; ".join(unreadable))


def _seal_anew(row: Any, bound_to: str) -> int:
    """Replace the token unless somebody else has replaced it meanwhile."""
    token = crypto.encrypt(crypto.decrypt(row.sealed, bound_to=bound_to), bound_to=bound_to)
    same: models.QuerySet[Any] = type(row)._default_manager.filter(pk=row.pk, sealed=row.sealed)
    return same.update(sealed=token)


def _key_ids() -> Iterator[str]:
    for store in stores():
        for token in store.rows.values_list("sealed", flat=True).iterator():
            yield token.partition(".")[0]
