"""``manage.py check_account``: health, permissions and clock of one account."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from brokers import keys
from brokers.base import ExecutionPlugin
from brokers.errors import BrokerError
from brokers.models import Account
from brokers.rehearsal import rehearse
from brokers.sessions import plugin_for
from brokers.types import Environment, Health, Permissions

MAX_SKEW_MS = 1000


class Command(BaseCommand):
    help = "Check an account at its venue; exit status 0 only when all is well."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument(
            "--rehearse",
            metavar="SYMBOL",
            help="also place the smallest limit order far below the market, find it by its id, and "
            "cancel it; on a live account only with --with-real-money",
        )
        parser.add_argument(
            "--with-real-money",
            action="store_true",
            help="rehearse on a live account, where a venue has nothing else; needs FKS_LIVE_TRADING",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        account = Account.objects.filter(name=options["name"]).first()
        if account is None:
            raise CommandError(f"there is no account {options['name']!r}")
        is_live = account.environment == Environment.LIVE
        allowed = options["with_real_money"] and settings.FKS_LIVE_TRADING
        rehearses = options["rehearse"] is not None
        if rehearses and is_live and not allowed:
            raise CommandError(
                "a live account does not rehearse: use one of environment sandbox; where the venue has "
                "none, say --with-real-money, with FKS_LIVE_TRADING on"
            )
        try:
            plugin = plugin_for(account)
            health = plugin.health_check()
            permissions = keys.ask(account)
        except BrokerError as error:
            raise CommandError(f"{error.code}: {error}") from error
        problems, warnings = _problems(health, permissions), keys.warnings(permissions)
        self.stdout.write(
            json.dumps(
                {
                    "name": account.name,
                    "healthy": health.ok,
                    "detail": health.detail,
                    "latency_ms": health.latency_ms,
                    "clock_skew_ms": health.clock_skew_ms,
                    "may_trade": permissions.trade,
                    "may_withdraw": permissions.withdraw,
                    "ip_restricted": permissions.ip_restricted,
                    "problems": problems,
                    "warnings": warnings,
                }
            )
        )
        for warning in warnings:
            self.stderr.write(f"warning: {warning}")
        if problems:
            raise CommandError(problems[0])
        if rehearses:
            self._rehearse(plugin, options["rehearse"])

    def _rehearse(self, plugin: ExecutionPlugin, symbol: str) -> None:
        failed = []
        for step in rehearse(plugin, symbol):
            self.stdout.write(json.dumps({"step": step.name, "ok": step.ok, "detail": step.detail}))
            if not step.ok:
                failed.append(step.name)
        if failed:
            raise CommandError(
                f"failed: {', '.join(failed)}. Look at the venue for an order left behind"
            )


def _problems(health: Health, permissions: Permissions) -> list[str]:
    """Why the account must not trade as it is, the worst first."""
    problems = keys.problems(permissions)
    if not health.ok:
        problems.append(health.detail)
    if abs(health.clock_skew_ms or 0) > MAX_SKEW_MS:
        problems.append(f"the clocks differ by {health.clock_skew_ms} ms")
    return problems
