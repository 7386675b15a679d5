"""Plain values for the risk tests; every argument has a sensible default."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from brokers.types import Instrument, OrderType, Quote, Side
from risk.book import Book, Day, Streak
from risk.types import Facts, Intent, Limit, LimitMode, SizingMethod, SizingPolicy

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INSTRUMENT = Instrument(
    symbol="BTC/USDT",
    venue_symbol="BTCUSDT",
    base="BTC",
    quote="USDT",
    quantity_step=Decimal("0.001"),
    price_tick=Decimal("0.01"),
)
FACTS = Facts(
    at=AT,
    instrument=INSTRUMENT,
    quote=Quote("BTC/USDT", Decimal(99), Decimal(100), Decimal("99.5"), AT),
    equity=Decimal(10000),
    position_quantity=Decimal(0),
    working_buy_quantity=Decimal(0),
    working_sell_quantity=Decimal(0),
    open_orders=0,
    book=Book(
        account_id=1,
        exposures=(),
        strategy_exposures=(),
        symbol_orders=0,
        resting=(),
        recent=(),
        entries_within={60: 0},
        rejects=Streak(0),
        losses=Streak(0),
        day=Day(Decimal(0), Decimal(0), Decimal(0)),
        free_funds=Decimal(10000),
    ),
)


def number(value: Any) -> Any:
    """Text and whole numbers as Decimal, anything else as it is."""
    is_number = isinstance(value, str | int) and not isinstance(value, bool)
    return Decimal(value) if is_number else value


def intent(side: Side = Side.BUY, type: OrderType = OrderType.MARKET, **fields: Any) -> Intent:
    plain = ("is_exit", "may_divide", "quantity_type")
    enums = {name: fields.pop(name) for name in plain if name in fields}
    targets = tuple(map(number, fields.pop("targets", ())))
    numbers = {name: number(value) for name, value in fields.items()}
    order = Intent(side=side, type=type, is_exit=False, targets=targets)
    return replace(order, **enums, **numbers)


def facts(**fields: Any) -> Facts:
    numbers = {
        name: value if name in ("open_orders", "caps_market_orders") else number(value)
        for name, value in fields.items()
    }
    return replace(FACTS, **numbers)


def book(**fields: Any) -> Facts:
    """Facts with another book."""
    return replace(FACTS, book=replace(FACTS.book, **fields))


def rules(**fields: Any) -> Instrument:
    return replace(INSTRUMENT, **{name: number(value) for name, value in fields.items()})


def policy(method: SizingMethod = SizingMethod.FIXED_QUANTITY, **fields: Any) -> SizingPolicy:
    return SizingPolicy(method, **{name: number(value) for name, value in fields.items()})


def limit(rule: str, value: Any, mode: LimitMode = LimitMode.ENFORCE, **parameters: str) -> Limit:
    return Limit(rule, number(value), mode, "everything", parameters)
