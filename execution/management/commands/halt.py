"""``manage.py halt``: the kill switch from the command line. Needs the database and nothing else."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from execution import halting, winding_down
from execution.halting import Mode
from execution.proposable import press_or_propose
from risk import audit
from risk.models import TradingState

Scope = TradingState.Scope


def add_scope(parser: CommandParser) -> None:
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--account", metavar="NAME", help="only this account")
    scope.add_argument("--strategy", metavar="SLUG", help="only this strategy")
    scope.add_argument("--venue", metavar="NAME", help="only accounts at this venue")
    scope.add_argument("--symbol", metavar="SYMBOL", help="only this symbol")
    parser.add_argument("--reason", required=True)


def scope_of(options: dict[str, Any]) -> tuple[TradingState.Scope, str]:
    """The scope and key the options name; one nobody has is refused, lest a typo halts nothing."""
    for scope in (Scope.ACCOUNT, Scope.STRATEGY, Scope.VENUE, Scope.SYMBOL):
        key = options.get(scope.value)
        if key is not None:
            if not halting.is_known(scope, key):
                raise CommandError(f"there is no {scope.value} {key!r}")
            return scope, key
    return Scope.GLOBAL, ""


class Command(BaseCommand):
    help = "Stop trading at once: for everything, or an account, strategy, venue or symbol."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)
        parser.add_argument(
            "--seconds",
            type=float,
            default=winding_down.SECONDS,
            help="how long to keep at it here; the workers go on (default %(default)s)",
        )
        parser.add_argument(
            "--mode",
            choices=[mode.value for mode in Mode if mode is not Mode.RESUME],
            default=Mode.HALT.value,
            help="halt: nothing is sent but stop losses; reduce_only: exits still pass; cancel_all: "
            "halt, and cancel what is working; flatten: that, and close every position (default "
            "%(default)s)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        scope, key = scope_of(options)
        mode = Mode(options["mode"])
        with audit.acting(audit.Actor("command")):
            proposal = press_or_propose(mode, scope, key, reason=options["reason"])
            if proposal is not None:
                waits = f"Proposed: another person has to approve it ({proposal.pk})."
                self.stdout.write(waits)
                return
            row = TradingState.objects.get(scope=scope, key=key)
            self.stdout.write(f"{row.where} is {row.get_state_display()} now.")
            if mode in (Mode.CANCEL_ALL, Mode.FLATTEN):
                self._report(winding_down.carry_out(row, options["seconds"]), mode)

    def _report(self, left: halting.Left, mode: Mode) -> None:
        for order in left.orders:
            self.stdout.write(f"still to be cancelled: order {order.pk} ({order})")
        for position in left.positions:
            self.stdout.write(f"still to be closed: {position}")
        if left:
            raise CommandError("not everything is done; the workers go on with it")
        self.stdout.write("All working orders are cancelled.")
        if mode is Mode.FLATTEN:
            self.stdout.write("All positions are closed.")
