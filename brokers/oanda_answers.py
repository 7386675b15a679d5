"""What OANDA's answers say (developer.oanda.com, v20 REST; OpenAPI at github.com/oanda/v20-openapi).

Numbers are text there; units carry the side in their sign. An order that was taken in may end within
the same answer: its own state, its filling and its cancelling transaction tell what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from brokers import order_books
from brokers.decimals import decimal_text, plain
from brokers.dialects.answers import Row, iso_moment, member, number, row, rows, text
from brokers.errors import NotShownError, QueryFailedError, QuoteUnavailableError
from brokers.outcome import Verdict, unknown
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

OF_A_TRADE = frozenset({"TAKE_PROFIT", "STOP_LOSS", "GUARANTEED_STOP_LOSS", "TRAILING_STOP_LOSS"})
"""Orders that hang on a trade and name neither instrument nor units."""
TAKEN_ID = "CLIENT_ORDER_ID_ALREADY_EXISTS"
NO_ORDER = frozenset({"NO_SUCH_ORDER", "ORDER_DOESNT_EXIST"})


def symbol_of(name: str) -> str:
    """``EUR_USD`` is EUR/USD here."""
    base, _, quote = name.rpartition("_")
    return f"{base}/{quote}"


def instrument(answer: Row, symbol: str) -> Instrument:
    base, _, quote = symbol.partition("/")
    largest = number(answer, "maximumOrderUnits")
    return Instrument(
        symbol=symbol,
        venue_symbol=text(answer, "name"),
        base=base,
        quote=quote,
        quantity_step=_step(answer, "tradeUnitsPrecision"),
        price_tick=_step(answer, "displayPrecision"),
        min_quantity=plain(number(answer, "minimumTradeSize")),
        max_quantity=plain(largest) if largest else None,
        market_type="forex" if answer.get("type") == "CURRENCY" else "cfd",
    )


def _step(answer: Row, name: str) -> Decimal:
    """``10 ** -places``; the number of decimals is a whole number."""
    places = number(answer, name)
    if places % 1 or not 0 <= places <= 18:
        raise QueryFailedError(f"unreadable answer: {name} is no number of decimals")
    return Decimal(1).scaleb(-int(places))


def client_id(order: Row) -> str:
    extensions = order.get("clientExtensions")
    return str(extensions.get("id") or "") if isinstance(extensions, Mapping) else ""


def of_trade(answer: Row, trade: Row, ended_by: Row | None) -> Row:
    """A stop that hangs on ``trade``, with the instrument and units it stands for: what is left of the
    trade while it waits, what it sold or bought once it has filled.
    """
    if ended_by is not None and answer.get("state") == "FILLED":
        units = number(ended_by, "units")
    else:
        waits = answer.get("state") == "PENDING"
        units = -number(trade, "currentUnits" if waits else "initialUnits")
    return {**answer, "instrument": text(trade, "instrument"), "units": decimal_text(units)}


def order(answer: Row, ended_by: Row | None, currency: str) -> OrderReport:
    """An order as it is now; ``ended_by`` is the transaction that filled or cancelled it.

    One transaction fills an order. What it left over is gone (immediate orders) or was reissued as
    an order with another id, which then shows as one that FKS did not place.
    """
    units = number(answer, "units")
    state, name = text(answer, "state"), text(answer, "instrument")
    report = OrderReport(
        broker_order_id=text(answer, "id"),
        client_order_id=client_id(answer),
        symbol=symbol_of(name),
        side=Side.BUY if units > 0 else Side.SELL,
        status=VenueStatus.OPEN,
        quantity=plain(abs(units)),
        filled_quantity=Decimal(0),
        average_price=None,
    )
    if state == "PENDING":
        return report
    if ended_by is None or state not in ("FILLED", "CANCELLED"):
        raise NotShownError(f"OANDA: an order is {state!r} and nothing says what became of it")
    if state == "CANCELLED":
        said = str(ended_by.get("reason") or "")
        status = VenueStatus.EXPIRED if said == "TIME_IN_FORCE_EXPIRED" else VenueStatus.CANCELED
        return replace(report, status=status, reason=said)
    done = fill(ended_by, currency)
    whole = done.quantity >= report.quantity
    return replace(
        report,
        filled_quantity=done.quantity,
        average_price=done.price,
        fills=(done,),
        status=VenueStatus.FILLED if whole else VenueStatus.CANCELED,
        reason="" if whole else "filled in part; OANDA keeps no rest under this id",
    )


def fill(answer: Row, currency: str) -> FillReport:
    """The trade of an ORDER_FILL transaction; ``currency`` is the account's, which pays the fee."""
    price = number(answer, "fullVWAP") if answer.get("fullVWAP") else number(answer, "price")
    names = [name for name in ("commission", "guaranteedExecutionFee") if answer.get(name)]
    fee = sum((abs(number(answer, name)) for name in names), Decimal(0))
    return FillReport(
        trade_id=text(answer, "id"),
        quantity=plain(abs(number(answer, "units"))),
        price=plain(price),
        fee=plain(fee),
        fee_currency=currency,
        at=iso_moment(answer, "time"),
    )


