"""``manage.py reconcile``: compare our book with the venues, now."""

from __future__ import annotations

import logging
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DataError, IntegrityError

from brokers.errors import BrokerError
from brokers.models import Account
from execution.comparison import busy_orders, coin_of
from execution.reconcile import reconcile_account
from risk.types import Refusal

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Compare working orders and balances with the venues; exit status 0 if all was compared and "
        "nothing differs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", metavar="NAME", help="only this account")

    def handle(self, *_args: Any, **options: Any) -> None:
        accounts = Account.objects.filter(is_active=True)
        if options["account"] is not None:
            accounts = Account.objects.filter(name=options["account"])
            if not accounts:
                raise CommandError(f"there is no account {options['account']!r}")
        answers = [self._reconcile(account) for account in accounts]
        if not all(answers):
            raise CommandError("not everything agrees; see above")

    def _reconcile(self, account: Account) -> bool:
        try:
            found = reconcile_account(account)
        except (BrokerError, Refusal) as error:
            self.stdout.write(f"{account.name}: not known, the venue did not answer ({error})")
            return False
        except (DataError, IntegrityError) as error:
            logger.exception("comparing an account raised")
            why = f"what the venue says cannot be stored ({type(error).__name__})"
            self.stdout.write(f"{account.name}: not known, {why}")
            return False
        for difference in found:
            self.stdout.write(f"{account.name} {difference.symbol}: {difference.detail}")
        left_out = busy_orders(account).order_by("id")
        for order in left_out:
            where = f"{account.name} {coin_of(order.symbol)}"
            self.stdout.write(
                f"{where}: not compared, order {order.pk} is {order.get_state_display()}"
            )
        agrees = not found and not left_out
        if agrees:
            self.stdout.write(f"{account.name}: agrees")
        return agrees
