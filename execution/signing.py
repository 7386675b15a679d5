"""Signing an alert as its strategy's sender does: for commands that post to FKS itself."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from execution import bearer, standard_webhooks
from execution.authentication import live
from execution.formats import Format, format_of
from execution.ids import uuid7
from execution.models import Strategy
from execution.parsing import Unreadable


class CannotSign(Exception):
    """What proves an alert of this strategy is not at hand; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Everything needed to sign for one strategy; holds secrets, and asks the database no more."""

    auth: str
    format: Format
    key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)

    def sign(self, alert: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one delivery, in the strategy's format."""
        if self.auth == Strategy.Auth.TOKEN:
            return self.format.write({**alert, "secret": self.token}).encode(), {}
        body = self.format.write(alert).encode()
        if self.auth == Strategy.Auth.HMAC:
            return body, {
                "X-Webhook-Signature": hmac.new(self.key, body, hashlib.sha256).hexdigest()
            }
        if self.auth == Strategy.Auth.STANDARD:
            id, now = f"msg_{uuid7().hex}", str(int(time.time()))
            signature = standard_webhooks.signature(self.key, id, now, body)
            proof = {"webhook-id": id, "webhook-timestamp": now, "webhook-signature": signature}
            return body, proof
        return body, {"Authorization": f"Bearer {self.token}"}

    def refuse_unwritable(self, alert: Mapping[str, Any]) -> None:
        """Raises CannotSign for a text the format has no way to write."""
        try:
            document = self.format.read(self.format.write(alert).encode())
        except Unreadable as error:
            raise CannotSign(f"the format {self.format.label} cannot say it: {error}") from None
        for name, value in alert.items():
            if value not in (document.get(name), document.get(name.lower())):
                raise CannotSign(f"the format {self.format.label} cannot say {name}={value}")


def signer_of(strategy: Strategy, token: str = "") -> Signer:
    """``token`` is for the profile of that name, of which FKS keeps a digest only. Raises
    CannotSign.
    """
    auth, format = strategy.auth, format_of(strategy.format, strategy.format_options)
    if auth == Strategy.Auth.TOKEN:
        if not token:
            raise CannotSign("give --token: only a digest of it is stored")
        return Signer(auth, format, token=token)
    if auth == Strategy.Auth.JWT:
        user = bearer.senders_of(strategy).order_by("pk").first()
        if user is None:
            raise CannotSign(f"no active user may post to {strategy.slug}")
        return Signer(auth, format, token=bearer.token_for(user))
    row = strategy.live_secrets.filter(profile=auth).first()
    if row is None:
        raise CannotSign(f"{strategy.slug} has no live {auth} secret")
    key = live(row).key
    if auth == Strategy.Auth.STANDARD:
        key = standard_webhooks.key_of(key.decode())
    return Signer(auth, format, key)
