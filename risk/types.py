"""The frozen values risk works on. Money in the account's quote currency, quantities in the base
asset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from brokers.types import Instrument, OrderType, Quote, Side
from risk.book import Book


class ReasonCode(StrEnum):
    """Why something was refused. One vocabulary for signals, orders, pages and metrics."""

    # signal
    STALE = "STALE"
    FROM_THE_FUTURE = "FROM_THE_FUTURE"
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    CONFIDENCE_MISSING = "CONFIDENCE_MISSING"
    POOR_REWARD_RISK = "POOR_REWARD_RISK"
    REWARD_RISK_MISSING = "REWARD_RISK_MISSING"
    STRATEGY_DISABLED = "STRATEGY_DISABLED"
    THROTTLED = "THROTTLED"
    NO_ROUTE = "NO_ROUTE"
    NO_VENUE_FITS = "NO_VENUE_FITS"
    EXECUTION_NOT_ALLOWED = "EXECUTION_NOT_ALLOWED"
    NOTHING_TO_CLOSE = "NOTHING_TO_CLOSE"
    NOTHING_TO_CANCEL = "NOTHING_TO_CANCEL"
    ALREADY_AT_TARGET = "ALREADY_AT_TARGET"
    NOT_FLAT = "NOT_FLAT"
    # account and venue
    ACCOUNT_INACTIVE = "ACCOUNT_INACTIVE"
    LIVE_TRADING_OFF = "LIVE_TRADING_OFF"
    DRIFT = "DRIFT"
    ACCOUNT_MISCONFIGURED = "ACCOUNT_MISCONFIGURED"
    CREDENTIALS_REFUSED = "CREDENTIALS_REFUSED"
    KEY_MAY_WITHDRAW = "KEY_MAY_WITHDRAW"
    LOGIN_NEEDED = "LOGIN_NEEDED"
    VENUE_UNREACHABLE = "VENUE_UNREACHABLE"
    RATE_LIMITED = "RATE_LIMITED"
    UNKNOWN_SYMBOL = "UNKNOWN_SYMBOL"
    DELAYED_DATA = "DELAYED_DATA"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    REFERENCE_UNAVAILABLE = "REFERENCE_UNAVAILABLE"
    EQUITY_UNKNOWN = "EQUITY_UNKNOWN"
    CURRENCY_MISMATCH = "CURRENCY_MISMATCH"
    # sizing
    SIZE_MISSING = "SIZE_MISSING"
    SIZE_TOO_SMALL = "SIZE_TOO_SMALL"
    SIZE_TOO_LARGE = "SIZE_TOO_LARGE"
    STOP_LOSS_MISSING = "STOP_LOSS_MISSING"
    STOP_LOSS_INVALID = "STOP_LOSS_INVALID"
    TAKE_PROFIT_INVALID = "TAKE_PROFIT_INVALID"
    PRICE_MISSING = "PRICE_MISSING"
    PRICE_DRIFT = "PRICE_DRIFT"
    # limits
    NO_LIMIT_SET = "NO_LIMIT_SET"
    MAX_ORDER_VALUE = "MAX_ORDER_VALUE"
    MAX_POSITION_VALUE = "MAX_POSITION_VALUE"
    MAX_OPEN_ORDERS = "MAX_OPEN_ORDERS"
    MAX_CAPITAL_SHARE = "MAX_CAPITAL_SHARE"
    RISK_PER_TRADE = "RISK_PER_TRADE"
    DAILY_LOSS = "DAILY_LOSS"
    MAX_ORDER_QUANTITY = "MAX_ORDER_QUANTITY"
    PRICE_COLLAR = "PRICE_COLLAR"
    DUPLICATE_ORDER = "DUPLICATE_ORDER"
    SELF_MATCH = "SELF_MATCH"
    MAX_QUOTE_AGE = "MAX_QUOTE_AGE"
    MAX_SPREAD = "MAX_SPREAD"
    MAX_PRICE_JUMP = "MAX_PRICE_JUMP"
    TRADING_HOURS = "TRADING_HOURS"
    MAX_SYMBOL_ORDERS = "MAX_SYMBOL_ORDERS"
    MAX_ACCOUNT_EXPOSURE = "MAX_ACCOUNT_EXPOSURE"
    MAX_STRATEGY_EXPOSURE = "MAX_STRATEGY_EXPOSURE"
    MAX_GROSS_EXPOSURE = "MAX_GROSS_EXPOSURE"
    MAX_NET_EXPOSURE = "MAX_NET_EXPOSURE"
    MAX_GROUP_EXPOSURE = "MAX_GROUP_EXPOSURE"
    MAX_LEVERAGE = "MAX_LEVERAGE"
    MAX_MARGIN_SHARE = "MAX_MARGIN_SHARE"
    MAX_DRAWDOWN = "MAX_DRAWDOWN"
    LOSS_STREAK = "LOSS_STREAK"
    REPEATED_EXECUTION = "REPEATED_EXECUTION"
    REJECT_STREAK = "REJECT_STREAK"
    MESSAGE_RATE = "MESSAGE_RATE"
    # switches
    TRADING_HALTED = "TRADING_HALTED"
    REDUCE_ONLY = "REDUCE_ONLY"
    BREAKER_OPEN = "BREAKER_OPEN"
    # approval by a person
    APPROVAL_REJECTED = "APPROVAL_REJECTED"
    APPROVAL_EXPIRED = "APPROVAL_EXPIRED"
    APPROVAL_OUTDATED = "APPROVAL_OUTDATED"
    # order life
    EXPIRED_BEFORE_SENDING = "EXPIRED_BEFORE_SENDING"
    VENUE_REJECTED = "VENUE_REJECTED"
    NOT_PLACED = "NOT_PLACED"
    NO_SUCH_ORDER = "NO_SUCH_ORDER"
    OTHER_ORDER = "OTHER_ORDER"
    ALREADY_OURS = "ALREADY_OURS"
    FATE_KNOWN = "FATE_KNOWN"
    CANCELED_BY_OPERATOR = "CANCELED_BY_OPERATOR"
    CANCELED_BY_SIGNAL = "CANCELED_BY_SIGNAL"
    REPLACED = "REPLACED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class Refusal(Exception):
    """A decision not to trade: the code, a sentence, and the numbers that led to it."""

    def __init__(
        self, code: ReasonCode, detail: str, numbers: Mapping[str, Decimal | str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.numbers = dict(numbers or {})


class QuantityType(StrEnum):
    BASE = "base"
    QUOTE = "quote"
    PERCENT_OF_EQUITY = "percent_of_equity"
    PERCENT_OF_POSITION = "percent_of_position"
    RISK_PERCENT = "risk_percent"


class SizingMethod(StrEnum):
    FIXED_QUANTITY = "fixed_quantity"
    FIXED_PERCENT = "fixed_percent"
    RISK = "risk"
    ATR = "atr"


@dataclass(frozen=True, slots=True)
class Intent:
    """What a signal wants on one account, before it has a size.

    ``quantity`` is what the alert asked for, in the unit ``quantity_type`` says (percentages as 5
    for 5 %). ``is_exit`` marks orders that only reduce a position: they pass the limits entries
    must pass. ``may_divide`` marks orders that may go out in several.
    """

    side: Side
    type: OrderType
    is_exit: bool
    may_divide: bool = False
    quantity: Decimal | None = None
    quantity_type: QuantityType = QuantityType.BASE
    price: Decimal | None = None
    stop_price: Decimal | None = None
    trailing_percent: Decimal | None = None
    stop_loss: Decimal | None = None
    targets: tuple[Decimal, ...] = ()
    confidence: Decimal | None = None


@dataclass(frozen=True, slots=True)
class SizingPolicy:
    """How a route sizes orders. ``percent`` is a fraction of equity: 0.02 for 2 %."""

    method: SizingMethod
    quantity: Decimal | None = None
    percent: Decimal | None = None
    atr_multiple: Decimal | None = None


@dataclass(frozen=True, slots=True)
class StrategyRules:
    """The strategy's own thresholds; ``None`` switches one off."""

    min_confidence: Decimal | None = None
    min_reward_risk: Decimal | None = None
    requires_confidence: bool = False
    requires_reward_risk: bool = False
    max_drift: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the account when an order is judged, gathered in one moment.

    Working quantities include UNKNOWN orders at their worst case. ``position_quantity`` is negative
    for a short. ``equity`` is ``None`` when not known: rules that need it refuse. ``book`` holds what
    only some rules ask for. ``caps_market_orders`` says whether the venue takes an immediate-or-cancel
    limit in place of a market order.
    """

    at: datetime
    instrument: Instrument
    quote: Quote
    equity: Decimal | None
    position_quantity: Decimal
    working_buy_quantity: Decimal
    working_sell_quantity: Decimal
    open_orders: int
    atr: Decimal | None = None
    to_account_currency: Decimal = Decimal(1)
    caps_market_orders: bool = False
    book: Book = field(default_factory=Book)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of size arithmetic an operator can follow."""

    label: str
    formula: str
    result: Decimal | str


@dataclass(frozen=True, slots=True)
class Size:
    """The outcome of sizing: a quantity on the instrument's grid, and how it came about."""

    quantity: Decimal
    reference_price: Decimal
    value: Decimal
    steps: tuple[Step, ...]


WARN_FROM = Decimal("0.8")


class LimitMode(StrEnum):
    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit in force. ``scope`` names where it was set, for the operator.

    ``parameters`` are what else the rule was told, as text; a rule reads them by its own schema.
    """

    rule: str
    value: Decimal
    mode: LimitMode
    scope: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule's answer with its numbers. ``used`` is the share of the limit that is taken up."""

    rule: str
    passed: bool
    detail: str
    code: ReasonCode | None = None
    mode: LimitMode = LimitMode.ENFORCE
    numbers: Mapping[str, Decimal | str] = field(default_factory=dict)
    used: Decimal | None = None
    scope: str = ""

    @property
    def denies(self) -> bool:
        return not self.passed and self.mode is LimitMode.ENFORCE

    @property
    def warns(self) -> bool:
        """Passed, with four fifths of the limit or more used up."""
        return self.passed and self.used is not None and self.used >= WARN_FROM
