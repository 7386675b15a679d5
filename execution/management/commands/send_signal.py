"""``manage.py send_signal``: sign an alert and post it to the running server."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

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
            help="a field of the alert, under its sender's name; may be given several times",
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
        url = f"http://{options['http']}/webhook/{strategy.slug}"
        headers = {"Content-Type": "application/json"}
        if options["wait"]:
            headers["Prefer"] = f"wait={options['wait']}"
        token = options["token"] or os.environ.get("FKS_WEBHOOK_TOKEN", "")
        try:
            signer = signer_of(strategy, token)
            alert.setdefault(signer.format.sent_at, str(int(time.time())))
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


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        raise CommandError(f"nothing answers at {url}: {error}") from error
