"""Which addresses may post, and how many failures each one has to its name."""

from __future__ import annotations

from ipaddress import ip_network
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models


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
