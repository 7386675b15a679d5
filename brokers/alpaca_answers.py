"""What Alpaca's answers say (docs.alpaca.markets, Trading API and Market Data API).

Statuses: "Orders at Alpaca", order lifecycle. A status not listed there is no answer: nothing is
guessed from it. Numbers come as text, market data as JSON numbers, both are read exactly.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import ROUND_CEILING, Decimal

from brokers import order_books
from brokers.decimals import plain
from brokers.dialects.answers import (
    Row,
    iso_moment,
    member,
    number,
    number_if_told,
    row,
    rows,
    text,
)
from brokers.errors import QueryFailedError, QuoteUnavailableError, UnknownSymbolError
from brokers.outcome import DUPLICATE, Verdict, unknown
from brokers.types import (
    Candle,
    FillReport,
    Instrument,
    OrderBook,
    OrderReport,
    Outcome,
    PositionReport,
    Quote,
    Side,
    VenueStatus,
)
from brokers.venue_http import Reply, before_words

STOCKS, CRYPTO = "stocks", "crypto"
ASSET_CLASS = {STOCKS: "us_equity", CRYPTO: "crypto"}
_WORKING = frozenset(
    (
        "new", "accepted", "pending_new", "accepted_for_bidding", "partially_filled", "held",
        "pending_cancel", "pending_replace", "done_for_day", "stopped", "suspended", "calculated",
        "pending_review",
    )
)  # fmt: skip
_ENDED = {
    "filled": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELED,
    "replaced": VenueStatus.CANCELED,
    "expired": VenueStatus.EXPIRED,
    "rejected": VenueStatus.REJECTED,
}
WHOLE, PARTS = Decimal(1), Decimal("1E-9")
"""Steps of a quantity: shares, and the nine decimals Alpaca takes of a share."""
CENT = Decimal("0.01")
_BPS = Decimal(10_000)
REFUSED = re.compile(r"4(00|03|04|22)\d{5}")
"""Codes that are a rejection: bad request, forbidden, not found, unprocessable. No other is."""
NAMELESS = {401: "unauthorized", 403: "forbidden"}
"""Statuses whose message is all that Alpaca says when it refuses the key itself."""


def symbol_of(venue_symbol: str, market: str) -> str:
    """Our symbol; positions in crypto are named without their slash there."""
    if "/" in venue_symbol:
        return venue_symbol
    return f"{venue_symbol if market == STOCKS else venue_symbol.removesuffix('USD')}/USD"


def instrument(asset: Row, symbol: str, market: str, *, fractional: bool) -> Instrument:
    """The rules of one asset. Raises UnknownSymbolError for one that does not trade.

    The price tick of a share is a cent (Rule 612 allows hundredths of a cent only below a dollar,
    where a cent is on the grid as well).
    """
    listed = text(asset, "class") == ASSET_CLASS[market]
    if not listed or asset.get("tradable") is not True or asset.get("status") != "active":
        raise UnknownSymbolError(f"{symbol} does not trade at Alpaca here")
    base, _, quote = symbol.partition("/")
    if market == STOCKS:
        if fractional and asset.get("fractionable") is not True:
            fractional = False
        step = PARTS if fractional else WHOLE
        least, tick, kind = step, CENT, "stock"
    else:
        step, kind = plain(number(asset, "min_trade_increment")), "spot"
        least, tick = (
            plain(number(asset, "min_order_size")),
            plain(number(asset, "price_increment")),
        )
    return Instrument(
        symbol=symbol,
        venue_symbol=text(asset, "symbol"),
        base=base,
        quote=quote,
        quantity_step=step,
        price_tick=tick,
        min_quantity=least,
        min_value=Decimal(1) if fractional and market == STOCKS else None,
        market_type=kind,
    )


def order(answer: Row, symbol: str) -> OrderReport:
    """An order as it is now, without its trades. Raises QueryFailedError for one that cannot be read.

    One placed by hand for an amount of money has no quantity: what it has filled is told.
    """
    filled, quantity = plain(_filled(answer)), number_if_told(answer, "qty")
    average = number_if_told(answer, "filled_avg_price")
    return OrderReport(
        broker_order_id=text(answer, "id"),
        client_order_id=str(answer.get("client_order_id") or ""),
        symbol=symbol,
        side=_side(answer),
        status=_status(text(answer, "status"), filled),
        quantity=filled if quantity is None else plain(quantity),
        filled_quantity=filled,
        average_price=None if average is None else plain(average),
        reason=_reason(answer),
    )


def _filled(answer: Row) -> Decimal:
    """Nothing, where an order that works or was rejected does not tell."""
    told, said = number_if_told(answer, "filled_qty"), text(answer, "status")
    if told is None and (said in _WORKING or said == "rejected"):
        return Decimal(0)
    return number(answer, "filled_qty")


def _status(said: str, filled: Decimal) -> VenueStatus:
    if said in _WORKING:
        return VenueStatus.PARTIALLY_FILLED if filled else VenueStatus.OPEN
    if said not in _ENDED:
        raise QueryFailedError(f"Alpaca: an order is {said!r}, which its documentation has not")
    return _ENDED[said]


def _reason(answer: Row) -> str:
    if answer.get("status") == "replaced":
        return f"replaced at the venue by order {answer.get('replaced_by') or 'unknown'}"
    return ""


def _side(answer: Row) -> Side:
    """``sell_short`` is how activities call the sale of what was not held."""
    said = text(answer, "side")
    if said in ("sell", "sell_short"):
        return Side.SELL
    if said == "buy":
        return Side.BUY
    raise QueryFailedError(f"Alpaca: unreadable side {said!r}")


def fill(answer: Row, symbol: str, market: str, crypto_fee_bps: Decimal) -> FillReport:
    """One trade from the account's activities, which do not tell its fee.

    Shares trade without commission. Crypto pays in what the trade credits: the coin when buying, the
    quote when selling (docs.alpaca.markets, Crypto Spot Trading Fees); the rate is the account's.
    """
    quantity, price = plain(number(answer, "qty")), plain(number(answer, "price"))
    base, _, quote = symbol.partition("/")
    fee, currency = Decimal(0), quote
    if market == CRYPTO:
        buys = _side(answer) is Side.BUY
        credited, currency = (quantity, base) if buys else (quantity * price, quote)
        fee = plain((credited * crypto_fee_bps / _BPS).quantize(PARTS, ROUND_CEILING))
    return FillReport(
        trade_id=text(answer, "id"),
        quantity=quantity,
        price=price,
        fee=fee,
        fee_currency=currency,
        at=iso_moment(answer, "transaction_time"),
    )


def quote(answer: Row, symbol: str) -> Quote:
    """Bid and ask of a snapshot, at the time of the quote; what never traded is worth their middle.
    Raises QuoteUnavailableError."""
    if not answer.get("latestQuote"):
        raise QuoteUnavailableError(f"Alpaca has no quote of {symbol}")
    best, trade = row(answer, "latestQuote"), answer.get("latestTrade")
    bid, ask = number(best, "bp"), number(best, "ap")
    last = number(row(trade), "p") if trade else (bid + ask) / 2
    if min(bid, ask, last) <= 0:
        raise QuoteUnavailableError(f"Alpaca has no bid and ask of {symbol} now")
    return Quote(symbol, plain(bid), plain(ask), plain(last), iso_moment(best, "t"))


def best_prices(answer: Row, symbol: str) -> OrderBook:
    """Of a snapshot, sizes in shares (docs.alpaca.markets, changelog of 2025-10-30: CTA/UTP bid and ask
    size); where a feed still counts in round lots more is offered than this. Raises
    QuoteUnavailableError.
    """
    told, best = quote(answer, symbol), row(answer, "latestQuote")
    return order_books.best_prices(told, number(best, "bs"), number(best, "as"))


def order_book(answer: Row, symbol: str) -> OrderBook:
    """Alpaca's own book of a pair, at its time. Raises QuoteUnavailableError."""
    bids, asks = (
        [(number(one, "p"), number(one, "s")) for one in rows(member(answer, side))]
        for side in ("b", "a")
    )
    return order_books.order_book(symbol, bids, asks, iso_moment(answer, "t"))


