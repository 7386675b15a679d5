"""``manage.py add_strategy``: a webhook and where its orders go."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from execution.models import Route, Strategy
from execution.strategies import OPTIONS, StrategyError, create_strategy
from risk import audit


class Command(BaseCommand):
    help = "Add a strategy. Prints one JSON object with its webhook path and, once, its secret."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--accounts", required=True, metavar="NAME[,NAME]")
        parser.add_argument("--auth", choices=Strategy.Auth.values, default=Strategy.Auth.TOKEN)
        parser.add_argument("--format", choices=Strategy.Format.values, default=Strategy.Format.FKS)
        parser.add_argument(
            "--sizing", choices=Route.Sizing.values, default=Route.Sizing.FIXED_QUANTITY
        )
        known = "; ".join(f"{name}: {text}" for name, text in OPTIONS.items())
        parser.add_argument(
            "--options", default="{}", metavar="JSON", help=known.replace("%", "%%")
        )
        parser.add_argument(
            "--http",
            default=settings.HTTP_ADDRESS,
            metavar="HOST:PORT",
            help="only shown in webhook_url (default %(default)s)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            given = json.loads(options["options"], parse_float=Decimal, parse_int=Decimal)
        except json.JSONDecodeError as error:
            raise CommandError(f"--options is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise CommandError("--options must be a JSON object")
        given = {
            name: format(value, "f") if isinstance(value, Decimal) else value
            for name, value in given.items()
        }
        accounts = [name.strip() for name in options["accounts"].split(",") if name.strip()]
        if not accounts:
            raise CommandError("--accounts names none")
        try:
            with audit.acting(audit.Actor("command")):
                created = create_strategy(
                    options["slug"],
                    accounts=accounts,
                    auth=options["auth"],
                    format=options["format"],
                    sizing=options["sizing"],
                    options=given,
                )
        except StrategyError as error:
            raise CommandError(str(error)) from error
        url = f"http://{options['http']}/webhook/{created.strategy.slug}"
        secret = {created.secret_name: created.secret} if created.secret_name else {}
        self.stdout.write(
            json.dumps(
                {
                    "slug": created.strategy.slug,
                    "webhook_url": url,
                    "auth": created.strategy.auth,
                    "accounts": accounts,
                    "allowlist": created.strategy.allowlist.name
                    if created.strategy.allowlist
                    else "none",
                    **secret,
                }
            )
        )
