"""Limits, switches, breakers, allowlists and the audit trail: what operators set, and what was
done.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import ClassVar
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from brokers.fields import MoneyField
from brokers.models import Account
from risk.channels import Channel as Channel  # Django looks for an app's models here
from risk.channels import Notice as Notice
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
        return f"{self.key or 'everything'}: {self.get_state_display()}"


class IPAllowlist(models.Model):
    """A named set of networks. A strategy that uses an empty one refuses every address."""

    name = models.CharField(max_length=63, unique=True)
    note = models.TextField(blank=True)

    class Meta:
        verbose_name = "IP allowlist"
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


def validate_network(value: str) -> None:
    """A CIDR network without host bits; says which network was probably meant."""
    try:
        ip_network(value)
    except ValueError as error:
        try:
            meant = ip_network(value, strict=False)
        except ValueError:
            raise ValidationError(f"{value!r} is not an address or network: {error}") from error
        raise ValidationError(f"{value} has host bits set; did you mean {meant}?") from error
    if ip_network(value).prefixlen == 0:
        raise ValidationError(f"{value} is the whole internet; use no allowlist instead")


class AllowedNetwork(models.Model):
    """One network of an allowlist."""

    allowlist = models.ForeignKey(IPAllowlist, on_delete=models.CASCADE, related_name="networks")
    cidr = models.CharField(max_length=43, validators=[validate_network])
    note = models.CharField(max_length=200, blank=True)
    hits = models.PositiveBigIntegerField(
        default=0, editable=False, help_text="Requests from here, written every half minute."
    )
    last_hit_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["cidr"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["allowlist", "cidr"], name="network_once_per_allowlist")
        ]

    def __str__(self) -> str:
        return self.cidr


class RateLimit(models.Model):
    """How many failed attempts an address has. One row; without it the defaults hold.

    Only failures count: whoever authenticates is never refused for the rate of others.
    """

    requests = models.PositiveIntegerField(
        default=100,
        validators=[MinValueValidator(1)],
        help_text="Failed webhook deliveries of one address that are answered 401, in the time below.",
    )
    window = models.PositiveIntegerField(
        default=60, validators=[MinValueValidator(1)], help_text="Seconds."
    )
    burst = models.PositiveIntegerField(default=10, help_text="How many more may come at once.")
    lockout_after = models.PositiveIntegerField(
        default=300,
        help_text="Failures without a pause after which an address is locked; 0 never locks.",
    )
    lockout_seconds = models.PositiveIntegerField(
        default=60, validators=[MinValueValidator(1)], help_text="How long the first lock-out is."
    )
    lockout_doubles = models.BooleanField(
        default=True, help_text="Each further lock-out of an address within a day is twice as long."
    )
    longest_lockout = models.PositiveIntegerField(default=3600, help_text="Seconds.")
    login_failures = models.PositiveIntegerField(
        default=20,
        validators=[MinValueValidator(1)],
        help_text="Failed logins of one address, whatever the names, in 15 minutes.",
    )

    class Meta:
        verbose_name = "rate limit"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(pk=1), name="one_rate_limit"),
            models.CheckConstraint(
                condition=models.Q(requests__gt=0, window__gt=0, login_failures__gt=0),
                name="rate_limit_refills",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.requests} in {self.window} s, {self.burst} at once"


class ClientAddress(models.Model):
    """The failures of one client address at one door: its bucket, and its lock-out if it has one."""

    class Door(models.TextChoices):
        WEBHOOK = "webhook", "webhook"
        LOGIN = "login", "login"

    door = models.CharField(max_length=10, choices=Door.choices)
    network = models.CharField(max_length=43, help_text="An IPv4 address or an IPv6 /64.")
    tokens = models.DecimalField(max_digits=16, decimal_places=6)
    is_empty = models.BooleanField(default=False)
    failures = models.PositiveIntegerField(default=0, help_text="Without a pause.")
    lockouts = models.PositiveIntegerField(default=0)
    locked_until = models.DateTimeField(null=True)
    updated_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "client addresses"
        ordering: ClassVar[list[str]] = ["-updated_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["door", "network"], name="client_address_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["updated_at"], name="client_address_by_time")
        ]

    def __str__(self) -> str:
        return f"{self.network} ({self.door})"


class AuditEvent(models.Model):
    """Who did what to what, when, from where and why. Append-only: rows are never changed.

    ``risk.sealing`` fills the last three columns once; then the database itself refuses changes.
    """

    at = models.DateTimeField(db_index=True)
    kind = models.CharField(max_length=60)
    actor = models.CharField(max_length=150)
    address = models.CharField(max_length=45, blank=True)
    correlation_id = models.CharField(max_length=40, blank=True)
    subject = models.CharField(
        max_length=120, help_text="What was changed, e.g. limit max_order_value."
    )
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.TextField(blank=True)
    position = models.BigIntegerField(
        null=True, unique=True, editable=False, help_text="Place in the chain; empty until sealed."
    )
    previous = models.CharField(max_length=64, blank=True, editable=False)
    hash = models.CharField(max_length=64, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["kind", "-id"], name="audit_by_kind"),
            models.Index(fields=["actor", "-id"], name="audit_by_actor"),
            models.Index(fields=["id"], name="audit_unsealed", condition=models.Q(position=None)),
            models.Index(
                fields=["correlation_id"],
                name="audit_by_correlation",
                condition=~models.Q(correlation_id=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} by {self.actor}"


class AuditChain(models.Model):
    """The one row that says where the chain of sealed events ends."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    position = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64)
    sealed_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(id=1), name="audit_chain_is_one")
        ]

    def __str__(self) -> str:
        return f"{self.position} events sealed"


