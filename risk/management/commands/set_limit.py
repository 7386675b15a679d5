"""``manage.py set_limit``: set or change one risk limit."""

from __future__ import annotations

import json
from decimal import Decimal, DecimalException
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from risk import audit, proposals
from risk.arithmetic import text
from risk.proposable import limit_of, limit_payload
from risk.rules import RULES
from risk.types import LimitMode

SCOPE = ("account", "strategy", "symbol")


class Command(BaseCommand):
    help = "Set a risk limit for everything, an account, a strategy or a symbol."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("rule", choices=sorted(RULES))
        parser.add_argument("value", help="in the unit of the rule, e.g. the account's currency")
        parser.add_argument("--account", metavar="NAME")
        parser.add_argument("--strategy", metavar="SLUG")
        parser.add_argument("--symbol")
        parser.add_argument(
            "--mode", choices=[mode.value for mode in LimitMode], default=LimitMode.ENFORCE.value
        )
        parser.add_argument(
            "--parameter",
            action="append",
            default=[],
            metavar="NAME=TEXT",
            help="what else the rule is told; several may be given, and replace what was set",
        )
        parser.add_argument("--reason", required=True)

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            value = Decimal(options["value"])
        except DecimalException as error:
            raise CommandError(f"{options['value']!r} is not a number") from error
        for name in SCOPE:
            if options[name] == "":
                raise CommandError(f"--{name} names none")
        try:
            with audit.acting(audit.Actor("command")):
                payload = limit_payload(
                    options["rule"],
                    value,
                    **{name: options[name] or "" for name in SCOPE},
                    mode=LimitMode(options["mode"]),
                    parameters=_parameters(options["parameter"]),
                )
                proposal = proposals.submit("limit", payload, reason=options["reason"])
        except ValueError as error:
            raise CommandError(str(error)) from error
        if proposal is not None:
            self.stdout.write(json.dumps({"status": "proposed", "proposal_id": str(proposal.pk)}))
            return
        limit = limit_of(payload)
        self.stdout.write(
            json.dumps(
                {
                    "rule": limit.rule,
                    "value": text(limit.value),
                    "mode": limit.mode,
                    "parameters": limit.parameters,
                    "scope": str(limit.policy),
                }
            )
        )


def _parameters(given: list[str]) -> dict[str, str] | None:
    """``None`` when none was given, which keeps those of a limit that is set already."""
    if not given:
        return None
    pairs = [one.partition("=") for one in given]
    if any(not sign for _, sign, _ in pairs):
        raise CommandError("a parameter is written NAME=TEXT")
    return {name: text for name, _, text in pairs}
