"""The canonical alert: what every sender's format is read into before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from brokers.decimals import decimal_text
from brokers.types import OrderType, TimeInForce
from risk.types import QuantityType


class Action(StrEnum):
    BUY = "buy"
    SELL = "sell"
    CLOSE = "close"
    CANCEL = "cancel"


class MarketPosition(StrEnum):
    LONG = "long"
    SHORT = "short"
    FLAT = "flat"


REDUCES = frozenset({(Action.SELL, MarketPosition.LONG), (Action.BUY, MarketPosition.SHORT)})
"""What makes a position smaller by the sender's own words: a sale after which it is still long, or a
purchase after which it is still short.
"""


class Algorithm(StrEnum):
    """How an order reaches its venue: as one, or in slices (docs/algorithms.md)."""

    WHOLE = "whole"
    TWAP = "twap"
    ICEBERG = "iceberg"
    LADDER = "ladder"


@dataclass(frozen=True, slots=True)
class TakeProfit:
    """One target: its price, and the share of the position (percent) it closes."""

    price: Decimal
    percent: Decimal


_PRICES: Mapping[OrderType, tuple[str, ...]] = {
    OrderType.MARKET: (),
    OrderType.LIMIT: ("price",),
    OrderType.STOP: ("stop_price",),
    OrderType.STOP_LIMIT: ("price", "stop_price"),
    OrderType.TRAILING_STOP: ("trailing_percent",),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One instruction in canonical terms. Prices in the quote asset; ``confidence`` from 0 to 1.

    ``max_age`` is how old, in seconds, the sender lets it become; the strategy's own limit holds too.
    ``execution`` is how the sender wants it sent, where its strategy lets alerts choose.
    ``account`` names the account of an operator's own order, ``replaces`` the order it takes the place
    of; ``posted_by`` the id of the user whose token it came with. No sender can set them.
    """

    symbol: str
    action: Action
    order_type: OrderType = OrderType.MARKET
    quantity: Decimal | None = None
    quantity_type: QuantityType = QuantityType.BASE
    price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: tuple[TakeProfit, ...] = ()
    trailing_percent: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    confidence: Decimal | None = None
    atr: Decimal | None = None
    sent_at: datetime | None = None
    max_age: int | None = None
    idempotency_key: str = ""
    market_position: MarketPosition | None = None
    market_position_size: Decimal | None = None
    prev_market_position: MarketPosition | None = None
    prev_market_position_size: Decimal | None = None
    comment: str = ""
    execution: Algorithm | None = None
    account: str = ""
    replaces: str = ""
    posted_by: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)

    def divides_by(self, algorithm: Algorithm) -> bool:
        """Whether an order of this kind can be sent so: what has a trigger, must fill whole, or takes
        another's place cannot be sliced, and an iceberg or a ladder has to rest at the venue.
        """
        if algorithm is Algorithm.WHOLE:
            return True
        if self.replaces or self.time_in_force is TimeInForce.FOK:
            return False
        if algorithm is Algorithm.TWAP:
            return self.order_type in (OrderType.MARKET, OrderType.LIMIT)
        rests = self.time_in_force in (TimeInForce.GTC, TimeInForce.DAY)
        return rests and self.order_type is OrderType.LIMIT and self.price is not None

    def as_exit(self) -> Alert:
        """It as an exit: one at the market never rests, and a part of it is better than nothing."""
        if self.order_type is not OrderType.MARKET:
            return self
        return replace(self, time_in_force=TimeInForce.GTC, post_only=False)

    @property
    def is_immediate(self) -> bool:
        """Whether what it asks for never rests."""
        at_once = (TimeInForce.IOC, TimeInForce.FOK)
        return self.order_type is OrderType.MARKET or self.time_in_force in at_once

    @property
    def wants_flat(self) -> bool:
        """Whether it asks for no position at all, whatever its size was."""
        return self.action is Action.CLOSE or self.market_position is MarketPosition.FLAT

    @property
    def missing_prices(self) -> list[str]:
        """The fields its kind of order needs and it does not have."""
        needed = [name for name in _PRICES[self.order_type] if getattr(self, name) is None]
        return [] if self.action is Action.CANCEL else needed

    def to_json(self) -> dict[str, Any]:
        """Everything that was set, numbers as text; ``from_json`` reads it back exactly."""
        result: dict[str, Any] = {}
        for name, default in _DEFAULTS:
            value = getattr(self, name)
            if value != default or name in ("symbol", "action"):
                result[name] = _plain(value)
        if not self.extras:
            result.pop("extras", None)
        if not self.take_profit:
            result.pop("take_profit", None)
        return result

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Alert:
        """The alert ``to_json`` wrote."""
        values: dict[str, Any] = {}
        for name, value in stored.items():
            read = _READERS.get(name)
            values[name] = read(value) if read else value
        return cls(**values)


_DEFAULTS = [(item.name, item.default) for item in fields(Alert)]


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, TakeProfit):
        return {"price": decimal_text(value.price), "percent": decimal_text(value.percent)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return str(value)


def _targets(stored: list[dict[str, str]]) -> tuple[TakeProfit, ...]:
    return tuple(TakeProfit(Decimal(one["price"]), Decimal(one["percent"])) for one in stored)


def _moment(stored: str) -> datetime:
    return datetime.fromisoformat(stored).astimezone(UTC)


_NUMBERS = (
    "quantity",
    "price",
    "stop_price",
    "stop_loss",
    "trailing_percent",
    "confidence",
    "atr",
    "market_position_size",
    "prev_market_position_size",
)
_READERS: dict[str, Any] = {
    "action": Action,
    "order_type": OrderType,
    "quantity_type": QuantityType,
    "time_in_force": TimeInForce,
    "execution": Algorithm,
    "market_position": MarketPosition,
    "prev_market_position": MarketPosition,
    "take_profit": _targets,
    "sent_at": _moment,
} | dict.fromkeys(_NUMBERS, Decimal)
