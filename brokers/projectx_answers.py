"""What ProjectX's answers say (gateway.docs.projectx.com, Gateway API).

Every answer is an object with ``success``, ``errorCode`` and ``errorMessage``; a refusal comes with
status 200. A contract counts as so many units as a point of its price is worth in dollars, so that
quantity times price is its value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from brokers.decimals import plain
from brokers.dialects.answers import Row, iso_moment, member, number, number_if_told, row, text
from brokers.errors import NotShownError, QueryFailedError
from brokers.outcome import DUPLICATE, Verdict, unknown
from brokers.types import (
    BalanceReport,
    Candle,
    FillReport,
    Instrument,
    OrderReport,
    OrderType,
    Outcome,
    PositionReport,
    Quote,
    Side,
    VenueStatus,
)
from brokers.venue_http import UNAUTHORIZED, Reply, before_words, token_refused

TYPES = {
    OrderType.LIMIT: 1,
    OrderType.MARKET: 2,
    OrderType.STOP: 4,
}
SIDES = {Side.BUY: 0, Side.SELL: 1}
_SIDE = {str(number): side for side, number in SIDES.items()}
_ENDED = {
    "2": VenueStatus.FILLED,
    "3": VenueStatus.CANCELED,
    "4": VenueStatus.EXPIRED,
    "5": VenueStatus.REJECTED,
}
_WORKING = frozenset({"1", "6", "7", "8"})
"""Open, pending, about to be cancelled, suspended (OrderStatus of the API's description)."""
REFUSALS = {
    "1": "account not found",
    "2": "order rejected",
    "3": "insufficient funds",
    "4": "account violation",
    "5": "outside trading hours",
    "8": "contract not found",
    "9": "contract not active",
    "10": "account rejected",
}
"""Codes of Order/place that are a rejection; 6 (pending) and 7 (unknown) say nothing for sure."""
LONG, SHORT = "1", "2"
TAKEN = re.compile(f"{DUPLICATE.pattern}|unique|tag", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Contract:
    """One contract month. ``multiplier``: dollars that a whole point of the price is worth."""

    id: str
    name: str
    tick: Decimal
    multiplier: Decimal

    @property
    def symbol(self) -> str:
        return f"{self.name}/USD"


def contract(answer: Row) -> Contract:
    """Raises QueryFailedError for numbers that cannot be."""
    tick, value = number(answer, "tickSize"), number(answer, "tickValue")
    if tick <= 0 or value <= 0:
        raise QueryFailedError("unreadable answer: a contract without tick size or value")
    return Contract(text(answer, "id"), text(answer, "name"), plain(tick), plain(value / tick))


def instrument(found: Contract) -> Instrument:
    return Instrument(
        symbol=found.symbol,
        venue_symbol=found.id,
        base=found.name,
        quote="USD",
        quantity_step=found.multiplier,
        price_tick=found.tick,
        min_quantity=found.multiplier,
        market_type="future",
    )


def order(answer: Row, found: Contract) -> OrderReport:
    """An order as it is now, without its trades. Raises QueryFailedError."""
    filled = plain(_contracts_filled(answer) * found.multiplier)
    average = answer.get("filledPrice")
    return OrderReport(
        broker_order_id=text(answer, "id"),
        client_order_id=str(answer.get("customTag") or ""),
        symbol=found.symbol,
        side=side(answer),
        status=_status(text(answer, "status"), filled),
        quantity=plain(number(answer, "size") * found.multiplier),
        filled_quantity=filled,
        average_price=plain(number(answer, "filledPrice")) if filled and average else None,
    )


def counted(listed: Sequence[Row], trades: Callable[[datetime], Sequence[Row]]) -> list[Row]:
    """``listed`` orders; of working ones that do not tell how much has filled, ``trades`` since their
    time do. Raises QueryFailedError.
    """
    silent = [one for one in listed if _is_silent(one)]
    if not silent:
        return list(listed)
    filled: Counter[str] = Counter()
    for trade in trades(min(at(one) for one in silent)):
        filled[str(trade.get("orderId"))] += int(number(trade, "size"))
    return [
        {**one, "fillVolume": filled[text(one, "id")]} if _is_silent(one) else one for one in listed
    ]


def _is_silent(answer: Row) -> bool:
    return text(answer, "status") in _WORKING and number_if_told(answer, "fillVolume") is None


def _contracts_filled(answer: Row) -> Decimal:
    """Lists of working orders may leave it out; how one ended says it for most others."""
    told, said = number_if_told(answer, "fillVolume"), text(answer, "status")
    if told is not None:
        return told
    if _ENDED.get(said) is VenueStatus.FILLED:
        return number(answer, "size")
    if said in _ENDED and _ENDED[said] is not VenueStatus.REJECTED:
        raise NotShownError("ProjectX: an order has ended and does not tell how much has filled")
    return Decimal(0)


def side(answer: Row) -> Side:
    said = text(answer, "side")
    if said not in _SIDE:
        raise QueryFailedError(f"ProjectX: unreadable side {said!r}")
    return _SIDE[said]


def _status(said: str, filled: Decimal) -> VenueStatus:
    if said in _WORKING:
        return VenueStatus.PARTIALLY_FILLED if filled else VenueStatus.OPEN
    if said not in _ENDED:
        raise QueryFailedError(f"ProjectX: an order is {said!r}, which its documentation has not")
    return _ENDED[said]


def fill(answer: Row, found: Contract) -> FillReport:
    """One trade; its fees are what ProjectX says of it."""
    return FillReport(
        trade_id=text(answer, "id"),
        quantity=plain(number(answer, "size") * found.multiplier),
        price=plain(number(answer, "price")),
        fee=plain(abs(number(answer, "fees"))),
        fee_currency="USD",
        at=iso_moment(answer, "creationTimestamp"),
    )


def position(answer: Row, found: Contract) -> PositionReport:
    kind, size = text(answer, "type"), number(answer, "size")
    if kind not in (LONG, SHORT):
        raise QueryFailedError(f"ProjectX: unreadable position type {kind!r}")
    sign = 1 if kind == LONG else -1
    held = plain(size * sign * found.multiplier)
    return PositionReport(found.symbol, held, plain(number(answer, "averagePrice")))


def balance(account: Row) -> BalanceReport:
    """The account's money. What margin leaves free is not told."""
    total = plain(number(account, "balance"))
    return BalanceReport("USD", total, max(total, Decimal(0)))


def quote(bar: Row, found: Contract) -> Quote:
    """The last price with one tick each way: the REST interface tells no bid and ask."""
    last = plain(number(bar, "c"))
    return Quote(found.symbol, last - found.tick, last + found.tick, last, iso_moment(bar, "t"))


def candle(bar: Row) -> Candle:
    high, low, close = (plain(number(bar, name)) for name in ("h", "l", "c"))
    return Candle(iso_moment(bar, "t"), high, low, close)


def at(answer: Row) -> datetime:
    return iso_moment(answer, "creationTimestamp")


def succeeded(reply: Reply) -> bool:
    return reply.status == 200 and reply.member("success") is True


def judged(reply: Reply) -> Verdict:
    """How a placement without an order's id ended; a rejection needs one of ProjectX's codes.

    A tag that is taken means that an earlier request arrived: the order is looked up.
    """
    if reply.status == UNAUTHORIZED:
        return token_refused(str(reply.member("errorMessage") or ""))
    silent = before_words(reply)
    if silent is not None:
        return silent
    code, message = str(reply.member("errorCode")), str(reply.member("errorMessage") or "")
    said = " ".join(word for word in (REFUSALS.get(code, f"code {code}"), message) if word)
    refused = reply.status == 200 and reply.member("success") is False and code in REFUSALS
    if refused and not TAKEN.search(message):
        return Verdict(Outcome.REJECTED, "VENUE_REJECTED", said)
    return unknown(f"HTTP {reply.status} {said}")


def account_named(found: Sequence[Row], name: str) -> Row | None:
    return next((row(one) for one in found if str(member(one, "name")) == name), None)
