"""Price gaps between venues: what is watched, and what was last seen."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.core.validators import MinValueValidator
from django.db import models

from brokers.models import Account


class SpreadWatch(models.Model):
    """One instrument whose quotes on several accounts are compared, and the last comparison.

    It only looks and tells: no order ever comes of it. ``net`` is what buying on ``buy_on`` and selling
    on ``sell_on`` would bring after both takers' fees, as a fraction of the cost.
    """

    symbol = models.CharField(
        max_length=60, unique=True, help_text="As accounts are asked for it: BTC/USDT."
    )
    is_enabled = models.BooleanField(default=False)
    accounts = models.ManyToManyField(
        Account,
        related_name="+",
        help_text="Two or more; their quotes are read with every look.",
    )
    threshold = models.DecimalField(
        max_digits=6,
        decimal_places=5,
        default=Decimal("0.002"),
        help_text="Channels are told when the gap after fees is wider, as a fraction: 0.002 is 0.2 %.",
    )
    every = models.PositiveIntegerField(
        default=30, validators=[MinValueValidator(5)], help_text="Seconds between two looks."
    )
    quiet = models.PositiveIntegerField(
        default=1800,
        validators=[MinValueValidator(60)],
        help_text="Seconds after a message in which the same instrument sends no other.",
    )

    looked_at = models.DateTimeField(null=True, editable=False)
    told_at = models.DateTimeField(null=True, editable=False)
    net = models.DecimalField(max_digits=12, decimal_places=8, null=True, editable=False)
    buy_on = models.CharField(max_length=63, blank=True, editable=False)
    sell_on = models.CharField(max_length=63, blank=True, editable=False)
    quotes = models.JSONField(
        default=list, editable=False, help_text="Each account's quote, or why it told none."
    )

    class Meta:
        verbose_name = "spread"
        ordering: ClassVar[list[str]] = ["symbol"]

    def __str__(self) -> str:
        return self.symbol
