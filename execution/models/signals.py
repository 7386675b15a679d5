"""What arrived: accepted alerts, what makes them unique, and what could not be read."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from execution.ids import uuid7
from execution.models.strategies import Strategy
from execution.states import SignalState


class Signal(models.Model):
    """One accepted alert. Committed before the sender is answered; never deleted by trading."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    strategy = models.ForeignKey(
        Strategy, on_delete=models.PROTECT, related_name="signals", db_index=False
    )
    received_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, help_text="The sender's own time, if it gave one.")
    address = models.GenericIPAddressField(null=True)
    auth = models.CharField(max_length=10)
    body = models.TextField(help_text="As received, with the secret masked.")
    alert = models.JSONField(help_text="The body in canonical terms; numbers are text.")
    symbol = models.CharField(max_length=60)
    action = models.CharField(max_length=10)
    state = models.CharField(
        max_length=10, choices=SignalState.choices, default=SignalState.RECEIVED
    )
    reason = models.CharField(max_length=40, blank=True)
    detail = models.TextField(blank=True)
    gap = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="What the sender believed it held before, where our book says otherwise.",
    )
    decided_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(
        default=0, help_text="Decisions that ended in an error."
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["strategy", "-id"], name="signal_by_strategy"),
            models.Index(
                fields=["strategy", "symbol", "id"],
                name="signal_undecided",
                condition=Q(state="received"),
            ),
            models.Index(
                fields=["strategy", "symbol", "-id"],
                name="signal_undecided_closing",
                condition=Q(state="received")
                & (Q(action="close") | Q(alert__market_position="flat")),
            ),
            models.Index(
                fields=["strategy", "symbol", "-id"],
                name="signal_ending",
                condition=Q(action__in=["cancel", "close"]) | Q(alert__market_position="flat"),
            ),
            models.Index(fields=["state", "-id"], name="signal_by_state"),
            models.Index(
                fields=["action", "-id"],
                name="signal_by_rarer_action",
                condition=~Q(action__in=["buy", "sell"]),
            ),
            models.Index(
                fields=["symbol"], opclasses=["varchar_pattern_ops"], name="signal_by_symbol"
            ),
            models.Index(fields=["-id"], name="signal_with_gap", condition=~Q(gap="")),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.symbol} ({self.strategy.slug})"


class IdempotencyKey(models.Model):
    """What makes a delivery "the same again": a sender's id for ever, or a body digest for a while."""

    strategy = models.ForeignKey(Strategy, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    signal = models.ForeignKey(Signal, on_delete=models.CASCADE, related_name="+")
    expires_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["strategy", "key"], name="idempotency_key_once")
        ]

    def __str__(self) -> str:
        return self.key


class QuarantinedBody(models.Model):
    """An authenticated delivery that could not be read, or had the id of another alert. Nothing was
    traded on it.
    """

    strategy = models.ForeignKey(Strategy, on_delete=models.CASCADE, related_name="quarantine")
    received_at = models.DateTimeField()
    address = models.GenericIPAddressField(null=True)
    body = models.TextField(help_text="As received, secret masked, unreadable bytes escaped.")
    code = models.CharField(max_length=40)
    detail = models.TextField()

    class Meta:
        verbose_name = "quarantined body"
        verbose_name_plural = "quarantine"
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["code", "-id"], name="quarantine_by_code")
        ]

    def __str__(self) -> str:
        return f"{self.strategy.slug} {self.code}"