def quote(answer: Row, symbol: str) -> Quote:
    """The best prices. Raises QuoteUnavailableError while the instrument does not trade."""
    bids, asks = rows(member(answer, "bids")), rows(member(answer, "asks"))
    if answer.get("tradeable") is False or not bids or not asks:
        raise QuoteUnavailableError(f"{symbol} does not trade at OANDA now")
    bid, ask = plain(number(bids[0], "price")), plain(number(asks[0], "price"))
    return Quote(symbol, bid, ask, (bid + ask) / 2, iso_moment(answer, "time"))


def order_book(answer: Row, symbol: str) -> OrderBook:
    """The price buckets, at their time. Raises QuoteUnavailableError while nothing trades."""
    told = quote(answer, symbol)
    bids, asks = (
        [(number(one, "price"), number(one, "liquidity")) for one in rows(member(answer, side))]
        for side in ("bids", "asks")
    )
    return order_books.order_book(symbol, bids, asks, told.at)


def position(answer: Row) -> PositionReport:
    """Net units. Raises QueryFailedError where both sides are held: FKS counts one."""
    name, sides = text(answer, "instrument"), (row(answer, "long"), row(answer, "short"))
    held = [one for one in sides if number(one, "units")]
    if len(held) > 1:
        raise QueryFailedError(f"OANDA: {name} is held long and short at once")
    if not held:
        return PositionReport(symbol_of(name), Decimal(0), None)
    (one,) = held
    average = plain(number(one, "averagePrice"))
    return PositionReport(symbol_of(name), plain(number(one, "units")), average)


def candle(answer: Row) -> Candle:
    mid = row(answer, "mid")
    high, low, close = (plain(number(mid, name)) for name in ("h", "l", "c"))
    return Candle(iso_moment(answer, "time"), high, low, close)


def is_placed(reply: Reply, client_order_id: str) -> bool:
    """Whether the answer proves the order: a transaction that created it under our id."""
    created = reply.member("orderCreateTransaction")
    if reply.status != 201 or not isinstance(created, Mapping):
        return False
    return bool(created.get("id")) and client_id(created) == client_order_id


def judged(reply: Reply) -> Verdict:
    """How a placement without that proof ended.

    A rejection is a transaction that says so (``orderRejectTransaction``), or a refusal of the
    request itself before there was any (400 or 404 with OANDA's own error, 401 and 403). An id that
    is taken means that an earlier request arrived: the order is looked up.
    """
    silent = before_words(reply)
    if silent is not None:
        return silent
    said = refusal(reply)
    rejected = reply.member("orderRejectTransaction")
    if TAKEN_ID in said:
        return unknown(f"HTTP {reply.status} {said}")
    if reply.status in (401, 403) and reply.member("errorMessage"):
        return Verdict(Outcome.REJECTED, "CREDENTIALS_REFUSED", said)
    if reply.status in (400, 404) and (
        isinstance(rejected, Mapping) or reply.member("errorMessage")
    ):
        return Verdict(Outcome.REJECTED, "VENUE_REJECTED", said)
    return unknown(f"HTTP {reply.status} {said}")


def refusal(reply: Reply) -> str:
    """OANDA's words: the reason of the transaction that refused, its code, its sentence."""
    words = []
    for name in ("orderRejectTransaction", "orderCancelRejectTransaction"):
        told = reply.member(name)
        if isinstance(told, Mapping):
            words.append(str(told.get("rejectReason") or ""))
    words += [str(reply.member(name) or "") for name in ("errorCode", "errorMessage")]
    return " ".join(dict.fromkeys(word for word in words if word))
