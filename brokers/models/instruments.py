"""What is known of venues' symbols."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.db import models

from brokers.fields import MoneyField
from brokers.models.accounts import Account
from brokers.types import Instrument as InstrumentRules


class Instrument(models.Model):
    """A venue's trading rules for one symbol of one account, as last read."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="instruments")
    symbol = models.CharField(max_length=60)
    venue_symbol = models.CharField(max_length=60)
    base = models.CharField(max_length=20)
    quote = models.CharField(max_length=20)
    market_type = models.CharField(max_length=10, default="spot")
    quantity_step = MoneyField()
    price_tick = MoneyField()
    min_quantity = MoneyField(null=True, blank=True)
    max_quantity = MoneyField(null=True, blank=True)
    min_value = MoneyField(null=True, blank=True)
    refreshed_at = models.DateTimeField()
    last_price = MoneyField(null=True, editable=False)
    last_rate = MoneyField(default=Decimal(1), editable=False)
    last_price_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["account", "symbol"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "symbol"], name="instrument_once_per_account"
            ),
            models.CheckConstraint(
                condition=models.Q(quantity_step__gt=Decimal(0), price_tick__gt=Decimal(0)),
                name="instrument_steps_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} on {self.account}"

    def rules(self) -> InstrumentRules:
        return InstrumentRules(
            symbol=self.symbol,
            venue_symbol=self.venue_symbol,
            base=self.base,
            quote=self.quote,
            quantity_step=self.quantity_step,
            price_tick=self.price_tick,
            min_quantity=self.min_quantity,
            max_quantity=self.max_quantity,
            min_value=self.min_value,
            market_type=self.market_type,
        )


class SymbolAlias(models.Model):
    """What a sender calls a symbol and what it means on an account (or on all, without one)."""

    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, null=True, blank=True, related_name="aliases"
    )
    alias = models.CharField(
        max_length=60, help_text="As the sender writes it, e.g. BINANCE:BTCUSDT.P"
    )
    symbol = models.CharField(
        max_length=60, help_text="As the venue is asked for it, e.g. BTC/USDT:USDT"
    )
    valid_from = models.DateField(
        null=True, blank=True, help_text="The first day (UTC) it holds; empty: always has."
    )
    valid_until = models.DateField(
        null=True,
        blank=True,
        help_text="The last day (UTC) it holds. A continuous future (ES1!) needs one: the roll.",
    )

    class Meta:
        verbose_name_plural = "symbol aliases"
        ordering: ClassVar[list[str]] = ["alias", "valid_from"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "alias", "valid_from"],
                name="alias_once_per_account",
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        days = [f" {word} {day}" for word, day in self._days() if day]
        return f"{self.alias} → {self.symbol}{''.join(days)}"

    def _days(self) -> tuple[tuple[str, date | None], ...]:
        return (("from", self.valid_from), ("until", self.valid_until))

    def is_valid_on(self, day: date) -> bool:
        has_begun = self.valid_from is None or self.valid_from <= day
        return has_begun and (self.valid_until is None or day <= self.valid_until)

    def clean(self) -> None:
        if self.valid_from and self.valid_until and self.valid_until < self.valid_from:
            raise ValidationError({"valid_until": "ends before it begins"})
        if "!" in self.alias and self.valid_until is None:
            raise ValidationError(
                {"valid_until": "a continuous future changes its contract: name the last day"}
            )
