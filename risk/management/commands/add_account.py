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

UNCONFIRMED = (
    "It is switched off: it would trade real money. Say --confirm with its name when you add it, or "
    "switch it on on its page."
)


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
        parser.add_argument(
            "--confirm",
            metavar="NAME",
            help="the account's name once more, without which one of environment live is added "
            "switched off; asked for at a terminal",
        )
        parser.add_argument("--reason", default="", help="why, for the audit trail")

    def handle(self, *_args: Any, **options: Any) -> None:
        is_confirmed = options["environment"] != Environment.LIVE or self._is_typed(options)
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
                    is_active=is_confirmed,
                )
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        if not is_confirmed:
            self.stderr.write(UNCONFIRMED)
        elif not account.is_active:
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
                    "is_active": account.is_active,
                }
            )
        )

    def _is_typed(self, options: dict[str, Any]) -> bool:
        """Whether somebody typed the name of an account that goes live, as its page asks for it too."""
        name, typed = options["name"], options["confirm"]
        if typed is None and options["credentials_file"] != "-" and sys.stdin.isatty():
            # Not as the prompt of ``input``: standard output is the account's JSON alone.
            question = f"This trades real money from now on: type {name} to confirm it: "
            self.stderr.write(question, ending="")
            self.stderr.flush()
            typed = input()
        if typed not in (None, name):
            raise CommandError(f"that is not {name}: nothing was added")
        return typed is not None


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
