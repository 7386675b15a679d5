"""What fills add up to: average cost, realised profit and loss. Pure arithmetic on Decimals."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

QUANTUM = Decimal("1E-18")
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Book:
    """A position: signed quantity, its average entry price (``None`` when flat), realised so far."""

    quantity: Decimal = ZERO
    average_price: Decimal | None = None
    realised_pnl: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill. ``quantity`` is signed (+ bought); ``base_fee``, ``quote_fee`` are what was paid."""

    quantity: Decimal
    price: Decimal
    base_fee: Decimal = ZERO
    quote_fee: Decimal = ZERO


def apply(book: Book, trade: Trade) -> tuple[Book, Decimal]:
    """The book after ``trade``, and what the trade realised in the quote asset, fees taken off.

    A fee in the base asset leaves the position and costs its worth at the trade's price. A trade
    through zero closes at the old average and opens the rest at its own price.
    """
    with localcontext() as context:
        context.prec = 60
        realised = -trade.quote_fee - trade.base_fee * trade.price
        closing = _closing_part(book.quantity, trade.quantity)
        if closing and book.average_price is not None:
            direction = 1 if book.quantity > 0 else -1
            realised += closing * (trade.price - book.average_price) * direction
        quantity = book.quantity + trade.quantity
        after = Book(
            quantity=quantity - trade.base_fee,
            average_price=_average(book, trade, quantity),
            realised_pnl=_exact(book.realised_pnl + realised),
        )
        return after, _exact(realised)


def _closing_part(held: Decimal, traded: Decimal) -> Decimal:
    """How much of the trade reduces what is held, as a positive quantity."""
    if held * traded >= 0:
        return ZERO
    return min(abs(held), abs(traded))


def _average(book: Book, trade: Trade, quantity: Decimal) -> Decimal | None:
    if quantity - trade.base_fee == 0:
        return None
    if book.average_price is None or book.quantity * quantity <= 0:
        return trade.price
    if abs(quantity) <= abs(book.quantity):
        return book.average_price
    cost = abs(book.quantity) * book.average_price + abs(trade.quantity) * trade.price
    return _exact(cost / abs(quantity))


def _exact(value: Decimal) -> Decimal:
    return value.quantize(QUANTUM, rounding=ROUND_HALF_EVEN)
