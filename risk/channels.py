"""Where people are told what happened, and what waits to be told them. Django finds both through
``risk.models``.
"""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from brokers import crypto
from brokers.models import validate_name


class Severity(models.IntegerChoices):
    """How bad it is: to know, to look at today, to get up for."""

    INFO = 10, "information"
    WARNING = 20, "warning"
    ALARM = 30, "alarm"


class Event(models.TextChoices):
    """What people can be told of."""

    APPROVAL_WANTED = "approval_wanted", "order waits for approval"
    ORDER_ACCEPTED = "order_accepted", "order accepted"
    ORDER_PARTLY_FILLED = "order_partly_filled", "order partly filled"
    ORDER_FILLED = "order_filled", "order filled"
    ORDER_ENDED = "order_ended", "order canceled, expired or not placed"
    ORDER_DENIED = "order_denied", "order denied by risk"
    ORDER_REJECTED = "order_rejected", "order rejected by the venue"
    ORDER_UNKNOWN = "order_unknown", "order of unknown fate"
    ORDER_NEEDS_OPERATOR = "order_needs_operator", "order needs an operator"
    NAKED_POSITION = "naked_position", "position without its stop"
    DRIFT = "drift", "venue and book disagree"
    BREAKER_OPENED = "breaker_opened", "breaker opened"
    BREAKER_CLOSED = "breaker_closed", "breaker closed"
    LIMIT_NEAR = "limit_near", "limit 80 % used"
    MISSED_ALERT = "missed_alert", "alert missing"
    TRADING_SWITCHED = "trading_switched", "kill switch used"
    TRADING_RESUMED = "trading_resumed", "trading resumed"
    NOT_FLAT = "not_flat", "kill switch has something left"
    NOT_RECONCILED = "not_reconciled", "account not compared with its venue"
    LOGIN_NEEDED = "login_needed", "venue refuses the log-in"
    KEY_RIGHTS = "key_rights", "key may withdraw, or its rights were changed"
    CHANNEL_DOWN = "channel_down", "notifications do not arrive"
    AUDIT_BROKEN = "audit_broken", "audit trail was changed"
    ALARM_OVER = "alarm_over", "alarm over"
    LOGIN_FROM_NEW_ADDRESS = "login_from_new_address", "log-in from a new address"
    LOCKED_OUT = "locked_out", "too many failed log-ins"
    SECOND_FACTOR_GONE = "second_factor_gone", "second factor reset, or a recovery code used"
    ACCESS_CHANGED = "access_changed", "users, rights, keys or channels changed"
    SPREAD_SEEN = "spread_seen", "price gap between accounts"
    WEEKLY_SUMMARY = "weekly_summary", "weekly summary"
    TEST = "test", "test message"


UNFILTERED = (Event.TEST, Event.WEEKLY_SUMMARY)
"""Asked for by other means: a channel's filters do not hold them back."""


class Channel(models.Model):
    """One place messages go to: a chat, a mailbox, a web hook. Its address is a secret."""

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    is_active = models.BooleanField(default=True)
    sealed = models.TextField(editable=False)
    service = models.CharField(max_length=40, editable=False)
    least_severity = models.PositiveSmallIntegerField(
        choices=Severity.choices, default=Severity.WARNING, help_text="Nothing below this is told."
    )
    events = ArrayField(
        models.CharField(max_length=30, choices=Event.choices),
        default=list,
        blank=True,
        help_text="Only these. None chosen: every event.",
    )
    accounts = ArrayField(
        models.CharField(max_length=63),
        default=list,
        blank=True,
        help_text="Of events that concern an account, only these accounts'. None chosen: all.",
    )
    strategies = ArrayField(
        models.CharField(max_length=63),
        default=list,
        blank=True,
        help_text="Of events that concern a strategy, only these strategies'. None chosen: all.",
    )
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        help_text="Whose own this is: also told whatever changes their access, whatever is chosen "
        "above.",
    )
    per_minute = models.PositiveSmallIntegerField(
        "messages per minute",
        default=10,
        validators=[MinValueValidator(1), MaxValueValidator(60)],
        help_text="Beyond this, events are gathered into the next message. Alarms do not wait for it.",
    )
    weekly_summary = models.BooleanField(
        default=False, help_text="Mondays at 07:00 UTC: what the past week brought."
    )
    summarised_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def binding(self) -> str:
        """What the sealed address is bound to: it opens in this row only."""
        return f"address of channel {self.pk}"

    def seal(self, address: str) -> None:
        """Encrypt ``address`` into the row, which has its id already; the caller saves it."""
        self.sealed = crypto.encrypt({"address": address}, bound_to=self.binding)
        self.service = address.partition("://")[0].lower()[:40]

    def reveal(self) -> str:
        """The plain address, for sending only. Raises crypto.DecryptionError."""
        return crypto.decrypt(self.sealed, bound_to=self.binding)["address"]

    def wants(
        self,
        event: Event,
        severity: Severity,
        account: str,
        strategy: str,
        person: int | None = None,
    ) -> bool:
        """Whether such an event is told here; ``person`` is the id of whom it concerns."""
        if event in UNFILTERED or (person is not None and person == self.person_id):
            return True
        return (
            severity >= self.least_severity
            and (not self.events or event in self.events)
            and (not account or not self.accounts or account in self.accounts)
            and (not strategy or not self.strategies or strategy in self.strategies)
        )


class Notice(models.Model):
    """One event for one channel: written with the event, sent afterwards."""

    class State(models.TextChoices):
        WAITING = "waiting", "waiting"
        SENT = "sent", "sent"
        FAILED = "failed", "given up"
        DROPPED = "dropped", "channel switched off"

    # An event must not fail, nor wait, because somebody edits or deletes a channel meanwhile.
    channel = models.ForeignKey(
        Channel, on_delete=models.CASCADE, db_constraint=False, related_name="notices"
    )
    at = models.DateTimeField(default=timezone.now)
    event = models.CharField(max_length=30, choices=Event.choices)
    severity = models.PositiveSmallIntegerField(choices=Severity.choices)
    title = models.CharField(max_length=200)
    text = models.TextField(blank=True)
    account = models.CharField(max_length=63, blank=True)
    strategy = models.CharField(max_length=63, blank=True)
    symbol = models.CharField(max_length=60, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    due_at = models.DateTimeField()
    tries = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["due_at"], name="notice_due", condition=Q(state="waiting")),
            models.Index(fields=["channel", "-sent_at"], name="notice_by_channel"),
        ]

    def __str__(self) -> str:
        return self.title
