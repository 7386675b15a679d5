"""Orders with their journal and their fills."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models import Case, F, Q, When

from brokers.fields import MoneyField
from brokers.models import Account
from brokers.types import OrderType, Side, TimeInForce
from execution.ids import uuid7
from execution.models.signals import Signal
from execution.models.strategies import Strategy
from execution.states import TERMINAL, OrderState


class SideChoices(models.TextChoices):
    BUY = Side.BUY.value, "buy"
    SELL = Side.SELL.value, "sell"


class TypeChoices(models.TextChoices):
    MARKET = OrderType.MARKET.value, "market"
    LIMIT = OrderType.LIMIT.value, "limit"
    STOP = OrderType.STOP.value, "stop"
    STOP_LIMIT = OrderType.STOP_LIMIT.value, "stop limit"
    TRAILING_STOP = OrderType.TRAILING_STOP.value, "trailing stop"


class TimeInForceChoices(models.TextChoices):
    GTC = TimeInForce.GTC.value, "good till canceled"
    IOC = TimeInForce.IOC.value, "immediate or cancel"
    FOK = TimeInForce.FOK.value, "fill or kill"
    DAY = TimeInForce.DAY.value, "day"


IMMEDIATE = Q(type=OrderType.MARKET.value) | Q(
    time_in_force__in=(TimeInForce.IOC.value, TimeInForce.FOK.value)
)
"""Orders that never rest: at the venue they are only on their way to an end."""

SIGNED = Case(When(side=Side.BUY.value, then=F("quantity")), default=-F("quantity"))
"""The quantity of a fill; negative for a sale."""

COUNTED = Q(parent__isnull=True) | ~Q(parent__state=OrderState.SLICING)
"""Orders that count with what is left of them: while an order is worked in slices it counts with the
whole of it, and its slices do not."""


class Order(models.Model):
    """One order for one account. Its id is its identity at the venue, made before anything is sent."""

    class Role(models.TextChoices):
        ENTRY = "entry", "entry"
        EXIT = "exit", "exit"
        STOP_LOSS = "stop_loss", "stop loss"
        FLATTEN = "flatten", "flatten"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    signal = models.ForeignKey(
        Signal, on_delete=models.PROTECT, null=True, blank=True, related_name="orders"
    )
    strategy = models.ForeignKey(
        Strategy,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="orders",
        db_index=False,
    )
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="orders", db_index=False
    )
    parent = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="slices",
        help_text="The order this is a slice of.",
    )
    slice_number = models.PositiveSmallIntegerField(null=True, blank=True)
    symbol = models.CharField(max_length=60)
    side = models.CharField(max_length=4, choices=SideChoices.choices)
    type = models.CharField(max_length=20, choices=TypeChoices.choices)
    role = models.CharField(max_length=10, choices=Role.choices)
    quantity = MoneyField(default=Decimal(0))
    price = MoneyField(null=True, blank=True)
    stop_price = MoneyField(null=True, blank=True)
    trailing_percent = MoneyField(null=True, blank=True)
    time_in_force = models.CharField(
        max_length=3, choices=TimeInForceChoices.choices, default=TimeInForceChoices.GTC
    )
    post_only = models.BooleanField(default=False)
    reduce_only = models.BooleanField(default=False)
    reverses = models.BooleanField(
        default=False,
        help_text="The signal opens the other side once this has closed the position.",
    )
    reference_price = MoneyField(null=True, help_text="The price risk judged the order by.")
    attached_stop = MoneyField(
        null=True, blank=True, help_text="The stop loss the venue got together with this entry."
    )
    attached_client_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    reserved_value = MoneyField(
        default=Decimal(0), help_text="Its worst case in the account's currency."
    )

    state = models.CharField(max_length=20, choices=OrderState.choices, default=OrderState.PENDING)
    reason = models.CharField(max_length=40, blank=True)
    detail = models.TextField(blank=True)
    verdicts = models.JSONField(default=list, help_text="Each risk rule's answer with its numbers.")
    sizing = models.JSONField(default=list, help_text="The size arithmetic, step by step.")

    cancel_reason = models.CharField(
        max_length=40, blank=True, help_text="Set while somebody wants it cancelled: why."
    )
    cancel_asked_by = models.CharField(max_length=150, blank=True)

    client_order_id = models.CharField(max_length=64, unique=True)
    broker_order_id = models.CharField(max_length=100, blank=True)
    is_adopted = models.BooleanField(
        default=False,
        db_default=False,
        help_text="An operator found it at the venue, where it carries no id of ours: it is asked for "
        "by the venue's id alone.",
    )
    filled_quantity = MoneyField(default=Decimal(0))
    average_price = MoneyField(null=True, blank=True)

    attempt = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    submitted_at = models.DateTimeField(null=True)
    acknowledged_at = models.DateTimeField(null=True)
    settle_at = models.DateTimeField(null=True)
    unknown_since = models.DateTimeField(
        null=True, help_text="Since when nobody knows its fate, or the venue hides fills of it."
    )
    unanswered_since = models.DateTimeField(
        null=True, help_text="Since when the venue, asked, has not answered about it."
    )
    looks = models.PositiveSmallIntegerField(
        default=0, help_text="Times it was provably not found."
    )
    polls = models.PositiveIntegerField(default=0)
    next_check_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(
        null=True, help_text="Not sent after this moment; exits have none."
    )
    approve_by = models.DateTimeField(
        null=True, help_text="It waited, or waits, for a person's approval until then."
    )
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        permissions = (("approve_order", "Can approve orders"),)
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "symbol"],
                condition=Q(state="submitting"),
                name="one_submission_per_lane",
            ),
            models.UniqueConstraint(
                fields=["signal", "account", "role"],
                condition=Q(role__in=["entry", "exit"], parent__isnull=True),
                name="one_order_per_signal_leg",
            ),
            models.UniqueConstraint(
                fields=["parent", "slice_number"],
                condition=Q(parent__isnull=False),
                name="slice_once",
            ),
            models.CheckConstraint(
                condition=Q(quantity__gt=Decimal(0)) | Q(state="denied"),
                name="order_quantity_positive",
            ),
            models.CheckConstraint(
                condition=Q(filled_quantity__gte=Decimal(0), filled_quantity__lte=F("quantity")),
                name="order_filled_within_quantity",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["account", "symbol", "state"],
                name="order_lane",
                condition=~Q(state__in=sorted(TERMINAL)),
            ),
            models.Index(
                fields=["next_check_at"],
                name="order_due",
                condition=Q(next_check_at__isnull=False),
            ),
            models.Index(fields=["state", "-id"], name="order_by_state"),
            models.Index(fields=["account", "-id"], name="order_by_account"),
            models.Index(fields=["strategy", "-id"], name="order_by_strategy"),
            models.Index(fields=["type", "-id"], name="order_by_type", condition=~Q(type="market")),
            models.Index(
                fields=["account", "-submitted_at"],
                name="order_by_submission",
                condition=Q(submitted_at__isnull=False),
            ),
            models.Index(fields=["broker_order_id"], name="order_by_broker_id"),
            models.Index(
                fields=["symbol"], opclasses=["varchar_pattern_ops"], name="order_by_symbol"
            ),
            models.Index(
                fields=["account"],
                name="order_cancel_wanted",
                condition=~Q(cancel_reason="") & ~Q(state__in=sorted(TERMINAL)),
            ),
            models.Index(
                fields=["attached_client_id"],
                name="order_by_attached_id",
                condition=~Q(attached_client_id=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.side} {self.quantity} {self.symbol} on {self.account.name}"

    @property
    def identity(self) -> str:
        return self.id.hex

    @property
    def is_exit(self) -> bool:
        """Whether it can only reduce a position; a stop loss does."""
        return self.role != Order.Role.ENTRY

    @property
    def came_attached(self) -> bool:
        """Whether it is a stop loss that left with its entry, never sent by itself."""
        is_stop = self.role == Order.Role.STOP_LOSS
        return is_stop and self.submitted_at is not None and self.attempt == 0

    @property
    def is_immediate(self) -> bool:
        """Whether it never rests, as ``IMMEDIATE`` says."""
        immediate = (TimeInForce.IOC, TimeInForce.FOK)
        return self.type == OrderType.MARKET or self.time_in_force in immediate

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled_quantity


class OrderEvent(models.Model):
    """One line of an order's journal: a move with its evidence. Append-only."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="journal")
    at = models.DateTimeField()
    event = models.CharField(max_length=40)
    from_state = models.CharField(max_length=20, blank=True)
    to_state = models.CharField(max_length=20)
    attempt = models.PositiveSmallIntegerField(default=0)
    actor = models.CharField(max_length=150)
    detail = models.TextField(blank=True)
    evidence = models.JSONField(default=dict)

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["at"], name="cancel_by_time", condition=Q(event="cancel_sent"))
        ]

    def __str__(self) -> str:
        return f"{self.event}: {self.from_state} → {self.to_state}"


