"""``manage.py generate_traffic``: load for your own installation, signed like the real thing."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from brokers.types import Environment
from execution import traffic
from execution.ids import uuid7
from execution.models import Signal, Strategy
from execution.signing import CannotSign, signer_of
from risk.allowlist import parse_address


class Command(BaseCommand):
    help = (
        "Post a realistic, signed mix of alerts to the running server and report what came back. "
        "Only to this machine, and only for strategies that trade on paper, unless forced."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="the strategy to post as")
        parser.add_argument("--webhooks", type=int, default=1000, metavar="N")
        parser.add_argument("--concurrent", type=int, default=8, metavar="C")
        parser.add_argument("--duration", type=float, default=60, metavar="S", help="at most")
        parser.add_argument("--rate", type=float, default=0, help="per second; 0: as it goes")
        parser.add_argument("--seed", type=int, default=1, help="of the mix")
        parser.add_argument("--token", default=os.environ.get("FKS_WEBHOOK_TOKEN", ""))
        parser.add_argument(
            "--url", default=f"http://{settings.HTTP_ADDRESS}", help="(%(default)s)"
        )
        parser.add_argument(
            "--force", action="store_true", help="an address that is not this machine's"
        )
        parser.add_argument(
            "--trade-for-real",
            action="store_true",
            help="a strategy with a live or sandbox account",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        strategy = Strategy.objects.filter(slug=options["slug"]).first()
        if strategy is None:
            raise CommandError(f"there is no strategy {options['slug']!r}")
        _refuse_venues(strategy, may=options["trade_for_real"])
        _refuse_foreign(options["url"], may=options["force"])
        try:
            signer = signer_of(strategy, options["token"])
        except CannotSign as error:
            raise CommandError(str(error)) from None
        url = urlsplit(f"{options['url'].rstrip('/')}/webhook/{strategy.slug}")
        mix = traffic.alerts(options["seed"], f"traffic-{uuid7().hex[:12]}")
        report = traffic.Generator(url, signer, mix).run(
            webhooks=options["webhooks"],
            concurrent=max(options["concurrent"], 1),
            seconds=options["duration"],
            rate=options["rate"],
        )
        lost = _lost(report.accepted) if _is_here(options["url"]) else None
        self.stdout.write(json.dumps(report.figures() | {"accepted_and_not_stored": lost}))
        if report.unexpected or lost:
            raise CommandError(f"{report.unexpected} unexpected answers, {lost or 0} lost alerts")


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    address = parse_address(host)
    return host == "localhost" or bool(address and address.is_loopback)


def _refuse_foreign(url: str, *, may: bool) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise CommandError(f"--url wants http://HOST:PORT or https://HOST, not {url!r}")
    if not _is_here(url) and not may:
        raise CommandError(
            f"{url} is not this machine: load on somebody else's server is an attack. "
            "--force, if it is yours."
        )


def _refuse_venues(strategy: Strategy, *, may: bool) -> None:
    routes = strategy.routes.filter(is_enabled=True).select_related("account")
    real = [r.account.name for r in routes if r.account.environment != Environment.DRY_RUN]
    if real and not may:
        names = ", ".join(real)
        raise CommandError(
            f"{strategy.slug} trades at a venue ({names}); --trade-for-real to go on"
        )


def _lost(accepted: set[str]) -> int:
    """How many acknowledged alerts are not in the database."""
    ids = [UUID(one) for one in accepted]
    return len(ids) - Signal.objects.filter(pk__in=ids).count()
