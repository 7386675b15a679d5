"""Circuit breakers and their history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models

from brokers.models import Account


class CircuitBreaker(models.Model):
    """The guard in front of a venue: one per account, and one for all accounts there. Every change is
    a conditional UPDATE.
    """

    class State(models.TextChoices):
        CLOSED = "closed", "closed"
        OPEN = "open", "open"
        HALF_OPEN = "half_open", "half open"

    account = models.OneToOneField(
        Account, on_delete=models.CASCADE, null=True, blank=True, related_name="breaker"
    )
    venue = models.CharField(max_length=60, blank=True, help_text="For all accounts there.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.CLOSED)
    failures = models.PositiveIntegerField(default=0, help_text="Failures in a row.")
    successes = models.PositiveIntegerField(default=0, help_text="Good probes in a row.")
    failure_threshold = models.PositiveIntegerField(default=5)
    success_threshold = models.PositiveIntegerField(default=2)
    open_seconds = models.PositiveIntegerField(
        default=60, help_text="How long it stays open before a probe may try."
    )
    opened_at = models.DateTimeField(null=True, blank=True)
    probe_until = models.DateTimeField(
        null=True, blank=True, help_text="The probe now under way holds the breaker until then."
    )
    last_error = models.TextField(blank=True)

    class Meta:
        permissions = (("operate_circuitbreaker", "Can trip and reset circuit breakers"),)
        ordering: ClassVar[list[str]] = ["venue", "account"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["venue"],
                condition=models.Q(account__isnull=True),
                name="breaker_once_per_venue",
            ),
            models.CheckConstraint(
                condition=models.Q(account__isnull=False, venue="")
                | (models.Q(account__isnull=True) & ~models.Q(venue="")),
                name="breaker_of_account_or_venue",
            ),
        ]

    def __str__(self) -> str:
        return f"breaker of {self.name}: {self.state}"

    @property
    def name(self) -> str:
        """The account's name, or ``venue:`` and the venue: no account's name holds a colon."""
        return self.account.name if self.account else f"venue:{self.venue}"

    @property
    def next_probe_at(self) -> datetime | None:
        """When a caller may ask whether the venue works again; ``None`` unless it is open."""
        if self.state != self.State.OPEN or self.opened_at is None:
            return None
        return self.opened_at + timedelta(seconds=self.open_seconds)


class BreakerEvent(models.Model):
    """One change of a breaker's state. Append-only."""

    breaker = models.ForeignKey(CircuitBreaker, on_delete=models.CASCADE, related_name="history")
    at = models.DateTimeField()
    to_state = models.CharField(max_length=10, choices=CircuitBreaker.State.choices)
    actor = models.CharField(max_length=150)
    reason = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]

    def __str__(self) -> str:
        return f"{self.to_state} at {self.at}"
