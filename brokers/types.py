"""The frozen values that cross the border between FKS and a venue.

Units: quantities in the base asset (or contracts), prices in the quote asset per unit, money in the
quote asset; all ``Decimal``. Times are timezone-aware UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell: what one unit does to a position."""
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TRAILING_STOP = "trailing_stop"


class TimeInForce(StrEnum):
    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    DAY = "day"


class Environment(StrEnum):
    DRY_RUN = "dry_run"
    SANDBOX = "sandbox"
    LIVE = "live"


class Outcome(StrEnum):
    """How a placement ended. ``UNKNOWN`` is the default: anything else must be proven."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


class VenueStatus(StrEnum):
    """The state of an order as the venue reports it."""

    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class LoginTerms:
    """How a person logs an account in at a venue that asks for it (OAuth 2, authorisation code).

    ``callback_url`` is what the venue has on file for the application, to the letter. The log-in ends
    ``lasts`` after the person's doing, however often its tokens are renewed in between.
    """

    authorise_url: str
    token_url: str
    callback_url: str
    lasts: timedelta


class TokenSource(Protocol):
    """The access token of an account that a person has logged in."""

    def token(self) -> str:
        """One that outlives the request. Raises LoginNeededError while somebody must log in,
        QueryFailedError when the venue could not be asked for a new one."""

    def refused(self, token: str) -> None:
        """The venue did not take ``token``: it is not given out again. Never raises."""


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """What a plugin learns of an account. ``credentials`` and ``tokens`` never leave the plugin.

    ``quotes``: where a rehearsal venue gets real prices from, if its operator named an account.
    """

    key: str
    name: str
    environment: Environment
    options: Mapping[str, Any]
    credentials: Mapping[str, str] = field(repr=False, default_factory=dict)
    tokens: TokenSource | None = field(repr=False, default=None)
    quotes: Callable[[str], Quote] | None = field(repr=False, default=None)


DERIVATIVES = ("swap", "future")


@dataclass(frozen=True, slots=True)
class Instrument:
    """A tradable symbol and the venue's rules for its numbers.

    ``quantity_step`` and ``price_tick`` are positive; the limits are ``None`` where the venue names
    none. ``max_quantity`` holds for every kind of order: the smallest, where each has its own.
    """

    symbol: str
    venue_symbol: str
    base: str
    quote: str
    quantity_step: Decimal
    price_tick: Decimal
    min_quantity: Decimal | None = None
    max_quantity: Decimal | None = None
    min_value: Decimal | None = None
    market_type: str = "spot"

    @property
    def of_exits(self) -> Instrument:
        """The rules of an order that closes. Of derivatives it may be worth as little as is left:
        Binance USD-M, error -4164; Bybit, "Instruments info", minNotionalValue.
        """
        return replace(self, min_value=None) if self.market_type in DERIVATIVES else self


@dataclass(frozen=True, slots=True)
class Quote:
    """Best prices at ``at`` (when the venue said it, or when it was read)."""

    symbol: str
    bid: Decimal
    ask: Decimal
    last: Decimal
    at: datetime

    @property
    def mid(self) -> Decimal:
        return (self.bid + self.ask) / 2

    def worst(self, side: Side) -> Decimal:
        """The price a market order on ``side`` would meet first."""
        return self.ask if side is Side.BUY else self.bid


@dataclass(frozen=True, slots=True)
class BookLevel:
    """One price of an order book and the base quantity offered at it."""

    price: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class OrderBook:
    """What others offer, best prices first, as far as the venue was asked; ``at`` is when."""

    symbol: str
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]
    at: datetime

    def offers(self, side: Side) -> tuple[BookLevel, ...]:
        """The levels an order on ``side`` would take."""
        return self.asks if side is Side.BUY else self.bids


@dataclass(frozen=True, slots=True)
class TradingFees:
    """What a trade costs as a fraction of its value: 0.001 is 0.1 %; negative for a rebate."""

    maker: Decimal
    taker: Decimal


@dataclass(frozen=True, slots=True)
class AttachedStop:
    """A stop loss that leaves with its entry: the venue holds it back until the entry trades.

    ``identity`` is its own, as an order's; ``price`` is on the instrument's grid. It is a stop order of
    the other side and, once the entry has traded, of what has traded.
    """

    identity: str
    price: Decimal


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One order, ready to be sent: numbers already rounded to the instrument's rules.

    ``identity`` is 32 lowercase hex digits, made and committed before anything is sent; the plugin
    says how its venue writes it. ``reference_price`` is the price risk judged the order by; venues
    never receive it. After ``send_before`` the claim on the order has ended and another worker may
    be sending it: unless the venue itself takes an identity only once, nothing may leave then.
    ``attempt`` counts its placements; of all before this one it is proven that they left nothing there.
    """

    identity: str
    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    stop_price: Decimal | None = None
    trailing_percent: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    reference_price: Decimal | None = None
    send_before: datetime | None = None
    attached_stop: AttachedStop | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class OrderRef:
    """How to find an order again. ``broker_order_id`` is empty until the venue acknowledged.

    ``identity`` is empty for an order that carries no id of ours: the venue's id alone names it, and
    what is reported says which symbol it is really in.

    ``request`` is what was sent, ``None`` where FKS did not send it. For a venue that keeps no id of
    ours ``taken`` are the ids there that belong to other orders of ours.
    """

    identity: str
    symbol: str
    broker_order_id: str
    submitted_at: datetime | None
    request: OrderRequest | None = None
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FillReport:
    """One trade. ``trade_id`` is unique within account and symbol; ``fee`` is positive when paid."""

    trade_id: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What the venue says about one order.

    ``fills`` may be incomplete; ``filled_quantity`` is the total and rules. ``client_order_id`` is
    in the venue's writing. ``listed_as`` is the id under which the venue lists it among the open
    orders, where that is another one: that of the order a stop has put in.
    """

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: Side
    status: VenueStatus
    quantity: Decimal
    filled_quantity: Decimal
    average_price: Decimal | None
    fills: tuple[FillReport, ...] = ()
    reason: str = ""
    listed_as: str = ""


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """The end of one placement attempt.

    ``evidence`` holds what was seen (request and answer, scrubbed of secrets) as JSON-ready values.
    ``retry_after`` (seconds) is set when the venue asked for patience; with NOT_SENT the order is sent
    again after it, with UNKNOWN it is looked for after it.
    ``held_back`` says that our own limiter asked for it, which tells nothing about the venue.
    """

    outcome: Outcome
    broker_order_id: str = ""
    report: OrderReport | None = None
    code: str = ""
    detail: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    retry_after: int | None = None
    held_back: bool = False

    def __post_init__(self) -> None:
        if self.outcome is Outcome.ACCEPTED and not self.broker_order_id:
            raise ValueError("ACCEPTED needs the venue's order id as proof")


@dataclass(frozen=True, slots=True)
class CancelResult:
    """``ACCEPTED``: the venue took the cancel. ``REJECTED``: it says there is nothing to cancel.

    Either way the order's own state is read back afterwards; a cancel proves nothing by itself.
    """

    outcome: Outcome
    code: str = ""
    detail: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BalanceReport:
    currency: str
    total: Decimal
    free: Decimal


@dataclass(frozen=True, slots=True)
class PositionReport:
    """A position as the venue keeps it; ``quantity`` is negative for a short."""

    symbol: str
    quantity: Decimal
    average_price: Decimal | None


@dataclass(frozen=True, slots=True)
class FundingReport:
    """One funding payment of a perpetual. ``amount`` is positive when received, negative when paid;
    ``payment_id`` is the venue's, unique within the account.
    """

    payment_id: str
    symbol: str
    amount: Decimal
    currency: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the key may do; ``None`` where the venue does not tell."""

    trade: bool | None
    withdraw: bool | None
    ip_restricted: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Candle:
    """Highest, lowest and last price of one stretch of time that began at ``at``."""

    at: datetime
    high: Decimal
    low: Decimal
    close: Decimal


@dataclass(frozen=True, slots=True)
class Health:
    ok: bool
    detail: str
    latency_ms: int | None = None
    clock_skew_ms: int | None = None