class Fill(models.Model):
    """One trade, once: (account, symbol, trade id) is unique; some venues count per symbol."""

    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="fills", db_index=False
    )
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="fills")
    trade_id = models.CharField(max_length=100)
    symbol = models.CharField(max_length=60)
    side = models.CharField(max_length=4, choices=SideChoices.choices)
    quantity = MoneyField()
    price = MoneyField()
    fee = MoneyField(default=Decimal(0))
    fee_currency = models.CharField(max_length=20, blank=True)
    fee_value = MoneyField(
        null=True,
        blank=True,
        help_text="In the quote asset, of a fee in a third coin, in the base of a contract, or of a "
        "future; empty where no price was known: then the fee is not counted.",
    )
    realised_pnl = MoneyField(default=Decimal(0), help_text="In the quote asset, fees taken off.")
    at = models.DateTimeField(help_text="When the venue says it traded.")
    recorded_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["trade_id", "account", "symbol"], name="trade_once_per_symbol"
            ),
            models.CheckConstraint(
                condition=Q(quantity__gt=Decimal(0), price__gt=Decimal(0)),
                name="fill_numbers_positive",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["account", "-recorded_at"], include=["realised_pnl"], name="fill_results"
            ),
            models.Index(fields=["account", "-id"], name="fill_by_account"),
            models.Index(
                fields=["symbol"], opclasses=["varchar_pattern_ops"], name="fill_by_symbol"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.side} {self.quantity} {self.symbol} at {self.price}"
