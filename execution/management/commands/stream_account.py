"""``manage.py stream_account``: follow an account's order stream, so that fills are seen at once."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from brokers.errors import BrokerError
from brokers.models import Account
from execution.exclusive import Work, exclusive
from execution.streaming import Follower

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Follow the order stream of an account until SIGTERM; fills are booked as they happen. "
        "Polling goes on without it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("account", metavar="ACCOUNT", help="the account's name")

    def handle(self, *_args: Any, **options: Any) -> None:
        account = Account.objects.filter(name=options["account"]).first()
        if account is None:
            raise CommandError(f"there is no account {options['account']!r}")
        if not account.is_active:
            raise CommandError(f"the account {account.name} is switched off")
        with exclusive(Work.STREAM, account.pk) as mine:
            if not mine:
                raise CommandError(f"somebody follows {account.name} already")
            try:
                asyncio.run(_follow(account))
            except BrokerError as error:
                raise CommandError(str(error)) from error


async def _follow(account: Account) -> None:
    follower = Follower(account)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, follower.stop)
    await follower.run()
