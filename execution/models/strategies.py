"""Who may send alerts, and what becomes of them."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from brokers.fields import MoneyField
from brokers.models import validate_name
from execution.alerts import Algorithm
from execution.certificates import validate_fingerprints
from execution.formats import option_problems
from risk import calendars
from risk.models import IPAllowlist

MANUAL = "manual"
"""The strategy of orders by hand: no alert comes to it, so it has neither secret nor routes."""
BUILT_IN = f"{MANUAL} is the strategy of orders by hand: it comes with the first one."
MUTE = "A strategy without a live secret cannot be enabled: nobody could post. Make one first."


def validate_market(code: str) -> None:
    """A market whose calendar is known."""
    try:
        calendars.market(code)
    except ValueError as error:
        raise ValidationError(str(error)) from error


def validate_algorithms(text: str) -> None:
    """Words for how orders are sent, with commas between them."""
    known = [one.value for one in Algorithm]
    unknown = [word for word in words_of(text) if word not in known]
    if unknown:
        raise ValidationError(f"there is no {unknown[0]!r}; known are {', '.join(known)}")


def words_of(text: str) -> list[str]:
    """What stands between the commas of ``text``."""
    return [word.strip() for word in text.split(",") if word.strip()]


def validate_zone(name: str) -> None:
    """A time zone of the IANA database."""
    try:
        ZoneInfo(name)
    except (ValueError, ZoneInfoNotFoundError, OSError) as error:
        raise ValidationError(
            f"there is no time zone {name!r}; known are names such as UTC"
        ) from error


class Strategy(models.Model):
    """A sender of alerts: it owns a webhook, its secrets, and its own rules."""

    class Auth(models.TextChoices):
        TOKEN = "token", "token in the body or path"
        HMAC = "hmac", "HMAC signature header"
        STANDARD = "standard", "Standard Webhooks signature"
        JWT = "jwt", "bearer token of a user"

    class Format(models.TextChoices):
        FKS = "fks", "FKS (canonical JSON)"
        TRADERSPOST = "traderspost", "TradersPost"
        THREECOMMAS = "3commas", "3Commas signal bot"
        OKX = "okx", "OKX signal bot"
        PINECONNECTOR = "pineconnector", "PineConnector"
        OCTOBOT = "octobot", "OctoBot"
        OPENALGO = "openalgo", "OpenAlgo"
        KEYVALUE = "keyvalue", "name=value (Autoview style)"
        MAPPING = "mapping", "a mapping of its own (below)"

    class OnNaked(models.TextChoices):
        ALARM = "alarm", "raise an alarm"
        REPLACE = "replace", "raise an alarm and place it again"
        CLOSE = "close", "raise an alarm and close the position"

    class Execution(models.TextChoices):
        WHOLE = Algorithm.WHOLE.value, "whole, as one order"
        TWAP = Algorithm.TWAP.value, "TWAP: in equal slices over a time"
        ICEBERG = (
            Algorithm.ICEBERG.value,
            "iceberg: a limit order shown in parts, one after the other",
        )
        LADDER = (
            Algorithm.LADDER.value,
            "ladder: limit orders at better and better prices, all at once",
        )

    slug = models.SlugField(max_length=63, unique=True, validators=[validate_name])
    note = models.TextField(blank=True)
    is_enabled = models.BooleanField(default=True)
    auth = models.CharField(max_length=10, choices=Auth.choices, default=Auth.TOKEN)
    format = models.CharField(max_length=20, choices=Format.choices, default=Format.FKS)
    format_options = models.JSONField(
        default=dict,
        blank=True,
        help_text="The mapping of the format “mapping”; what PineConnector's fields mean.",
    )
    allowlist = models.ForeignKey(
        IPAllowlist,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        help_text="Addresses that may post; empty means any address.",
    )
    senders = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        blank=True,
        related_name="sends_to",
        help_text="Users who may post to this strategy with a bearer token (profile jwt), beside "
        "those who may post to every one of them (permission “Can post alerts”).",
    )
    client_fingerprints = models.TextField(
        blank=True,
        validators=[validate_fingerprints],
        help_text="SHA-1 or SHA-256 fingerprints of client certificates, as a trusted proxy passes "
        "them on. With one, alerts need such a certificate besides their secret.",
    )
    client_issuer = models.CharField(
        max_length=500,
        blank=True,
        help_text="Instead of fingerprints: the issuer's name, exactly as the proxy writes it, of a "
        "certificate whose chain the proxy has verified.",
    )
    max_age = models.PositiveIntegerField(
        default=300, help_text="Seconds after which an alert is too old to open anything."
    )
    max_drift = models.DecimalField(
        max_digits=6,
        decimal_places=5,
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal(0))],
        help_text="How far the market may be from an entry's price, as a fraction: 0.005 is 0.5 %.",
    )
    allows_delayed = models.BooleanField(
        default=False,
        help_text="Trade on alerts from delayed data (exchanges ending in _DL, _DLY).",
    )
    dedupe_window = models.PositiveIntegerField(
        default=60, help_text="Seconds in which the same body without an id counts as one delivery."
    )
    min_confidence = models.DecimalField(max_digits=4, decimal_places=3, null=True, blank=True)
    requires_confidence = models.BooleanField(
        default=True, help_text="With a least confidence: refuse entries that carry none."
    )
    min_reward_risk = models.DecimalField(max_digits=6, decimal_places=2, null=True, blank=True)
    requires_reward_risk = models.BooleanField(
        default=True,
        help_text="With a least reward-to-risk: refuse entries without both a stop loss and a take "
        "profit.",
    )
    on_naked = models.CharField(
        max_length=10,
        choices=OnNaked.choices,
        default=OnNaked.REPLACE,
        help_text="What to do when a stop loss is not at the venue although it should be.",
    )
    trail_percent = models.DecimalField(
        max_digits=6,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal("0.01")), MaxValueValidator(Decimal(99))],
        help_text="The stop of a position follows the market this many percent behind it: 2 is 2 %.",
    )
    trail_distance = MoneyField(
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal("1E-18"))],
        help_text="Instead of percent: so far behind it, in the quote asset.",
    )
    trail_step = models.DecimalField(
        max_digits=6,
        decimal_places=4,
        default=Decimal("0.25"),
        db_default=Decimal("0.25"),
        validators=[MinValueValidator(Decimal(0)), MaxValueValidator(Decimal(50))],
        help_text="It is moved when that takes it at least so many percent of the price further.",
    )
    break_even_percent = models.DecimalField(
        max_digits=6,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal("0.01")), MaxValueValidator(Decimal(1000))],
        help_text="Once the market is so many percent better than the entry, the stop moves to the "
        "entry's price plus fees.",
    )
    execution = models.CharField(
        max_length=10,
        choices=Execution.choices,
        default=Execution.WHOLE,
        db_default=Execution.WHOLE.value,
        help_text="How entries are sent.",
    )
    exit_execution = models.CharField(
        max_length=10,
        choices=Execution.choices,
        default=Execution.WHOLE,
        db_default=Execution.WHOLE.value,
        help_text="How exits are sent that an alert asks for. Stop losses, targets, reversals and the "
        "kill switch always go out whole, and at once.",
    )
    allowed_executions = models.CharField(
        max_length=40,
        blank=True,
        default="",
        db_default="",
        validators=[validate_algorithms],
        help_text="What an alert may ask for in its field “execution”, with commas: whole, twap, "
        "iceberg, ladder. Empty: nothing; entries that ask are refused.",
    )
    slices = models.PositiveSmallIntegerField(
        default=10,
        db_default=10,
        validators=[MinValueValidator(2), MaxValueValidator(100)],
        help_text="How many equal slices an order is sent in; fewer where one would be too small for "
        "the venue.",
    )
    slicing_seconds = models.PositiveIntegerField(
        default=600,
        db_default=600,
        validators=[MinValueValidator(2), MaxValueValidator(86_400)],
        help_text="TWAP: the seconds the slices are spread over.",
    )
    ladder_percent = models.DecimalField(
        max_digits=6,
        decimal_places=4,
        default=Decimal("0.5"),
        db_default=Decimal("0.5"),
        validators=[MinValueValidator(Decimal("0.01")), MaxValueValidator(Decimal(50))],
        help_text="Ladder: how many percent of the alert's price each rung is better than the one "
        "before it.",
    )
    slice_quantity = MoneyField(
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal("1E-18"))],
        help_text="Iceberg: how much is shown at a time, in the base asset, instead of an equal part.",
    )
    needs_approval = models.BooleanField(
        "orders need approval",
        default=False,
        help_text="Its orders wait on the page Approvals until a person agrees, and expire if nobody "
        "does. Stop losses, targets and the kill switch never wait.",
    )
    approval_seconds = models.PositiveIntegerField(
        default=120,
        validators=[MinValueValidator(5), MaxValueValidator(86_400)],
        help_text="Seconds an order waits for approval; an entry no longer than its alert is good for.",
    )
    exits_need_approval = models.BooleanField(
        default=False, help_text="Exits wait too; else they go out at once."
    )
    most_alerts = models.PositiveIntegerField(
        null=True,
        blank=True,
        default=2000,
        validators=[MinValueValidator(1)],
        help_text="How many alerts may open positions in the time below; further ones are stored and "
        "denied as THROTTLED. Exits and cancels never are. Empty: no limit.",
    )
    most_alerts_window = models.PositiveIntegerField(
        default=180, validators=[MinValueValidator(1)], help_text="Seconds."
    )
    expects_minutes = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="An alarm is raised after so many minutes without an alert. Empty: never.",
    )
    expects_from = models.TimeField(
        null=True, blank=True, help_text="Only time within these hours counts."
    )
    expects_until = models.TimeField(null=True, blank=True)
    expects_zone = models.CharField(
        max_length=50,
        default="UTC",
        validators=[validate_zone],
        help_text="The clock these hours are read on, e.g. America/New_York: it knows summer time.",
    )
    expects_market = models.CharField(
        max_length=20,
        blank=True,
        validators=[validate_market],
        help_text="A market, e.g. XNYS: its weekends, holidays and half days do not count.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "strategies"
        ordering: ClassVar[list[str]] = ["slug"]
        permissions = (("post_alert", "Can post alerts"),)

    def __str__(self) -> str:
        return self.slug

    @property
    def asks_confidence(self) -> bool:
        """Whether an entry without a confidence is refused."""
        return self.requires_confidence and self.min_confidence is not None

    @property
    def is_manual(self) -> bool:
        """Whether it stands for the orders by hand."""
        return self.slug == MANUAL

    @property
    def needs_secret(self) -> bool:
        """Whether nobody can post to it without a secret of its own."""
        return self.auth != self.Auth.JWT and not self.is_manual

    @property
    def live_secrets(self) -> models.QuerySet[WebhookSecret]:
        """Its secrets that have not ended."""
        unexpired = Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())
        return WebhookSecret.objects.filter(unexpired, strategy_id=self.pk)

    @property
    def alerts_may_ask(self) -> frozenset[str]:
        """What an alert may choose for itself."""
        return frozenset(words_of(self.allowed_executions))

    def refuse_impossible(self, algorithms: Collection[str]) -> None:
        """Raise ValidationError where the strategy's numbers cannot be carried out by one of
        ``algorithms``.
        """
        if Algorithm.TWAP in algorithms and self.slicing_seconds < self.slices:
            often = f"{self.slices} slices in {self.slicing_seconds} s: at most one a second"
            raise ValidationError({"slicing_seconds": often})
        lowest = self.ladder_percent * (self.slices - 1)
        if Algorithm.LADDER in algorithms and lowest >= 100:
            depth = f"{self.slices} rungs {self.ladder_percent} % apart reach {lowest} % down"
            raise ValidationError({"ladder_percent": f"{depth}: below nothing"})

    def clean(self) -> None:
        if self._state.adding and self.is_manual:
            raise ValidationError({"slug": BUILT_IN})
        must_have = self.is_enabled and self.needs_secret and not self._state.adding
        if must_have and not self.live_secrets.exists():
            raise ValidationError({"is_enabled": MUTE})
        both = ("execution", "exit_execution")
        routes = () if self._state.adding else self.routes.values_list(*both)
        by_routes = {one for pair in routes for one in pair}
        own = {self.execution, self.exit_execution}
        self.refuse_impossible(own | self.alerts_may_ask | by_routes)
        if self.trail_percent is not None and self.trail_distance is not None:
            raise ValidationError({"trail_distance": "a stop trails by percent or by a distance"})
        if found := option_problems(self.format, self.format_options):
            raise ValidationError({"format_options": found})


class WebhookSecret(models.Model):
    """One live secret of a strategy. Two may be live while one is being replaced."""

    strategy = models.ForeignKey(Strategy, on_delete=models.CASCADE, related_name="secrets")
    profile = models.CharField(max_length=10, choices=Strategy.Auth.choices)
    digest = models.CharField(max_length=64, blank=True, editable=False)
    sealed = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=~Q(digest="") | ~Q(sealed=""), name="webhook_secret_not_empty"
            )
        ]

    def __str__(self) -> str:
        return f"{self.profile} secret of {self.strategy.slug}"
