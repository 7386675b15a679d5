"""Strategies and what happened: signals, orders with their journal, fills, positions."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from brokers.fields import MoneyField
from brokers.models import Account, validate_name
from brokers.types import OrderType, Side, TimeInForce
from execution.ids import uuid7
from execution.states import TERMINAL, OrderState, SignalState
from risk.models import IPAllowlist
from risk.types import SizingMethod


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


class Strategy(models.Model):
    """A sender of alerts: it owns a webhook, its secrets, and its own rules."""

    class Auth(models.TextChoices):
        TOKEN = "token", "token in the body or path"
        HMAC = "hmac", "HMAC signature header"

    class Format(models.TextChoices):
        FKS = "fks", "FKS (canonical JSON)"

    class OnNaked(models.TextChoices):
        ALARM = "alarm", "raise an alarm"
        REPLACE = "replace", "raise an alarm and place it again"
        CLOSE = "close", "raise an alarm and close the position"

    slug = models.SlugField(max_length=63, unique=True, validators=[validate_name])
    note = models.TextField(blank=True)
    is_enabled = models.BooleanField(default=True)
    auth = models.CharField(max_length=10, choices=Auth.choices, default=Auth.TOKEN)
    format = models.CharField(max_length=20, choices=Format.choices, default=Format.FKS)
    allowlist = models.ForeignKey(
        IPAllowlist,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        help_text="Addresses that may post; empty means any address.",
    )
    max_age = models.PositiveIntegerField(
        default=300, help_text="Seconds after which an alert is too old to open anything."
    )
    dedupe_window = models.PositiveIntegerField(
        default=60, help_text="Seconds in which the same body without an id counts as one delivery."
    )
    min_confidence = models.DecimalField(max_digits=4, decimal_places=3, null=True, blank=True)
    requires_confidence = models.BooleanField(
        default=False, help_text="Refuse entries that carry no confidence."
    )
    min_reward_risk = models.DecimalField(max_digits=6, decimal_places=2, null=True, blank=True)
    requires_reward_risk = models.BooleanField(
        default=False, help_text="Refuse entries without both a stop loss and a take profit."
    )
    on_naked = models.CharField(
        max_length=10,
        choices=OnNaked.choices,
        default=OnNaked.REPLACE,
        help_text="What to do when a stop loss is not at the venue although it should be.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "strategies"
        ordering: ClassVar[list[str]] = ["slug"]

    def __str__(self) -> str:
        return self.slug


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


class Route(models.Model):
    """Where a strategy's orders go, and how large they are there."""

    class Sizing(models.TextChoices):
        FIXED_QUANTITY = SizingMethod.FIXED_QUANTITY.value, "fixed quantity"
        FIXED_PERCENT = SizingMethod.FIXED_PERCENT.value, "fixed percent of equity"
        RISK = SizingMethod.RISK.value, "risk from the stop distance"
        ATR = SizingMethod.ATR.value, "risk from the ATR"

    strategy = models.ForeignKey(Strategy, on_delete=models.CASCADE, related_name="routes")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="routes")
    is_enabled = models.BooleanField(default=True)
    sizing = models.CharField(max_length=20, choices=Sizing.choices, default=Sizing.FIXED_QUANTITY)
    quantity = MoneyField(
        null=True, blank=True, help_text="For fixed quantity, when the alert names none."
    )
    percent = models.DecimalField(
        max_digits=9,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="Fraction of equity: 0.02 is 2 %.",
    )
    atr_multiple = models.DecimalField(max_digits=6, decimal_places=2, null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["strategy", "account"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["strategy", "account"], name="route_once"),
            models.CheckConstraint(
                condition=Q(quantity__isnull=True) | Q(quantity__gt=Decimal(0)),
                name="route_quantity_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.strategy.slug} → {self.account.name}"


class Signal(models.Model):
    """One accepted alert. Committed before the sender is answered; never deleted by trading."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    strategy = models.ForeignKey(Strategy, on_delete=models.PROTECT, related_name="signals")
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
            models.Index(fields=["state", "-id"], name="signal_by_state"),
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
    """An authenticated delivery that could not be read. Nothing was traded on it."""

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

    def __str__(self) -> str:
        return f"{self.strategy.slug} {self.code}"


class Order(models.Model):
    """One order for one account. Its id is its identity at the venue, made before anything is sent."""

    class Role(models.TextChoices):
        ENTRY = "entry", "entry"
        EXIT = "exit", "exit"
        STOP_LOSS = "stop_loss", "stop loss"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    signal = models.ForeignKey(
        Signal, on_delete=models.PROTECT, null=True, blank=True, related_name="orders"
    )
    strategy = models.ForeignKey(
        Strategy, on_delete=models.PROTECT, null=True, blank=True, related_name="orders"
    )
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="orders")
    symbol = models.CharField(max_length=60)
    side = models.CharField(max_length=4, choices=SideChoices.choices)
    type = models.CharField(max_length=20, choices=TypeChoices.choices)
    role = models.CharField(max_length=10, choices=Role.choices)
    quantity = MoneyField(default=Decimal(0))
    price = MoneyField(null=True, blank=True)
    stop_price = MoneyField(null=True, blank=True)
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
    reserved_value = MoneyField(
        default=Decimal(0), help_text="Its worst case in the account's currency."
    )

    state = models.CharField(max_length=20, choices=OrderState.choices, default=OrderState.PENDING)
    reason = models.CharField(max_length=40, blank=True)
    detail = models.TextField(blank=True)
    verdicts = models.JSONField(default=list, help_text="Each risk rule's answer with its numbers.")
    sizing = models.JSONField(default=list, help_text="The size arithmetic, step by step.")

    client_order_id = models.CharField(max_length=64, unique=True)
    broker_order_id = models.CharField(max_length=100, blank=True)
    filled_quantity = MoneyField(default=Decimal(0))
    average_price = MoneyField(null=True, blank=True)

    attempt = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    submitted_at = models.DateTimeField(null=True)
    acknowledged_at = models.DateTimeField(null=True)
    settle_at = models.DateTimeField(null=True)
    unknown_since = models.DateTimeField(null=True)
    looks = models.PositiveSmallIntegerField(
        default=0, help_text="Times it was provably not found."
    )
    polls = models.PositiveIntegerField(default=0)
    next_check_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(
        null=True, help_text="Not sent after this moment; exits have none."
    )
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "symbol"],
                condition=Q(state="submitting"),
                name="one_submission_per_lane",
            ),
            models.UniqueConstraint(
                fields=["signal", "account", "role"],
                condition=Q(role__in=["entry", "exit"]),
                name="one_order_per_signal_leg",
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
            models.Index(fields=["broker_order_id"], name="order_by_broker_id"),
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

    def __str__(self) -> str:
        return f"{self.event}: {self.from_state} → {self.to_state}"


class Fill(models.Model):
    """One trade, once: (account, trade id) is unique."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="fills")
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="fills")
    trade_id = models.CharField(max_length=100)
    symbol = models.CharField(max_length=60)
    side = models.CharField(max_length=4, choices=SideChoices.choices)
    quantity = MoneyField()
    price = MoneyField()
    fee = MoneyField(default=Decimal(0))
    fee_currency = models.CharField(max_length=20, blank=True)
    realised_pnl = MoneyField(default=Decimal(0), help_text="In the quote asset, fees taken off.")
    at = models.DateTimeField(help_text="When the venue says it traded.")
    recorded_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "trade_id"], name="trade_once_per_account"),
            models.CheckConstraint(
                condition=Q(quantity__gt=Decimal(0), price__gt=Decimal(0)),
                name="fill_numbers_positive",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account", "-recorded_at"], name="fill_by_account")
        ]

    def __str__(self) -> str:
        return f"{self.side} {self.quantity} {self.symbol} at {self.price}"


