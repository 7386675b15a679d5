"""``manage.py halt``: the kill switch from the command line. Needs the database and nothing else."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from brokers.models import Account
from execution import halting
from execution.models import Strategy
from risk import audit, switch
from risk.models import TradingState


def add_scope(parser: CommandParser) -> None:
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--account", metavar="NAME", help="only this account")
    scope.add_argument("--strategy", metavar="SLUG", help="only this strategy")
    parser.add_argument("--reason", required=True)


def scope_of(options: dict[str, Any]) -> tuple[TradingState.Scope, str]:
    """The scope and key the options name; a name nobody has is refused, lest a typo halts nothing."""
    if options["account"]:
        if not Account.objects.filter(name=options["account"]).exists():
            raise CommandError(f"there is no account {options['account']!r}")
        return TradingState.Scope.ACCOUNT, options["account"]
    if options["strategy"]:
        if not Strategy.objects.filter(slug=options["strategy"]).exists():
            raise CommandError(f"there is no strategy {options['strategy']!r}")
        return TradingState.Scope.STRATEGY, options["strategy"]
    return TradingState.Scope.GLOBAL, ""


class Command(BaseCommand):
    help = "Stop trading at once: for everything, an account or a strategy."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)
        parser.add_argument(
            "--mode",
            choices=["halt", "reduce_only", "cancel_all"],
            default="halt",
            help="halt: nothing is sent; reduce_only: exits still pass; cancel_all: halt, and cancel "
            "what is working (default %(default)s)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        scope, key = scope_of(options)
        reducing = options["mode"] == "reduce_only"
        state = TradingState.State.REDUCING if reducing else TradingState.State.HALTED
        with audit.acting(audit.Actor("command")):
            row = switch.change(state, scope=scope, key=key, reason=options["reason"])
            self.stdout.write(f"{row.key or 'everything'} is {row.get_state_display()} now.")
            if options["mode"] == "cancel_all":
                left = halting.cancel_all(scope, key)
                for order in left:
                    self.stdout.write(f"still at the venue: order {order.pk} ({order})")
                self.stdout.write("All working orders are cancelled." if not left else "")
