"""``manage.py add_account``: an account at a venue, its credentials sealed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from brokers.errors import ConfigurationError
from brokers.registry import registry
from brokers.types import Environment
from risk import audit
from risk.accounts import add_account


class Command(BaseCommand):
    help = "Add an account at a venue. Prints one JSON object."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="short name: lowercase letters, digits, '-' and '_'")
        parser.add_argument("--broker", required=True, choices=registry().names())
        parser.add_argument(
            "--environment",
            choices=[one.value for one in Environment],
            default=Environment.DRY_RUN.value,
            help="default: %(default)s",
        )
        parser.add_argument(
            "--options",
            default="{}",
            metavar="JSON",
            help="the plugin's options (see list_brokers)",
        )
        parser.add_argument(
            "--credentials-file",
            metavar="FILE",
            help='JSON such as {"api_key": …, "api_secret": …}; "-" reads standard input',
        )
        parser.add_argument("--quote-currency", default="", help="currency limits are counted in")
        parser.add_argument("--reason", default="", help="why, for the audit trail")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            with audit.acting(audit.Actor("command")):
                account = add_account(
                    options["name"],
                    broker=options["broker"],
                    environment=options["environment"],
                    options=_json_object(options["options"], "--options"),
                    credentials=_credentials(options["credentials_file"]),
                    quote_currency=options["quote_currency"],
                    reason=options["reason"],
                )
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        if not account.is_active:
            self.stderr.write("It is switched off: going live takes another person.")
        self.stdout.write(
            json.dumps(
                {
                    "name": account.name,
                    "broker": account.broker,
                    "environment": account.environment,
                    "venue": account.venue,
                    "quote_currency": account.quote_currency,
                    "options": account.options,
                    "has_credentials": hasattr(account, "credential"),
                }
            )
        )


def _credentials(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--credentials-file cannot be read: {error.strerror}") from error
    values = _json_object(text, "--credentials-file")
    if not all(isinstance(value, str) for value in values.values()):
        raise CommandError("--credentials-file: every value must be text")
    return values


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # The text may hold a secret: say where it is wrong, never what it says.
        raise CommandError(f"{name} is not JSON (character {error.pos})") from None
    if not isinstance(value, dict):
        raise CommandError(f"{name} must be a JSON object")
    return value