class Position(models.Model):
    """What our fills add up to; negative for a short."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="positions")
    symbol = models.CharField(max_length=60)
    quantity = MoneyField(default=Decimal(0))
    average_price = MoneyField(null=True, blank=True)
    realised_pnl = MoneyField(default=Decimal(0))
    fees = MoneyField(default=Decimal(0), help_text="Counted in the quote asset.")
    updated_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["account", "symbol"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "symbol"], name="position_once")
        ]

    def __str__(self) -> str:
        return f"{self.quantity} {self.symbol} on {self.account.name}"


class Protection(models.Model):
    """What is to guard one position: its stop at the venue, and the targets FKS watches."""

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
    alarmed_at = models.DateTimeField(null=True, blank=True)
    aligned_at = models.DateTimeField(null=True, blank=True)
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

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="differences")
    symbol = models.CharField(max_length=60)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    key = models.CharField(max_length=100, help_text="The venue's order id, or the symbol.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    ours = models.CharField(max_length=100, blank=True)
    theirs = models.CharField(max_length=100, blank=True)
    detail = models.TextField()
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=150, blank=True)
    reason = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "kind", "key"],
                condition=Q(state__in=["open", "ignored"]),
                name="difference_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.symbol} on {self.account.name}"


class Heartbeat(models.Model):
    """When a part of FKS last proved to be alive (worker, beat), for ``/ready``."""

    name = models.CharField(max_length=40, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