class Safeguards(models.Model):
    """The one row of rules for the people: when one of them is not enough, and how they prove it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    two_person = models.BooleanField(
        "two-person rule",
        default=False,
        help_text="What loosens a safeguard waits for another person's approval.",
    )
    proposal_hours = models.PositiveIntegerField(
        default=24, help_text="Hours after which a proposal nobody decided on expires."
    )
    second_factor = models.BooleanField(
        "second factor required",
        default=False,
        help_text="Nobody works here without a one-time code. Who has one set up is always asked.",
    )

    class Meta:
        verbose_name_plural = "safeguards"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(id=1), name="safeguards_are_one"),
            models.CheckConstraint(
                condition=models.Q(proposal_hours__gte=1), name="proposals_live_an_hour"
            ),
        ]

    def __str__(self) -> str:
        return "safeguards"

    @classmethod
    def current(cls) -> Safeguards:
        """The row, or what holds without one."""
        return cls.objects.first() or cls()


class Proposal(models.Model):
    """A change that waits for another person. Never edited: a new one of the same thing ends it."""

    class State(models.TextChoices):
        OPEN = "open", "open"
        APPROVED = "approved", "approved"
        REJECTED = "rejected", "rejected"
        EXPIRED = "expired", "expired"
        SUPERSEDED = "superseded", "superseded"
        OUTDATED = "outdated", "outdated"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    kind = models.CharField(max_length=30)
    subject = models.CharField(max_length=200)
    payload = models.JSONField(help_text="What is to be done, without secrets.")
    sealed = models.TextField(blank=True, editable=False)
    before = models.JSONField()
    after = models.JSONField()
    reason = models.TextField()
    proposed_by = models.CharField(max_length=150)
    proposed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    decided_by = models.CharField(max_length=150, blank=True)
    decided_at = models.DateTimeField(null=True)
    note = models.TextField(blank=True, help_text="What the person who decided said.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-proposed_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=models.Q(state="open"),
                name="one_open_proposal_of_a_thing",
            )
        ]

    def __str__(self) -> str:
        return self.subject


class SecondFactor(models.Model):
    """A person's key for one-time codes, encrypted and bound to them."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="second_factor"
    )
    sealed = models.TextField(editable=False)
    is_confirmed = models.BooleanField(default=False)
    last_step = models.BigIntegerField(
        default=0, help_text="The latest code used: none works twice."
    )
    failures = models.PositiveIntegerField(default=0)
    locked_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"second factor of {self.user}"


class SignOut(models.Model):
    """When a person was last signed out everywhere: tokens made before are not renewed."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sign_out"
    )
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.user} at {self.at}"


class RecoveryCode(models.Model):
    """A code that opens once when the telephone is lost. Only its digest is stored."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recovery_codes"
    )
    digest = models.CharField(max_length=64, editable=False)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["user", "digest"], name="recovery_code_once")
        ]

    def __str__(self) -> str:
        return f"recovery code of {self.user}"
