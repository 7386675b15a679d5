"""What the accounts own, and what their open positions have gained so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from brokers.models import Account
from execution import days


@dataclass(frozen=True, slots=True)
class Balance:
    """How much of one currency."""

    currency: str
    total: Decimal


@dataclass(frozen=True, slots=True)
class Holding:
    """One account. ``unrealised`` is in its currency, ``None`` when a price is missing or old."""

    account: Account
    balances: list[Balance]
    unrealised: Decimal | None


def of_accounts(accounts: Iterable[Account], now: datetime) -> list[Holding]:
    """Every account as it was last compared; a currency of which nothing is held is left out."""
    shown = list(accounts)
    gains = days.all_unrealised(shown, now)
    return [Holding(account, _balances(account), gains[account.pk]) for account in shown]


def _balances(account: Account) -> list[Balance]:
    held = {currency: Decimal(one["total"]) for currency, one in account.balances.items()}
    return [Balance(currency, total) for currency, total in sorted(held.items()) if total]
