"""What an operator must look at."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from brokers.models import Account


class Alarm(models.Model):
    """One thing that is wrong, from when it was noticed until it is over."""

    class Kind(models.TextChoices):
        NEEDS_OPERATOR = "needs_operator", "order needs an operator"
        UNANSWERED = "unanswered", "the venue does not say how orders stand"
        NAKED_POSITION = "naked_position", "position without its stop"
        NOT_FLAT = "not_flat", "the kill switch has something left"
        SILENT = "silent", "no alert where one was expected"
        GAP = "gap", "an alert is missing"
        UNREAD = "unread", "an alert could not be read"
        NOT_RECONCILED = "not_reconciled", "account not compared with its venue"
        AUDIT_BROKEN = "audit_broken", "the audit trail was changed"
        LOGIN_NEEDED = "login_needed", "the venue refuses the log-in"
        LOGIN_ENDS = "login_ends", "the log-in at the venue ends soon"
        KEY_REFUSED = "key_refused", "a key may withdraw"
        KEY_CHANGED = "key_changed", "a key's rights were changed"
        CHANNEL_DOWN = "channel_down", "notifications do not arrive"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    key = models.CharField(max_length=100, help_text="Tells it from others of its kind.")
    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, null=True, blank=True, related_name="alarms"
    )
    symbol = models.CharField(max_length=60, blank=True)
    detail = models.TextField()
    raised_at = models.DateTimeField()
    cleared_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["kind", "key"],
                condition=Q(cleared_at__isnull=True),
                name="alarm_once",
            )
        ]

    def __str__(self) -> str:
        where = f" on {self.account.name}" if self.account else ""
        return f"{self.get_kind_display()}: {self.symbol or self.key}{where}"
