"""Limits, what they met, and the report of their self-test."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models

from brokers.fields import MoneyField
from brokers.models import Account
from risk.types import LimitMode


class RiskPolicy(models.Model):
    """A scope limits are set for: everything, an account, a strategy, a symbol, or a combination."""

    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, null=True, blank=True, related_name="policies"
    )
    strategy = models.CharField(max_length=63, blank=True, help_text="The strategy's slug.")
    symbol = models.CharField(max_length=60, blank=True)

    class Meta:
        verbose_name_plural = "risk policies"
        ordering: ClassVar[list[str]] = ["account", "strategy", "symbol"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "strategy", "symbol"],
                name="policy_once_per_scope",
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        parts = [
            f"account {self.account.name}" if self.account else "",
            f"strategy {self.strategy}" if self.strategy else "",
            f"symbol {self.symbol}" if self.symbol else "",
        ]
        return ", ".join(part for part in parts if part) or "everything"


class RiskLimit(models.Model):
    """One limit: a rule, its value, and whether it refuses, only observes, or is off."""

    class Mode(models.TextChoices):
        OFF = LimitMode.OFF.value, "off"
        OBSERVE = LimitMode.OBSERVE.value, "observe"
        ENFORCE = LimitMode.ENFORCE.value, "enforce"

    policy = models.ForeignKey(RiskPolicy, on_delete=models.CASCADE, related_name="limits")
    rule = models.CharField(max_length=40)
    value = MoneyField()
    parameters = models.JSONField(default=dict, blank=True)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.ENFORCE)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["rule"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["policy", "rule"], name="limit_once_per_policy"),
            models.CheckConstraint(
                condition=models.Q(value__gte=Decimal(0)), name="limit_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rule} {self.value} ({self.policy})"


class LimitHit(models.Model):
    """One time a limit denied an order, would have denied it, or was nearly used up. Append-only."""

    class Kind(models.TextChoices):
        DENIED = "denied", "denied"
        OBSERVED = "observed", "would have denied"
        WARNED = "warned", "80 % used"

    at = models.DateTimeField(db_index=True)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    rule = models.CharField(max_length=40)
    scope = models.CharField(max_length=200)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="limit_hits")
    strategy = models.CharField(max_length=63, blank=True)
    symbol = models.CharField(max_length=60)
    order_id = models.UUIDField(help_text="The order that was judged.")
    detail = models.TextField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["rule", "-at"], name="limit_hit_by_rule")
        ]

    def __str__(self) -> str:
        return f"{self.rule} {self.get_kind_display()}: {self.detail}"


class RiskReport(models.Model):
    """One run of the controls' self-test. Append-only."""

    at = models.DateTimeField()
    passed = models.BooleanField()
    actor = models.CharField(max_length=150)
    results = models.JSONField(
        help_text="Per control: its scope, whether it passed, what was seen."
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]

    def __str__(self) -> str:
        return f"self-test of {self.at:%Y-%m-%d %H:%M} UTC: {'passed' if self.passed else 'failed'}"
