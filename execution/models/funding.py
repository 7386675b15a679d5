"""Funding payments of perpetuals, as the venues told them."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from brokers.fields import MoneyField
from brokers.models import Account
from execution.models.strategies import Strategy


class FundingPayment(models.Model):
    """One payment, once: (account, the venue's id) is unique. Positive when received."""

    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="funding", db_index=False
    )
    payment_id = models.CharField(max_length=100)
    symbol = models.CharField(max_length=60)
    strategy = models.ForeignKey(
        Strategy,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Whose fills alone held the position then; none where several or nobody's did.",
    )
    amount = MoneyField()
    currency = models.CharField(max_length=20)
    at = models.DateTimeField(help_text="When the venue says it was paid.")
    recorded_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "payment_id"], name="funding_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account", "symbol", "at"], name="funding_by_symbol"),
            models.Index(fields=["at"], name="funding_by_time"),
        ]

    def __str__(self) -> str:
        return f"funding of {self.symbol} on {self.account.name}"
