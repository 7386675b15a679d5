"""``manage.py send_signal``: sign an alert and post it to the running server."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from execution.formats import format_of
from execution.models import Strategy
from execution.signing import CannotSign, signer_of


class Command(BaseCommand):
    help = "Post an alert to the running server as the strategy's sender would; prints the answer."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument(
            "--field",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a field of the alert, under its sender's name; may be given several times; where the "
            "sender writes JSON, what begins with [ or { is read as such",
        )
        parser.add_argument("--wait", type=int, default=0, metavar="N", help="seconds, at most 10")
        parser.add_argument(
            "--token",
            help="the strategy's token, stored only as a digest; its field in the alert does as well, "
            "and so does FKS_WEBHOOK_TOKEN",
        )
        parser.add_argument(
            "--http", default=settings.HTTP_ADDRESS, metavar="HOST:PORT", help="(%(default)s)"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        strategy = Strategy.objects.filter(slug=options["slug"]).first()
        if strategy is None:
            raise CommandError(f"there is no strategy {options['slug']!r}")
        alert = _fields(options["field"])
        url = f"http://{options['http']}/webhook/{strategy.slug}"
        headers = {"Content-Type": "application/json"}
        if options["wait"]:
            headers["Prefer"] = f"wait={options['wait']}"
        try:
            signer = signer_of(strategy, options["token"] or _token_in(alert, strategy))
            alert.setdefault(signer.format.sent_at, str(int(time.time())))
            if signer.format.write is json.dumps:
                alert = {name: _structured(name, value) for name, value in alert.items()}
            signer.refuse_unwritable(alert)
            body, proof = signer.sign(alert)
        except CannotSign as error:
            raise CommandError(str(error)) from None
        status, text = _post(url, body, headers | proof)
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


def _token_in(alert: Mapping[str, str], strategy: Strategy) -> str:
    """The token where the sender would write it, else that of the environment."""
    names = format_of(strategy.format, strategy.format_options).secrets
    told = [alert[name] for name in names if name in alert]
    return told[0] if told else os.environ.get("FKS_WEBHOOK_TOKEN", "")


def _structured(name: str, value: str) -> Any:
    """A list or an object where ``value`` begins like one; numbers in it keep their digits."""
    if not value.startswith(("[", "{")):
        return value
    try:
        return json.loads(value, parse_float=str)
    except ValueError as error:
        raise CommandError(f"--field {name} begins like JSON and is none: {error}") from None


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        raise CommandError(f"nothing answers at {url}: {error}") from error
