"""OKX's rows read into ours: orders of both lists, fills, positions, balances, permissions."""

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
from brokers.errors import NotShownError, QueryFailedError
from brokers.outcome import VenueError
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

NOT_FOUND = VenueError(("51603",), "Order does not exist")
FUNDING = "8"
"""The type of a bill that is a funding payment."""
STATUSES = {
    "live": VenueStatus.OPEN,
    "partially_filled": VenueStatus.PARTIALLY_FILLED,
    "filled": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELED,
    "mmp_canceled": VenueStatus.CANCELED,
}
WAITING = {
    "live": VenueStatus.OPEN,
    "pause": VenueStatus.OPEN,
    "canceled": VenueStatus.CANCELED,
    "order_failed": VenueStatus.REJECTED,
}
ZERO = Decimal(0)
ALGO = "algo-"
"""What our broker order id of a stop begins with, before its id in the list of stops."""


def amount(found: Row, name: str) -> Decimal:
    """A number; OKX leaves one empty where there is none. Raises QueryFailedError."""
    return ZERO if member(found, name) == "" else number(found, name)


def unit(market: Market) -> Decimal:
    """Base units of one unit of a size: 1 on spot, a contract's value on swaps."""
    return number(row(market, "info"), "ctVal") if market.get("contract") else Decimal(1)


def report(order: Row, market: Market) -> OrderReport:
    """An ordinary order without its trades; one that a triggered stop has put in is the stop, which it
    names.
    """
    said, size = text(order, "state"), unit(market)
    if said not in STATUSES:
        raise QueryFailedError(f"unreadable answer: order state {said!r}")
    filled, average = amount(order, "accFillSz"), number_if_told(order, "avgPx")
    stop = str(order.get("algoId") or "")
    return OrderReport(
        broker_order_id=ALGO + stop if stop else text(order, "ordId"),
        client_order_id=str(order.get("algoClOrdId" if stop else "clOrdId") or ""),
        symbol=market["symbol"],
        side=Side(text(order, "side")),
        status=STATUSES[said],
        quantity=plain(number(order, "sz") * size),
        filled_quantity=plain(filled * size),
        average_price=plain(average) if average and average > 0 and filled > 0 else None,
    )


def funding(bill: Row, symbol: str, currency: str) -> FundingReport:
    """Positive when received. It changes the account's balance, or an isolated position's own."""
    of_account, of_position = amount(bill, "balChg"), amount(bill, "posBalChg")
    return FundingReport(
        payment_id=text(bill, "billId"),
        symbol=symbol,
        amount=plain(of_account or of_position),
        currency=currency,
        at=moment(bill, "ts", per_second=1000),
    )


def waiting(algo: Row, market: Market) -> OrderReport:
    """A stop that has not put an order into the book."""
    said = text(algo, "state")
    if said not in WAITING:
        raise QueryFailedError(f"unreadable answer: stop state {said!r}")
    return OrderReport(
        broker_order_id=ALGO + text(algo, "algoId"),
        client_order_id=str(algo.get("algoClOrdId") or ""),
        symbol=market["symbol"],
        side=Side(text(algo, "side")),
        status=WAITING[said],
        # empty of one that closes whatever is held
        quantity=plain(amount(algo, "sz") * unit(market)),
        filled_quantity=ZERO,
        average_price=None,
        reason=str(algo.get("failCode") or ""),
    )


def child_of(algo: Row) -> str | None:
    """The id of the ordinary order a triggered stop has put in."""
    if text(algo, "state") not in ("effective", "partially_effective"):
        return None
    ids = member(algo, "ordIdList")
    if not isinstance(ids, list) or len(ids) != 1 or not ids[0]:
        raise NotShownError("the order that a triggered stop put in is not named")
    return str(ids[0])


def fill(trade: Row, market: Market, fees: Fees) -> FillReport:
    fee, currency = fees.paid(trade.get("fee"), trade.get("feeCcy"), market)
    return FillReport(
        # trade ids count per instrument
        trade_id=f"{market['id']}-{text(trade, 'tradeId')}",
        quantity=plain(number(trade, "fillSz") * unit(market)),
        price=plain(number(trade, "fillPx")),
        # negative when charged, positive when a rebate
        fee=-fee,
        fee_currency=currency,
        at=moment(trade, "ts", per_second=1000),
    )


def position(found: Row, market: Market) -> PositionReport:
    """Raises QueryFailedError for one side of a hedged pair: FKS keeps one net position."""
    if text(found, "posSide") != "net":
        raise QueryFailedError(f"{market['symbol']} is in hedge mode; switch to net mode")
    average = number_if_told(found, "avgPx")
    quantity = plain(amount(found, "pos") * unit(market))
    return PositionReport(market["symbol"], quantity, plain(average) if average else None)


def balance(currency: str, held: Row) -> BalanceReport:
    total = amount(held, "cashBal" if "cashBal" in held else "eq")
    free = amount(held, "availBal") if "availBal" in held else total
    return BalanceReport(currency, plain(total), plain(free))


def instrument(market: Market, market_type: str) -> Instrument:
    info, size = row(market, "info"), unit(market)
    least = number_if_told(info, "minSz")
    # on spot the market's largest is told in USDT
    largest = ("maxLmtSz", "maxMktSz") if market.get("contract") else ("maxLmtSz",)
    return Instrument(
        symbol=market["symbol"],
        venue_symbol=market["id"],
        base=market["base"],
        quote=market["quote"],
        quantity_step=plain(number(info, "lotSz") * size),
        price_tick=plain(number(info, "tickSz")),
        min_quantity=None if least is None else plain(least * size),
        max_quantity=smallest(*(amount(info, name) * size for name in largest if name in info)),
        market_type=market_type,
    )


def permissions(found: Row) -> Permissions:
    if not found.get("perm"):
        return UNTOLD
    granted = text(found, "perm").split(",")
    return Permissions(
        trade="trade" in granted,
        withdraw="withdraw" in granted,
        ip_restricted=bool(found["ip"]) if "ip" in found else None,
    )
