"""Where a strategy's orders go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from brokers.fields import MoneyField
from brokers.models import Account
from execution.models.strategies import Strategy
from risk.types import SizingMethod


class Route(models.Model):
    """Where a strategy's orders go, and how large they are there."""

    class Sizing(models.TextChoices):
        FIXED_QUANTITY = SizingMethod.FIXED_QUANTITY.value, "fixed quantity"
        FIXED_PERCENT = SizingMethod.FIXED_PERCENT.value, "fixed percent of equity"
        RISK = SizingMethod.RISK.value, "risk from the stop distance"
        ATR = SizingMethod.ATR.value, "risk from the ATR"

    strategy = models.ForeignKey(Strategy, on_delete=models.CASCADE, related_name="routes")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="routes")
    is_enabled = models.BooleanField(default=True)
    group = models.SlugField(
        max_length=40,
        blank=True,
        default="",
        db_default="",
        help_text="Of a strategy's routes with the same group, the one with the best price after fees "
        "takes each entry; exits go where the position is. Empty: it takes every alert.",
    )
    sizing = models.CharField(max_length=20, choices=Sizing.choices, default=Sizing.FIXED_QUANTITY)
    quantity = MoneyField(
        null=True, blank=True, help_text="For fixed quantity, when the alert names none."
    )
    percent = models.DecimalField(
        max_digits=9,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="Fraction of equity: 0.02 is 2 %.",
    )
    atr_multiple = models.DecimalField(max_digits=6, decimal_places=2, null=True, blank=True)
    execution = models.CharField(
        "entries",
        max_length=10,
        choices=Strategy.Execution.choices,
        blank=True,
        default="",
        db_default="",
        help_text="How entries are sent to this account. Empty: as the strategy says.",
    )
    exit_execution = models.CharField(
        "exits",
        max_length=10,
        choices=Strategy.Execution.choices,
        blank=True,
        default="",
        db_default="",
        help_text="How exits are sent to this account. Empty: as the strategy says.",
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["strategy", "account"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["strategy", "account"], name="route_once"),
            models.CheckConstraint(
                condition=Q(quantity__isnull=True) | Q(quantity__gt=Decimal(0)),
                name="route_quantity_positive",
            ),
        ]

    part: Mapping[str, Any] | None = None
    """What the group's decision changed in the alert for this account; not stored here."""

    def __str__(self) -> str:
        return f"{self.strategy.slug} → {self.account.name}"

    def clean(self) -> None:
        self._refuse_percent()
        for column in ("execution", "exit_execution"):
            try:
                self.strategy.refuse_impossible({getattr(self, column)})
            except ValidationError as error:
                raise ValidationError({column: error.messages}) from error

    def _refuse_percent(self) -> None:
        """One lost whole at the stop is the most there is: ``2`` was meant as two percent."""
        by_stop = self.sizing in (self.Sizing.RISK, self.Sizing.ATR)
        if self.percent is not None and (self.percent <= 0 or (by_stop and self.percent > 1)):
            most = ", at most 1" if by_stop else ""
            raise ValidationError({"percent": f"A fraction above zero{most}: 0.02 is 2 %."})
        if self.atr_multiple is not None and self.atr_multiple <= 0:
            raise ValidationError({"atr_multiple": "Above zero."})


def refuse_mixed(routes: Iterable[Route]) -> None:
    """A group follows its sender's position sizes as a whole, or not at all: of one that does in part,
    each account would take the size that is meant for all of them. Raises ValidationError.
    """
    sizings: dict[str, set[bool]] = {}
    for route in routes:
        if route.group and route.is_enabled:
            fixed = route.sizing == Route.Sizing.FIXED_QUANTITY
            sizings.setdefault(route.group, set()).add(fixed)
    for group, found in sizings.items():
        if len(found) > 1:
            raise ValidationError(
                f"all routes of the group {group} are sized by fixed quantity, or none of them is"
            )
