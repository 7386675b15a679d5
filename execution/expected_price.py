"""What an order would cost or bring at a venue, fees included, by walking its order book. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext

from brokers.decimals import decimal_text
from brokers.types import BookLevel, OrderBook, OrderType, Side, TimeInForce, TradingFees
from risk.arithmetic import ARITHMETIC, shown
from risk.types import ReasonCode, Refusal


@dataclass(frozen=True, slots=True)
class Terms:
    """An order before it has an account. ``price`` is its limit, if it has one."""

    side: Side
    type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False

    @property
    def must_fill_at_once(self) -> bool:
        return self.price is None or self.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)


@dataclass(frozen=True, slots=True)
class Expected:
    """Per unit of the base asset, in the quote asset. ``net`` has the fees in it: more for a buy, less
    for a sale. ``taken`` is how much would trade at once, ``fee_rate`` what is paid on the whole.
    """

    price: Decimal
    net: Decimal
    fee_rate: Decimal
    taken: Decimal


def expected(terms: Terms, book: OrderBook, fees: TradingFees) -> Expected:
    """What ``terms`` would come to. What rests is counted at its limit and the maker's fee.

    Raises Refusal SIZE_TOO_LARGE where an order that must trade at once finds too little.
    """
    if terms.type is OrderType.STOP_LIMIT and terms.price is not None:
        return _priced(terms, terms.price * terms.quantity, Decimal(0), fees)
    limit = terms.price if terms.type is OrderType.LIMIT else None
    taken, value = Decimal(0), Decimal(0)
    if not terms.post_only:
        taken, value = walk(book.offers(terms.side), terms.quantity, terms.side, limit)
    if taken < terms.quantity and (limit is None or terms.must_fill_at_once):
        raise Refusal(
            ReasonCode.SIZE_TOO_LARGE,
            f"the order book shows {decimal_text(taken)} of {decimal_text(terms.quantity)}"
            + ("" if limit is None else " within the limit"),
            {"shown": taken, "wanted": terms.quantity},
        )
    resting = (terms.quantity - taken) * (limit or Decimal(0))
    return _priced(terms, value, resting, fees, taken)


def walk(
    levels: Iterable[BookLevel], quantity: Decimal, side: Side, limit: Decimal | None = None
) -> tuple[Decimal, Decimal]:
    """How much of ``quantity`` the levels hold, no worse than ``limit``, and its value."""
    left, value = quantity, Decimal(0)
    for level in levels:
        is_beyond = limit is not None and (level.price - limit) * side.sign > 0
        if left <= 0 or is_beyond:
            break
        part = min(left, level.quantity)
        value += part * level.price
        left -= part
    return quantity - left, value


def _priced(
    terms: Terms,
    taking: Decimal,
    resting: Decimal,
    fees: TradingFees,
    taken: Decimal = Decimal(0),
) -> Expected:
    with localcontext(ARITHMETIC):
        value = taking + resting
        fee = taking * fees.taker + resting * fees.maker
        return Expected(
            price=shown(value / terms.quantity),
            net=shown((value + fee * terms.side.sign) / terms.quantity),
            fee_rate=shown(fee / value),
            taken=taken,
        )
