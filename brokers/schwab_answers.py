"""What Schwab's answers say (developer.schwab.com, Trader API 1.0.0 and Market Data API).

Numbers are JSON numbers there and are read exactly. An order carries no id of ours: it is recognised by
what it asks for. Statuses are those of the Trader API's list; another one is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from brokers import order_books
from brokers.decimals import plain
from brokers.dialects.answers import (
    Row,
    distinct,
    iso_moment,
    member,
    moment,
    number,
    row,
    rows,
    text,
)
from brokers.errors import (
    NotShownError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.outcome import Verdict, unknown
from brokers.types import (
    BalanceReport,
    Candle,
    FillReport,
    Instrument,
    OrderBook,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    PositionReport,
    Quote,
    Side,
    TimeInForce,
    VenueStatus,
)
from brokers.venue_http import UNAUTHORIZED, Reply, before_words, token_refused

SHARES = frozenset({"EQUITY", "COLLECTIVE_INVESTMENT"})
"""Shares and funds that trade like them."""
SIDES = {"BUY": Side.BUY, "SELL": Side.SELL, "BUY_TO_COVER": Side.BUY, "SELL_SHORT": Side.SELL}
DURATIONS = {TimeInForce.GTC: "GOOD_TILL_CANCEL", TimeInForce.DAY: "DAY"}
_WORKING = frozenset(
    (
        "AWAITING_PARENT_ORDER", "AWAITING_CONDITION", "AWAITING_STOP_CONDITION",
        "AWAITING_MANUAL_REVIEW", "AWAITING_UR_OUT", "AWAITING_RELEASE_TIME", "ACCEPTED",
        "PENDING_ACTIVATION", "PENDING_CANCEL", "PENDING_REPLACE", "PENDING_ACKNOWLEDGEMENT",
        "PENDING_RECALL", "QUEUED", "WORKING", "NEW",
    )
)  # fmt: skip
_ENDED = {
    "FILLED": VenueStatus.FILLED,
    "CANCELED": VenueStatus.CANCELED,
    "REPLACED": VenueStatus.CANCELED,
    "EXPIRED": VenueStatus.EXPIRED,
    "REJECTED": VenueStatus.REJECTED,
}
WHOLE, CENT = Decimal(1), Decimal("0.01")
"""Shares are traded whole; a cent is on the grid of every price (Rule 612)."""
_PLACED = re.compile(r"/orders/([0-9]{1,20})$")
HOUR = timedelta(hours=1)


def symbol_of(venue_symbol: str) -> str:
    """``BRK/B`` is BRK.B/USD here."""
    return f"{venue_symbol.replace('/', '.')}/USD"


def instrument(found: Sequence[Row], symbol: str, venue_symbol: str) -> Instrument:
    """The rules of a share, once Schwab lists it as one. Raises UnknownSymbolError."""
    for one in found:
        if one.get("symbol") == venue_symbol and one.get("assetType") in {*SHARES, "ETF"}:
            break
    else:
        raise UnknownSymbolError(f"Schwab does not list {symbol} as a share")
    return Instrument(
        symbol=symbol,
        venue_symbol=venue_symbol,
        base=symbol.partition("/")[0],
        quote="USD",
        quantity_step=WHOLE,
        price_tick=CENT,
        min_quantity=WHOLE,
        market_type="stock",
    )


def is_of_shares(answer: Row) -> bool:
    """Whether an order is one FKS can read: for one share, alone."""
    legs = answer.get("orderLegCollection")
    if not isinstance(legs, list) or len(legs) != 1:
        return False
    return row(row(legs[0]), "instrument").get("assetType") in SHARES


def _leg(answer: Row) -> Row:
    legs = rows(member(answer, "orderLegCollection"))
    if len(legs) != 1:
        raise QueryFailedError("Schwab: an order has not one leg")
    return legs[0]


def entered(answer: Row) -> datetime:
    return iso_moment(answer, "enteredTime")


def fits(answer: Row, request: OrderRequest, venue_symbol: str) -> bool:
    """Whether the order is one that ``request`` may have become."""
    if not is_of_shares(answer):
        return False
    leg = _leg(answer)
    wanted: dict[str, Decimal | None] = {"quantity": request.quantity}
    if request.type in (OrderType.LIMIT, OrderType.STOP_LIMIT):
        wanted["price"] = request.price
    if request.type in (OrderType.STOP, OrderType.STOP_LIMIT):
        wanted["stopPrice"] = request.stop_price
    if request.type is OrderType.TRAILING_STOP:
        wanted["stopPriceOffset"] = request.trailing_percent
    return (
        row(leg, "instrument").get("symbol") == venue_symbol
        and leg.get("instruction") == request.side.value.upper()
        and answer.get("orderType") == request.type.value.upper()
        and answer.get("duration") == duration(request)
        and all(name in answer and number(answer, name) == one for name, one in wanted.items())
    )


def duration(request: OrderRequest) -> str:
    """A market order is good for the day, whatever was asked for: nothing of it rests."""
    if request.type is OrderType.MARKET:
        return DURATIONS[TimeInForce.DAY]
    return DURATIONS[request.time_in_force]


def order(answer: Row, client_order_id: str = "") -> OrderReport:
    """An order as it is now. Raises QueryFailedError for one that cannot be read."""
    leg, filled = _leg(answer), plain(number(answer, "filledQuantity"))
    trades = fills(answer)
    told = sum((one.quantity for one in trades), Decimal(0))
    cost = sum((one.quantity * one.price for one in trades), Decimal(0))
    return OrderReport(
        broker_order_id=text(answer, "orderId"),
        client_order_id=client_order_id,
        symbol=symbol_of(text(row(leg, "instrument"), "symbol")),
        side=_side(leg),
        status=_status(text(answer, "status"), filled),
        quantity=plain(number(answer, "quantity")),
        filled_quantity=filled,
        average_price=plain(cost / told) if told and told == filled else None,
        fills=trades,
        reason=str(answer.get("statusDescription") or ""),
    )


def _side(leg: Row) -> Side:
    said = text(leg, "instruction")
    if said not in SIDES:
        raise QueryFailedError(f"Schwab: unreadable instruction {said!r}")
    return SIDES[said]


def _status(said: str, filled: Decimal) -> VenueStatus:
    if said in _WORKING:
        return VenueStatus.PARTIALLY_FILLED if filled else VenueStatus.OPEN
    if said not in _ENDED:
        raise NotShownError(f"Schwab: an order is {said!r}, which says nothing")
    return _ENDED[said]


def is_working(answer: Row) -> bool:
    """Whether it may still trade; what cannot be read is taken to."""
    return text(answer, "status") not in _ENDED


def fills(answer: Row) -> tuple[FillReport, ...]:
    """The executions of an order, oldest first.

    Schwab's documentation gives them no id: the order, and how much of it was left afterwards, name
    one for good. Fees are told only on statements. A cancellation is an execution there as well, of the
    rest and at no price.
    """
    return distinct(_fills(answer))


def _fills(answer: Row) -> Iterator[FillReport]:
    order_id = text(answer, "orderId")
    for activity in rows(answer.get("orderActivityCollection") or []):
        if activity.get("activityType") != "EXECUTION" or activity.get("executionType") != "FILL":
            continue
        left = plain(number(activity, "orderRemainingQuantity"))
        for place, leg in enumerate(rows(member(activity, "executionLegs"))):
            yield FillReport(
                trade_id=f"{order_id}-{left:f}-{place}",
                quantity=plain(number(leg, "quantity")),
                price=plain(number(leg, "price")),
                fee=Decimal(0),
                fee_currency="USD",
                at=iso_moment(leg, "time"),
            )


def position(answer: Row) -> PositionReport:
    held = number(answer, "longQuantity") - number(answer, "shortQuantity")
    symbol = symbol_of(text(row(answer, "instrument"), "symbol"))
    return PositionReport(symbol, plain(held), plain(number(answer, "averagePrice")))


def positions(account: Row) -> list[PositionReport]:
    """Shares held; options, funds and bonds are left out."""
    found = rows(account.get("positions") or [])
    shares = [one for one in found if row(one, "instrument").get("assetType") in SHARES]
    return [one for one in map(position, shares) if one.quantity]


def cash(account: Row) -> BalanceReport:
    """Dollars. What is free: a cash account's money for trading, a margin account's own funds without
    credit. Raises QueryFailedError."""
    told = row(account, "currentBalances")
    total = number(told, "totalCash" if "totalCash" in told else "cashBalance")
    name = "cashAvailableForTrading" if "cashAvailableForTrading" in told else "availableFunds"
    free = max(Decimal(0), min(total, number(told, name)))
    return BalanceReport("USD", plain(total), plain(free))


def quote(answer: Row, symbol: str, venue_symbol: str) -> Quote:
    """Bid and ask at the time of the quote. Raises UnknownSymbolError or QuoteUnavailableError."""
    if venue_symbol not in answer:
        raise UnknownSymbolError(f"Schwab does not list {symbol}")
    found = row(answer, venue_symbol)
    if found.get("realtime") is not True:
        raise QuoteUnavailableError(f"Schwab's prices of {symbol} come late on this log-in")
    best = row(found, "quote")
    bid, ask, last = (number(best, name) for name in ("bidPrice", "askPrice", "lastPrice"))
    if min(bid, ask, last) <= 0:
        raise QuoteUnavailableError(f"Schwab has no bid and ask of {symbol} now")
    at = moment(best, "quoteTime", per_second=1000)
    return Quote(symbol, plain(bid), plain(ask), plain(last), at)


def best_prices(answer: Row, symbol: str, venue_symbol: str) -> OrderBook:
    """The quote with its sizes in shares. Raises as ``quote`` does."""
    told = quote(answer, symbol, venue_symbol)
    best = row(row(answer, venue_symbol), "quote")
    return order_books.best_prices(told, number(best, "bidSize"), number(best, "askSize"))


def candles(answer: Row) -> list[Candle]:
    """Hours, put together from half hours: Schwab has none."""
    hours: dict[datetime, Candle] = {}
    for one in rows(member(answer, "candles")):
        at = moment(one, "datetime", per_second=1000)
        at = at.replace(minute=0, second=0, microsecond=0)
        high, low, close = (plain(number(one, name)) for name in ("high", "low", "close"))
        known = hours.get(at)
        if known is not None:
            high, low = max(high, known.high), min(low, known.low)
        hours[at] = Candle(at, high, low, close)
    return [hours[at] for at in sorted(hours)]


def opens(answer: Row, at: datetime) -> tuple[bool, datetime]:
    """Whether the regular session of shares runs at ``at``, and until when that is known to hold."""
    held = [row(one) for one in row(answer, "equity").values()]
    sessions = [
        one
        for market in held
        for one in rows((market.get("sessionHours") or {}).get("regularMarket") or [])
    ]
    for one in sessions:
        start, end = iso_moment(one, "start"), iso_moment(one, "end")
        if at < start:
            return False, start
        if at < end:
            return True, end
    return False, at.astimezone(UTC) + HOUR


def placed_id(reply: Reply) -> str:
    """The order's id, where the answer proves it: 201 and its address; empty where it does not."""
    found = _PLACED.search(reply.location)
    return found[1] if reply.status == 201 and found else ""


def judged(reply: Reply) -> Verdict:
    """How a placement without that proof ended; a rejection needs Schwab's own words.

    201 without an address is an order that exists: it is looked for.
    """
    said = refusal(reply)
    if reply.status == UNAUTHORIZED:
        return token_refused(said)
    silent = before_words(reply)
    if silent is not None:
        return silent
    if reply.status == 403 and said:
        return Verdict(Outcome.REJECTED, "CREDENTIALS_REFUSED", said)
    if reply.status in (400, 404) and said:
        return Verdict(Outcome.REJECTED, "VENUE_REJECTED", said)
    return unknown(f"HTTP {reply.status} {said}")


def refusal(reply: Reply) -> str:
    """Schwab's words: a message, or the titles and details of its errors."""
    told = reply.json()
    if not isinstance(told, Mapping):
        return ""
    words = [str(told.get("message") or "")]
    errors = told.get("errors")
    for one in errors if isinstance(errors, list) else []:
        if isinstance(one, Mapping):
            words += [str(one.get("title") or ""), str(one.get("detail") or "")]
        else:
            words.append(str(one))
    return " ".join(dict.fromkeys(word for word in words if word))
