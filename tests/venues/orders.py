"""The records of a venue's ledger: orders, trades, accounts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from tests.venues.market import Instrument, Side

ZERO = Decimal(0)


class Status(StrEnum):
    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Trigger(StrEnum):
    STOP = "stop"
    TAKE_PROFIT = "take_profit"


class TimeInForce(StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class Reason(StrEnum):
    """Why the ledger refused; each venue has its own words for it."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    DUPLICATE_CLIENT_ID = "duplicate_client_id"
    WOULD_TAKE = "would_take"
    WOULD_TRIGGER = "would_trigger"
    UNKNOWN_ORDER = "unknown_order"


class Refused(Exception):
    """The ledger did not do what was asked; nothing changed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(slots=True)
class OrderSpec:
    """A new order as the venue understood it; `price` None means a market order.

    `budget` (quote units) may replace `quantity` (base units) on market orders. `fee_in_quote`
    says which coin pays the fee. `details` keeps what only the venue's own answers need.
    """

    account: str
    instrument: Instrument
    side: Side
    client_id: str
    quantity: Decimal = ZERO
    budget: Decimal | None = None
    price: Decimal | None = None
    trigger: Trigger | None = None
    trigger_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    fee_in_quote: bool = True
    fill_delay_ms: int = 0
    details: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Order:
    """An accepted order. Times are milliseconds since the epoch on the venue's clock."""

    sequence: int
    id: str
    spec: OrderSpec
    quantity: Decimal
    created_at: int
    visible_at: int
    updated_at: int = 0
    working_at: int | None = None
    status: Status = Status.OPEN
    reason: str = ""
    filled: Decimal = ZERO
    cost: Decimal = ZERO
    fee: Decimal = ZERO
    held: Decimal = ZERO
    trades: list[Trade] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.status in (Status.OPEN, Status.PARTIALLY_FILLED)

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled

    @property
    def average(self) -> Decimal:
        return self.cost / self.filled if self.filled else ZERO


@dataclass(frozen=True, slots=True)
class Trade:
    """One execution; `fee` in units of `fee_asset`."""

    sequence: int
    id: str
    order: Order
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    time: int

    @property
    def cost(self) -> Decimal:
        return self.price * self.quantity


@dataclass(slots=True)
class Balance:
    total: Decimal = ZERO
    locked: Decimal = ZERO

    @property
    def free(self) -> Decimal:
        return self.total - self.locked


@dataclass(slots=True)
class Account:
    """One customer's balances and history, indexed for the queries venues offer."""

    name: str
    balances: defaultdict[str, Balance] = field(default_factory=lambda: defaultdict(Balance))
    orders: dict[str, Order] = field(default_factory=dict)
    open: dict[str, Order] = field(default_factory=dict)
    closed: list[Order] = field(default_factory=list)
    by_client_id: defaultdict[str, list[Order]] = field(default_factory=lambda: defaultdict(list))
    by_symbol: defaultdict[str, list[Order]] = field(default_factory=lambda: defaultdict(list))
    trades: list[Trade] = field(default_factory=list)
    trades_by_symbol: defaultdict[str, list[Trade]] = field(
        default_factory=lambda: defaultdict(list)
    )
