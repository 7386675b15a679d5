"""The books of the paper venue."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models

from brokers.fields import MoneyField


class PaperPrice(models.Model):
    """The last price a paper account saw for a symbol."""

    account_key = models.CharField(max_length=40)
    symbol = models.CharField(max_length=60)
    price = MoneyField()
    at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account_key", "symbol"], name="paper_price_once")
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.price}"


class PaperOrder(models.Model):
    """An order in the paper venue's own book: a venue's record, not FKS's (that is
    execution.Order).
    """

    account_key = models.CharField(max_length=40)
    identity = models.CharField(max_length=32)
    symbol = models.CharField(max_length=60)
    side = models.CharField(max_length=4)
    type = models.CharField(max_length=20)
    quantity = MoneyField()
    price = MoneyField(null=True)
    stop_price = MoneyField(null=True)
    status = models.CharField(max_length=20)
    filled_quantity = MoneyField(default=Decimal(0))
    waits_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account_key", "identity"], name="paper_order_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["account_key", "symbol"],
                name="paper_order_working",
                condition=models.Q(status__in=["open", "partially_filled"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.side} {self.quantity} {self.symbol}"


class PaperFill(models.Model):
    """A trade in the paper venue's book."""

    order = models.ForeignKey(PaperOrder, on_delete=models.CASCADE, related_name="fills")
    trade_id = models.CharField(max_length=50, unique=True)
    quantity = MoneyField()
    price = MoneyField()
    fee = MoneyField()
    fee_currency = models.CharField(max_length=20)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.trade_id


class PaperScript(models.Model):
    """How far a paper account's script of faults has run: orders counted, and an outage's end."""

    account_key = models.CharField(max_length=40, unique=True)
    script = models.CharField(max_length=64, default="")
    orders = models.PositiveIntegerField(default=0)
    down_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.orders} orders of account {self.account_key}"


class PaperBalance(models.Model):
    """What a paper account owns of one currency; may be negative for shorts."""

    account_key = models.CharField(max_length=40)
    currency = models.CharField(max_length=20)
    total = MoneyField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account_key", "currency"], name="paper_balance_once")
        ]

    def __str__(self) -> str:
        return f"{self.total} {self.currency}"
