"""The trading state of everything, or of one scope."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class TradingState(models.Model):
    """The kill switch of one scope; the strictest of all scopes that touch an order rules."""

    class Scope(models.TextChoices):
        GLOBAL = "global", "everything"
        ACCOUNT = "account", "account"
        STRATEGY = "strategy", "strategy"
        VENUE = "venue", "venue"
        SYMBOL = "symbol", "symbol"

    class State(models.TextChoices):
        ACTIVE = "active", "active"
        REDUCING = "reducing", "reduce only"
        HALTED = "halted", "halted"

    scope = models.CharField(max_length=10, choices=Scope.choices)
    key = models.CharField(max_length=63, blank=True, help_text="The name of what it is for.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    flatten = models.BooleanField(
        default=False, help_text="Close whatever is held, until nothing is."
    )
    generation = models.PositiveIntegerField(default=0)
    reason = models.TextField(blank=True)
    changed_by = models.CharField(max_length=150, blank=True)
    changed_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["scope", "key"]
        permissions = (("halt_tradingstate", "Can halt trading, not release it"),)
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["scope", "key"], name="trading_state_once_per_scope")
        ]

    def __str__(self) -> str:
        return f"{self.where}: {self.get_state_display()}"

    @property
    def where(self) -> str:
        """The scope in words: an account and a venue may share a name."""
        return f"{self.get_scope_display()} {self.key}".strip()
