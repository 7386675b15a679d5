"""Accounts at venues, and what logs in there."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from brokers import crypto
from brokers.errors import ConfigurationError
from brokers.fields import MoneyField
from brokers.registry import registry
from brokers.types import AccountConfig, Environment, LoginTerms

if TYPE_CHECKING:
    from brokers.venue_logins import LoginState

NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")


def validate_name(value: str) -> None:
    if not NAME.match(value):
        raise ValidationError(
            "use 1 to 63 lowercase letters, digits, '-' and '_', starting with a letter or digit"
        )


def validate_zone(value: str) -> None:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationError(f"{value!r} is not a time zone such as Europe/Zurich") from error


def broker_choices() -> list[tuple[str, str]]:
    return [(name, name) for name in registry().names()]


class Account(models.Model):
    """One account at one venue. Orders are placed only on active accounts."""

    class Environment(models.TextChoices):
        DRY_RUN = Environment.DRY_RUN.value, "dry run"
        SANDBOX = Environment.SANDBOX.value, "sandbox"
        LIVE = Environment.LIVE.value, "live"

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    broker = models.CharField(max_length=40, choices=broker_choices)
    environment = models.CharField(
        max_length=10, choices=Environment.choices, default=Environment.DRY_RUN
    )
    quote_currency = models.CharField(
        max_length=10, default="USDT", help_text="The currency limits and equity are counted in."
    )
    day_zone = models.CharField(
        max_length=40,
        default="UTC",
        validators=[validate_zone],
        help_text="Time zone of the account's trading day, e.g. America/New_York.",
    )
    day_starts = models.TimeField(default=time(), help_text="When that day begins, by its clock.")
    options = models.JSONField(default=dict, blank=True)
    maker_fee = models.DecimalField(
        max_digits=7,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="What its venue charges for orders that rest, as a fraction: 0.001 is 0.1 %, less "
        "than 0 for a rebate. Empty: what the venue commonly charges.",
    )
    taker_fee = models.DecimalField(
        max_digits=7,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="The same for orders that trade at once. Both are for comparing accounts only.",
    )
    is_active = models.BooleanField(default=True)
    is_key_refused = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="Its key may withdraw: nothing is opened with it.",
    )
    version = models.PositiveIntegerField(
        default=1, editable=False, help_text="Grows with every change, so that workers reconnect."
    )
    equity = MoneyField(null=True, blank=True, editable=False)
    balances = models.JSONField(default=dict, blank=True, editable=False)
    balances_at = models.DateTimeField(null=True, blank=True, editable=False)
    reconciled_at = models.DateTimeField(null=True, blank=True, editable=False)
    funding_read_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk and not kwargs.get("update_fields"):
            self.version += 1
        super().save(*args, **kwargs)

    @property
    def venue(self) -> str:
        """The exchange behind the broker where there is one, else the broker: a metrics label."""
        return str(self.options.get("exchange", self.broker))

    @property
    def agent(self) -> str:
        """Host and port of the bridge agent it is reached through; empty where there is none."""
        _, _, rest = str(self.options.get("url", "")).partition("://")
        return rest.partition("/")[0].lower()

    def login_terms(self) -> LoginTerms | None:
        """How a person logs it in at its venue; ``None`` where nobody has to, or where plugin or
        options are not such that anybody could."""
        try:
            return registry().get(self.broker).login_terms(self.options)
        except ConfigurationError:
            return None

    @property
    def venue_login(self) -> LoginState | None:
        """How the log-in at its venue stands; ``None`` where nobody has to log in."""
        from brokers.venue_logins import state_of

        return state_of(self)

    def config(self) -> AccountConfig:
        """Everything a plugin may know; decrypts the credentials. Raises crypto.DecryptionError."""
        from brokers.quote_sources import QuotesOf
        from brokers.venue_logins import StoredTokens

        source = self.options.get("quotes_from")
        credential = ExchangeCredential.objects.filter(account=self).first()
        return AccountConfig(
            key=str(self.pk),
            name=self.name,
            environment=Environment(self.environment),
            options=dict(self.options),
            credentials=credential.reveal() if credential else {},
            tokens=StoredTokens(self.pk) if self.login_terms() else None,
            quotes=QuotesOf(str(source)) if source else None,
        )


class AccountRestriction(models.Model):
    """Somebody who works with some accounts only. While none is named, with none at all."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="account_restriction"
    )
    accounts = models.ManyToManyField(Account, blank=True, related_name="+")

    def __str__(self) -> str:
        return f"accounts of {self.user}"


class ExchangeCredential(models.Model):
    """The API key of an account, encrypted and bound to this row. Write-only: nothing shows it
    again.
    """

    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="credential")
    sealed = models.TextField(editable=False)
    hint = models.CharField(
        max_length=12, blank=True, editable=False, help_text="The last four characters of the key."
    )
    updated_at = models.DateTimeField(auto_now=True)
    may_trade = models.BooleanField(null=True, editable=False)
    may_withdraw = models.BooleanField(null=True, editable=False)
    ip_restricted = models.BooleanField(null=True, editable=False)
    told = models.CharField(max_length=200, blank=True, db_default="", editable=False)
    asked_at = models.DateTimeField(null=True, editable=False)
    checked_at = models.DateTimeField(
        null=True, editable=False, help_text="When the venue last told what the key may do."
    )
    change = models.CharField(max_length=200, blank=True, db_default="", editable=False)
    changed_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "exchange credential"

    def __str__(self) -> str:
        return f"credential of {self.account.name} ({self.hint or 'no key'})"

    @property
    def binding(self) -> str:
        """What the token is bound to: it opens in this row only."""
        return f"exchange credential of account {self.account_id}"

    def seal(self, values: dict[str, str]) -> None:
        """Encrypt ``values`` into the row, about which nothing is known yet; the caller saves it."""
        self.sealed = crypto.encrypt(values, bound_to=self.binding)
        self.may_trade = self.may_withdraw = self.ip_restricted = None
        self.told = self.change = ""
        self.asked_at = self.checked_at = self.changed_at = None
        key = values.get("api_key", "")
        self.hint = f"…{key[-4:]}" if len(key) >= 12 else ""

    def reveal(self) -> dict[str, str]:
        """The plain values, for a plugin only. Raises crypto.DecryptionError."""
        return crypto.decrypt(self.sealed, bound_to=self.binding)


class AccountLogin(models.Model):
    """A person's log-in of an account at its venue: its tokens, encrypted and bound to this row."""

    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="login")
    sealed = models.TextField(editable=False)
    access_until = models.DateTimeField(editable=False)
    ends_at = models.DateTimeField(editable=False)
    refused_at = models.DateTimeField(null=True, editable=False)
    refusal = models.CharField(max_length=200, blank=True, editable=False)

    def __str__(self) -> str:
        return f"log-in of {self.account.name}"

    @property
    def binding(self) -> str:
        """What the tokens are bound to: they open in this row only."""
        return f"log-in of account {self.account_id}"

    def seal(self, access: str, refresh: str) -> None:
        """Encrypt the tokens into the row; the caller saves it."""
        self.sealed = crypto.encrypt({"access": access, "refresh": refresh}, bound_to=self.binding)

    def reveal(self) -> dict[str, str]:
        """``access`` and ``refresh``. Raises crypto.DecryptionError."""
        return crypto.decrypt(self.sealed, bound_to=self.binding)

    @property
    def left(self) -> timedelta:
        """How long it still works; zero once it has ended or the venue has refused it."""
        now: datetime = timezone.now()
        return timedelta(0) if self.refused_at else max(self.ends_at - now, timedelta(0))
