"""``manage.py resume``: release the kill switch."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from execution import halting
from execution.management.commands.halt import add_scope, scope_of
from execution.proposable import press_or_propose
from risk import audit, switch
from risk.models import TradingState


class Command(BaseCommand):
    help = "Let trading go on: for everything, or an account, strategy, venue or symbol."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        scope, key = scope_of(options)
        with audit.acting(audit.Actor("command")):
            proposal = press_or_propose(halting.Mode.RESUME, scope, key, reason=options["reason"])
        if proposal is None:
            self._report(TradingState(scope=scope, key=key))
        else:
            self.stdout.write(f"Proposed: another person has to approve it ({proposal.pk}).")

    def _report(self, released: TradingState) -> None:
        """The strictest switch rules, so those that still stand are named with what releases them."""
        self.stdout.write(f"The switch over {released.where} is released.")
        for row in switch.not_active():
            again = halting.release_command(row)
            self.stdout.write(f"still {row.get_state_display()}: {row.where} ({again})")
