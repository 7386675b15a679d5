"""What fills add up to, what guards it, and what the venue says otherwise."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from brokers.fields import MoneyField
from brokers.models import Account
from brokers.prepared import Prepared, given
from execution.models.orders import Order


class Position(models.Model):
    """What our fills add up to; negative for a short."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="positions")
    symbol = models.CharField(max_length=60)
    quantity = MoneyField(default=Decimal(0))
    average_price = MoneyField(null=True, blank=True)
    realised_pnl = MoneyField(default=Decimal(0))
    fees = MoneyField(default=Decimal(0), help_text="Counted in the quote asset.")
    first_fill_id = models.BigIntegerField(
        null=True, editable=False, help_text="The first fill since it was flat."
    )
    updated_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["account", "symbol"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "symbol"], name="position_once")
        ]

    def __str__(self) -> str:
        return f"{self.quantity} {self.symbol} on {self.account.name}"

    @staticmethod
    def locked(account_id: int, symbol: str) -> Position:
        """The row, locked until the caller's transaction ends; a flat one is made if there is none."""
        if row := _locked.first(account=account_id, symbol=symbol):
            return row
        new = Position(account_id=account_id, symbol=symbol, updated_at=timezone.now())
        Position.objects.bulk_create([new], ignore_conflicts=True)
        [row] = _locked(account=account_id, symbol=symbol)
        return row


@Prepared
def _locked() -> models.QuerySet[Position]:
    mine = Position.objects.filter(account=given("account"), symbol=given("symbol"))
    return mine.order_by().select_for_update(of=("self",))


class AccountDay(models.Model):
    """How one trading day of an account began, and the best result seen in it."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="days")
    day = models.DateField()
    opening_unrealised = MoneyField(help_text="In the account's currency.")
    best = MoneyField(default=Decimal(0))

    class Meta:
        ordering: ClassVar[list[str]] = ["-day", "account"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "day"], name="account_day_once")
        ]

    def __str__(self) -> str:
        return f"{self.day} of {self.account.name}"


class EquitySample(models.Model):
    """What an account was worth at a moment, in its currency. Append-only."""

    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="samples", db_index=False
    )
    at = models.DateTimeField()
    equity = MoneyField()

    class Meta:
        ordering: ClassVar[list[str]] = ["account", "at"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account", "at"], include=["equity"], name="equity_by_time")
        ]

    def __str__(self) -> str:
        return f"{self.equity} on {self.account.name}"


class Protection(models.Model):
    """What is to guard one position: its stop at the venue, and the targets FKS watches."""

    SUSPENSION: ClassVar = timedelta(seconds=20)

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="protections")
    symbol = models.CharField(max_length=60)
    entry = models.ForeignKey(
        Order,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The latest entry whose signal named a stop loss or a take profit.",
    )
    is_active = models.BooleanField(default=True)
    stop_price = MoneyField(null=True, blank=True)
    targets = models.JSONField(
        default=list, help_text="Take profits still to be reached: price and percent, as text."
    )
    suspended_until = models.DateTimeField(
        null=True, blank=True, help_text="An exit is under way and needs the coins the stop holds."
    )
    naked_since = models.DateTimeField(null=True, blank=True)
    aligned_at = models.DateTimeField(null=True, blank=True)
    moved_at = models.DateTimeField(null=True, blank=True)
    moved_why = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="Why the stop is no longer where the alert named it.",
    )
    guard_again_at = models.DateTimeField(
        null=True, blank=True, help_text="Refusals before this moment no longer count."
    )
    watched_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When FKS last saw a price, or began to look, where the venue holds no stop.",
    )
    watched_price = MoneyField(null=True, blank=True, help_text="The price seen then.")
    passed_at = models.DateTimeField(
        null=True, blank=True, help_text="The market passed a watched stop: the position is closed."
    )
    is_doubted = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Restored from a backup: no stop is placed before the books agree.",
    )
    detail = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["account", "symbol"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "symbol"], name="protection_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["aligned_at"], name="protection_active", condition=Q(is_active=True)
            )
        ]

    def __str__(self) -> str:
        return f"protection of {self.symbol} on {self.account.name}"

    @property
    def is_suspended(self) -> bool:
        """Whether an exit has had the stop taken off; no clock set back keeps it off for longer."""
        if self.suspended_until is None:
            return False
        return timedelta(0) < self.suspended_until - timezone.now() < 2 * self.SUSPENSION

    @property
    def guard(self) -> str:
        """Whether the position is guarded now: a key of ``GUARD_COLORS``."""
        if not self.is_active:
            return "ended"
        if self.naked_since is not None:
            return "unguarded"
        return "guarded" if self.watched_at is None else "watched"


class Difference(models.Model):
    """Something a venue and our book disagree about, until an operator or the venue resolves it."""

    class Kind(models.TextChoices):
        FOREIGN_ORDER = "foreign_order", "order at the venue that is not ours"
        POSITION = "position", "position"

    class State(models.TextChoices):
        OPEN = "open", "open"
        GONE = "gone", "gone by itself"
        ADOPTED = "adopted", "adopted"
        IGNORED = "ignored", "ignored"
        FLATTENING = "flattening", "being flattened"
        FLATTENED = "flattened", "flattened"
        CANCELING = "canceling", "being cancelled at the venue"
        CANCELED = "canceled", "cancelled at the venue"

    ASKED = (State.FLATTENING, State.CANCELING)
    """States in which a worker is to do something at the venue."""

    BLOCKING = (State.OPEN, *ASKED)
    """States in which entries in the symbol are refused."""

    BEING_CLOSED = Q(state=State.FLATTENING, resolved_at__isnull=False)
    """Our book holds it by now, and the orders that close it are made."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="differences")
    symbol = models.CharField(max_length=60)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    key = models.CharField(
        max_length=100, help_text="The symbol, and of an order the venue's id behind it."
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    ours = models.CharField(max_length=100, blank=True)
    theirs = models.CharField(max_length=100, blank=True)
    average_price = MoneyField(
        null=True, blank=True, help_text="What the venue says a position cost, where it does."
    )
    rest_cost = MoneyField(
        null=True,
        editable=False,
        help_text="What a unit cost of what was flattened in part, where this is its rest.",
    )
    detail = models.TextField()
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    theirs_since = models.DateTimeField(
        null=True, editable=False, help_text="When the venue first said what it still says."
    )
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=150, blank=True)
    reason = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "kind", "key"],
                condition=Q(state__in=["open", "ignored", "flattening", "canceling"]),
                name="difference_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.symbol} on {self.account.name}"

    @property
    def is_being_closed(self) -> bool:
        """Whether it is ``BEING_CLOSED``."""
        return self.state == self.State.FLATTENING and self.resolved_at is not None

    @staticmethod
    def key_of_order(symbol: str, broker_order_id: str) -> str:
        return f"{symbol} {broker_order_id}"

    @property
    def broker_order_id(self) -> str:
        """The venue's id of an order that is not ours."""
        return self.key.removeprefix(self.key_of_order(self.symbol, ""))
