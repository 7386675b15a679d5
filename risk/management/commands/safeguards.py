"""``manage.py safeguards``: show or set the rules for the people; the way back in when locked out."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from risk import audit
from risk.models import Safeguards
from risk.proposable import SAFEGUARDS


class Command(BaseCommand):
    help = (
        "Show the safeguards, or set them at once, without a second person. Prints one JSON object."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        for name in ("two-person", "second-factor"):
            parser.add_argument(f"--{name}", choices=["on", "off"])
        parser.add_argument("--reason", default="", help="needed for a change")

    def handle(self, *_args: Any, **options: Any) -> None:
        given = {name: options[name] for name in ("two_person", "second_factor") if options[name]}
        if given and not options["reason"].strip():
            raise CommandError("a change of a safeguard needs a --reason")
        values = SAFEGUARDS.before({}) | {name: value == "on" for name, value in given.items()}
        with audit.acting(audit.Actor("command")):
            SAFEGUARDS.apply(values, {}, options["reason"])
        row = Safeguards.current()
        self.stdout.write(
            json.dumps({"two_person": row.two_person, "second_factor": row.second_factor})
        )
