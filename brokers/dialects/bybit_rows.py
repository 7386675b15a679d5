"""Bybit's rows read into ours: orders, executions, positions, balances, key permissions."""

from __future__ import annotations

from decimal import Decimal

from brokers.decimals import plain
from brokers.dialects.answers import (
    Row,
    member,
    moment,
    number,
    number_if_told,
    row,
    smallest,
    text,
)
from brokers.dialects.base import UNTOLD
from brokers.dialects.fees import Fees
from brokers.errors import QueryFailedError
from brokers.types import (
    BalanceReport,
    FillReport,
    FundingReport,
    Instrument,
    OrderReport,
    Permissions,
    PositionReport,
    Side,
    VenueStatus,
)
from brokers.venue_client import Market

STATUSES = {
    "New": VenueStatus.OPEN,
    "Untriggered": VenueStatus.OPEN,
    "Triggered": VenueStatus.OPEN,
    "PartiallyFilled": VenueStatus.PARTIALLY_FILLED,
    "Filled": VenueStatus.FILLED,
    "Cancelled": VenueStatus.CANCELED,
    "PartiallyFilledCanceled": VenueStatus.CANCELED,
    "Deactivated": VenueStatus.CANCELED,
    "Rejected": VenueStatus.REJECTED,
}
TRADES = frozenset({"Trade", "AdlTrade", "BustTrade", "Delivery", "Settle"})
"""Executions that change a holding; the others are funding and the like."""
TRADE = "Trade"
ANY_ADDRESS = "*"


LARGEST = ("maxOrderQty", "maxLimitOrderQty", "maxMarketOrderQty", "maxMktOrderQty")
"""The largest order: at a limit, at the market; each market type names them otherwise."""


def amount(found: Row, name: str) -> Decimal:
    """A number; Bybit leaves one empty where there is none. Raises QueryFailedError."""
    return Decimal(0) if member(found, name) == "" else number(found, name)


def is_trade(execution: Row) -> bool:
    return (execution.get("execType") or TRADE) in TRADES


def report(order: Row, symbol: str) -> OrderReport:
    """Without its trades."""
    said = text(order, "orderStatus")
    if said not in STATUSES:
        raise QueryFailedError(f"unreadable answer: order status {said!r}")
    filled, average = number(order, "cumExecQty"), number_if_told(order, "avgPrice")
    reason = str(order.get("rejectReason") or "")
    return OrderReport(
        broker_order_id=text(order, "orderId"),
        client_order_id=str(order.get("orderLinkId") or ""),
        symbol=symbol,
        side=Side(text(order, "side").lower()),
        status=STATUSES[said],
        quantity=plain(number(order, "qty")),
        filled_quantity=plain(filled),
        average_price=plain(average) if average and average > 0 and filled > 0 else None,
        reason="" if reason == "EC_NoError" else reason,
    )


def fill(trade: Row, market: Market, fees: Fees) -> FillReport:
    coin = trade.get("feeCurrency") or market.get("settle") or market["quote"]
    fee, currency = fees.paid(trade.get("execFee"), coin, market)
    return FillReport(
        trade_id=text(trade, "execId"),
        quantity=plain(number(trade, "execQty")),
        price=plain(number(trade, "execPrice")),
        fee=fee,
        fee_currency=currency,
        at=moment(trade, "execTime", per_second=1000),
    )


def is_hedged(position: Row) -> bool:
    """Whether it is one side of a hedged pair."""
    return str(position.get("positionIdx") or 0) != "0"


def position(found: Row, symbol: str) -> PositionReport:
    """Raises QueryFailedError for one side of a hedged pair: FKS keeps one net position."""
    if is_hedged(found):
        raise QueryFailedError(f"{symbol} is in hedge mode; switch the account to one-way mode")
    side, size = found.get("side"), amount(found, "size")
    if size and side not in ("Buy", "Sell"):
        raise QueryFailedError("unreadable answer: a position without a side")
    average = number_if_told(found, "avgPrice")
    quantity = plain(size if side == "Buy" else -size)
    return PositionReport(symbol, quantity, plain(average) if average else None)


def funding(found: Row, symbol: str) -> FundingReport:
    """Bybit's amount is positive when received (v5 docs, "Get Transaction Log")."""
    return FundingReport(
        payment_id=text(found, "id"),
        symbol=symbol,
        amount=plain(number(found, "funding")),
        currency=text(found, "currency"),
        at=moment(found, "transactionTime", per_second=1000),
    )


def balance(currency: str, held: Row) -> BalanceReport:
    """Free is the wallet without what spot orders, open orders and positions keep."""
    total = amount(held, "walletBalance")
    kept = ("locked", "totalOrderIM", "totalPositionIM")
    free = total - sum(amount(held, name) for name in kept if name in held)
    return BalanceReport(currency, plain(total), plain(free))


def instrument(market: Market, market_type: str) -> Instrument:
    info = row(market, "info")
    lot, price = row(info, "lotSizeFilter"), row(info, "priceFilter")
    spot = market_type == "spot"
    value = "minOrderAmt" if spot else "minNotionalValue"
    return Instrument(
        symbol=market["symbol"],
        venue_symbol=market["id"],
        base=market["base"],
        quote=market["quote"],
        quantity_step=plain(number(lot, "basePrecision" if spot else "qtyStep")),
        price_tick=plain(number(price, "tickSize")),
        min_quantity=smallest(number_if_told(lot, "minOrderQty")),
        max_quantity=smallest(*(amount(lot, name) for name in LARGEST if name in lot)),
        min_value=smallest(number_if_told(lot, value)),
        market_type=market_type,
    )


def permissions(found: Row, market_type: str) -> Permissions:
    if not found.get("permissions"):
        return UNTOLD
    granted = row(found, "permissions")
    group, needed = ("Spot", "SpotTrade") if market_type == "spot" else ("ContractTrade", "Order")
    read_only = found.get("readOnly")
    addresses = found.get("ips")
    known = isinstance(addresses, list) and bool(addresses)
    return Permissions(
        trade=None
        if read_only is None
        else str(read_only) == "0" and needed in (granted.get(group) or ()),
        withdraw="Withdraw" in (granted.get("Wallet") or ()),
        ip_restricted=ANY_ADDRESS not in addresses if known and addresses else None,
    )