def candle(answer: Row) -> Candle:
    """An hour's bar of the market data."""
    high, low, close = (plain(number(answer, name)) for name in ("h", "l", "c"))
    return Candle(iso_moment(answer, "t"), high, low, close)


def position(answer: Row, market: str) -> PositionReport:
    size = abs(number(answer, "qty"))
    sign = -1 if text(answer, "side") == "short" else 1
    return PositionReport(
        symbol_of(text(answer, "symbol"), market),
        plain(size * sign),
        plain(number(answer, "avg_entry_price")),
    )


def clock(answer: Row) -> tuple[bool, datetime, datetime]:
    """Whether the stock market is open, until when, and the venue's own time."""
    is_open = member(answer, "is_open")
    if not isinstance(is_open, bool):
        raise QueryFailedError("unreadable answer: is_open is neither true nor false")
    changes = "next_close" if is_open else "next_open"
    return is_open, iso_moment(answer, changes), iso_moment(answer, "timestamp")


def is_placed(reply: Reply, client_order_id: str) -> bool:
    """Whether the answer proves the order: a success that names its id there and ours."""
    succeeded = reply.status is not None and 200 <= reply.status < 300
    order_id = reply.member("id")
    named = isinstance(order_id, str) and bool(order_id)
    return succeeded and named and reply.member("client_order_id") == client_order_id


def judged(reply: Reply) -> Verdict:
    """How a placement without that proof ended; a rejection needs a code of Alpaca's own.

    An id the venue knows already means that an earlier request arrived (code 40010001, "must be
    unique"): the order is looked up.
    """
    silent = before_words(reply)
    if silent is not None:
        return silent
    answer = reply.json()
    code, message = str(answer.get("code") or ""), str(answer.get("message") or "")
    said = f"{code} {message}".strip()
    if reply.status in NAMELESS and NAMELESS[reply.status] in message.lower() and not code:
        return Verdict(Outcome.REJECTED, "CREDENTIALS_REFUSED", said)
    if reply.status in NAMELESS and code.startswith("401"):
        return Verdict(Outcome.REJECTED, "CREDENTIALS_REFUSED", said)
    proven = reply.status in (400, 403, 404, 422) and REFUSED.fullmatch(code)
    if proven and not DUPLICATE.search(message):
        return Verdict(Outcome.REJECTED, "VENUE_REJECTED", said)
    return unknown(f"HTTP {reply.status} {said}")
