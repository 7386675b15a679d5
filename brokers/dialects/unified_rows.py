"""ccxt's unified structures, with numbers as text, read into ours; what is incomplete is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from brokers.decimals import plain
from brokers.dialects import answers
from brokers.dialects.answers import distinct, number, text
from brokers.dialects.fees import Fees
from brokers.errors import NotShownError, QueryFailedError
from brokers.types import (
    BalanceReport,
    FillReport,
    FundingReport,
    Instrument,
    OrderReport,
    PositionReport,
    Side,
    VenueStatus,
)
from brokers.venue_client import Market

STATUSES = {
    "open": VenueStatus.OPEN,
    "closed": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELED,
    "cancelled": VenueStatus.CANCELED,
    "expired": VenueStatus.EXPIRED,
    "rejected": VenueStatus.REJECTED,
}
DECIMAL_PLACES, TICK_SIZE = 2, 4
"""ccxt's precision modes; the third counts significant digits, which has no fixed step."""


def mapping(value: object) -> Mapping[str, Any]:
    return answers.row(value)


def mappings(value: object) -> list[Mapping[str, Any]]:
    return list(answers.rows(value))


def moment(milliseconds: object) -> datetime:
    return answers.moment({"time": milliseconds}, "time", per_second=1000)


def contract_size(market: Market) -> Decimal:
    """Base units of one contract; 1 on spot. Raises QueryFailedError for inverse contracts."""
    if not market.get("contract"):
        return Decimal(1)
    if not market.get("linear"):
        raise QueryFailedError(f"{market['symbol']} is not a linear contract")
    return Decimal(str(market["contractSize"]))


def report(order: Mapping[str, Any], market: Market) -> OrderReport:
    size = contract_size(market)
    filled, quantity = number(order, "filled") * size, number(order, "amount") * size
    average = order.get("average")
    return OrderReport(
        broker_order_id=text(order, "id"),
        client_order_id=str(order.get("clientOrderId") or ""),
        symbol=market["symbol"],
        side=Side(text(order, "side")),
        status=_status(text(order, "status"), filled, quantity),
        quantity=plain(quantity),
        filled_quantity=plain(filled),
        average_price=plain(Decimal(str(average))) if average and filled > 0 else None,
    )


def works(order: Mapping[str, Any]) -> bool:
    return order.get("status") == "open"


def never_woke(stop: Mapping[str, Any]) -> bool:
    """Whether a row of a list of stops is of one that waits, or ended while it waited.

    Of KuCoin's that wait no more ccxt says ``cancelled``, whatever became of them.
    """
    if stop.get("status") == "cancelled":
        return str(mapping(stop.get("info")).get("status")).upper().startswith("CANCEL")
    return stop.get("status") in {"open", "canceled", "expired", "rejected"}


def waiting(stop: Mapping[str, Any], market: Market) -> OrderReport:
    """A stop that never woke: nothing of it has traded, whether its row says so or not."""
    return report({**stop, "filled": "0"}, market)


def fills(
    trades: Iterable[Mapping[str, Any]], market: Market, fees: Fees
) -> tuple[FillReport, ...]:
    return distinct(_fill(trade, market, fees) for trade in trades)


def balances(found: object) -> Sequence[BalanceReport]:
    held = mapping(found)
    total, free = mapping(held.get("total")), mapping(held.get("free"))
    reports = []
    for currency, amount in total.items():
        if amount is None:
            raise QueryFailedError(f"unreadable answer: no total of {currency}")
        kept = plain(number(total, currency))
        loose = plain(number(free, currency)) if free.get(currency) is not None else kept
        if kept:
            reports.append(BalanceReport(currency, kept, loose))
    return reports


def position(found: Mapping[str, Any], market: Market) -> PositionReport:
    if found.get("side") not in {"long", "short"}:
        if found.get("contracts") and number(found, "contracts"):
            raise QueryFailedError("unreadable answer: a position without a side")
        return PositionReport(market["symbol"], Decimal(0), None)
    sign = 1 if found["side"] == "long" else -1
    quantity = sign * number(found, "contracts") * contract_size(market)
    entry = found.get("entryPrice")
    average = plain(number(found, "entryPrice")) if entry else None
    return PositionReport(market["symbol"], plain(quantity), average)


def instrument(market: Market, market_type: str) -> Instrument:
    size, limits = contract_size(market), market["limits"]
    least = limits.get("cost", {}).get("min")
    return Instrument(
        symbol=market["symbol"],
        venue_symbol=market["id"],
        base=market["base"],
        quote=market["quote"],
        quantity_step=plain(_step(market, "amount") * size),
        price_tick=plain(_step(market, "price")),
        min_quantity=_scaled(limits["amount"].get("min"), size),
        max_quantity=answers.smallest(
            *(
                _scaled(mapping(limits.get(name) or {}).get("max"), size)
                for name in ("amount", "market")
            )
        ),
        min_value=plain(Decimal(str(least))) if least else None,
        market_type=market_type,
    )


def best(book: object, side: str) -> Decimal | None:
    """The first price of one side of an order book."""
    levels = mapping(book).get(side)
    return plain(Decimal(str(levels[0][0]))) if isinstance(levels, list) and levels else None


def funding(payment: Mapping[str, Any]) -> FundingReport:
    return FundingReport(
        payment_id=text(payment, "id"),
        symbol=text(payment, "symbol"),
        amount=plain(number(payment, "amount")),
        currency=text(payment, "code"),
        at=moment(payment.get("timestamp")),
    )


def _fee(trade: Mapping[str, Any], market: Market) -> Mapping[str, Any]:
    """What a trade cost. Where that was taken from several coins, ccxt names them in ``fees`` alone,
    those that paid nothing too; the coins that were traded count first, for the position has lost them.
    """
    told = mapping(trade.get("fee") or {})
    if told.get("cost") is not None:
        return told
    paid = [one for one in mappings(trade.get("fees") or []) if one.get("cost") is not None]
    paid = [one for one in paid if number(one, "cost")] or paid
    paid.sort(key=lambda one: one.get("currency") != market["base"])
    return paid[0] if paid else told


def _fill(trade: Mapping[str, Any], market: Market, fees: Fees) -> FillReport:
    told = _fee(trade, market)
    fee, currency = fees.paid(told.get("cost"), told.get("currency"), market)
    return FillReport(
        trade_id=text(trade, "id"),
        quantity=plain(number(trade, "amount") * contract_size(market)),
        price=plain(number(trade, "price")),
        fee=fee,
        fee_currency=currency,
        at=moment(trade.get("timestamp")),
    )


def _status(said: str, filled: Decimal, quantity: Decimal) -> VenueStatus:
    status = STATUSES.get(said)
    if status is None:
        raise QueryFailedError(f"unreadable answer: order status {said!r}")
    if status is VenueStatus.OPEN and filled > 0:
        return VenueStatus.PARTIALLY_FILLED
    if status is VenueStatus.FILLED and not filled:
        raise NotShownError("the order is done, and nothing traded is shown of it")
    if status is VenueStatus.FILLED and filled < quantity:
        return VenueStatus.CANCELED
    return status


def _step(market: Market, name: str) -> Decimal:
    precision, mode = market["precision"].get(name), market["precisionMode"]
    if precision is None or mode not in (DECIMAL_PLACES, TICK_SIZE):
        raise QueryFailedError(f"{market['symbol']} has no fixed {name} step")
    return Decimal(str(precision)) if mode == TICK_SIZE else Decimal(1).scaleb(-int(precision))


def _scaled(limit: object, size: Decimal) -> Decimal | None:
    return plain(Decimal(str(limit)) * size) if limit else None
