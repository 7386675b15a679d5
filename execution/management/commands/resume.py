"""``manage.py resume``: release the kill switch."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from execution import halting
from execution.management.commands.halt import add_scope, scope_of
from risk import audit


class Command(BaseCommand):
    help = "Let trading go on: for everything, or an account, strategy, venue or symbol."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        scope, key = scope_of(options)
        with audit.acting(audit.Actor("command")):
            row = halting.press(halting.Mode.RESUME, scope=scope, key=key, reason=options["reason"])
        self.stdout.write(f"{row.key or 'everything'} is {row.get_state_display()} now.")
