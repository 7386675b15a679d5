"""``manage.py send_signal``: sign an alert and post it to the running server."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from execution import bearer, standard_webhooks
from execution.authentication import live
from execution.ids import uuid7
from execution.models import Strategy


class Command(BaseCommand):
    help = "Post an alert to the running server as the strategy's sender would; prints the answer."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument(
            "--field",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a field of the alert; may be given several times",
        )
        parser.add_argument("--wait", type=int, default=0, metavar="N", help="seconds, at most 10")
        parser.add_argument(
            "--token",
            help="the strategy's token, which is stored only as a digest; FKS_WEBHOOK_TOKEN does too",
        )
        parser.add_argument(
            "--http", default=settings.HTTP_ADDRESS, metavar="HOST:PORT", help="(%(default)s)"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        strategy = Strategy.objects.filter(slug=options["slug"]).first()
        if strategy is None:
            raise CommandError(f"there is no strategy {options['slug']!r}")
        alert = _fields(options["field"])
        alert.setdefault("timestamp", str(int(time.time())))
        url = f"http://{options['http']}/webhook/{strategy.slug}"
        headers = {"Content-Type": "application/json"}
        if options["wait"]:
            headers["Prefer"] = f"wait={options['wait']}"
        if strategy.auth == Strategy.Auth.TOKEN:
            token = options["token"] or os.environ.get("FKS_WEBHOOK_TOKEN")
            if not token:
                raise CommandError("give --token: only a digest of it is stored")
            alert["secret"] = token
        body = json.dumps(alert).encode()
        headers |= _credentials(strategy, body)
        status, text = _post(url, body, headers)
        self.stdout.write(text)
        if status >= 400:
            raise CommandError(f"the server answered {status}")


def _fields(pairs: list[str]) -> dict[str, str]:
    fields = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise CommandError(f"--field wants NAME=VALUE, not {pair!r}")
        fields[name] = value
    return fields


def _credentials(strategy: Strategy, body: bytes) -> dict[str, str]:
    """The headers that prove ``body``; none for a token, which is in it."""
    if strategy.auth == Strategy.Auth.HMAC:
        key = _live_key(strategy)
        return {"X-Webhook-Signature": hmac.new(key, body, hashlib.sha256).hexdigest()}
    if strategy.auth == Strategy.Auth.STANDARD:
        key = standard_webhooks.key_of(_live_key(strategy).decode())
        id, now = f"msg_{uuid7().hex}", str(int(time.time()))
        signature = standard_webhooks.signature(key, id, now, body)
        return {"webhook-id": id, "webhook-timestamp": now, "webhook-signature": signature}
    if strategy.auth == Strategy.Auth.JWT:
        user = bearer.senders_of(strategy).order_by("pk").first()
        if user is None:
            raise CommandError(f"no active user may post to {strategy.slug}")
        return {"Authorization": f"Bearer {bearer.token_for(user)}"}
    return {}


def _live_key(strategy: Strategy) -> bytes:
    row = strategy.live_secrets.filter(profile=strategy.auth).first()
    if row is None:
        raise CommandError(f"{strategy.slug} has no live {strategy.auth} secret")
    return live(row).key


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        raise CommandError(f"nothing answers at {url}: {error}") from error
