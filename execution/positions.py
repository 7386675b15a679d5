"""What fills add up to: average cost, realised profit and loss. Pure arithmetic on Decimals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

QUANTUM = Decimal("1E-18")
ZERO = Decimal(0)
PRECISION = 100
"""Digits of intermediate results: a product of two columns has 76."""


@dataclass(frozen=True, slots=True)
class Book:
    """A position: signed quantity, its average entry price (``None`` when flat), realised so far.

    ``fees`` is what was paid so far, counted in the quote asset.
    """

    quantity: Decimal = ZERO
    average_price: Decimal | None = None
    realised_pnl: Decimal = ZERO
    fees: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill. ``quantity`` is signed (+ bought); ``base_fee``, ``quote_fee`` are what was paid."""

    quantity: Decimal
    price: Decimal
    base_fee: Decimal = ZERO
    quote_fee: Decimal = ZERO


def apply(book: Book, trade: Trade) -> tuple[Book, Decimal]:
    """The book after ``trade``, and what the trade realised in the quote asset, fees taken off.

    A trade through zero closes at the old average and opens the rest at its own price. A fee in the
    base asset is booked as what it is: coins parted with at the trade's price, and that price paid.
    """
    with localcontext() as context:
        context.prec = PRECISION
        traded = _moved(book, trade.quantity, trade.price)
        after = _moved(traded, -trade.base_fee, trade.price)
        fees = trade.quote_fee + trade.base_fee * trade.price
        realised = _exact(after.realised_pnl - book.realised_pnl - fees)
        total = _exact(book.fees + fees)
        return replace(after, realised_pnl=book.realised_pnl + realised, fees=total), realised


def totals(fills: Sequence[tuple[Decimal, Decimal]]) -> tuple[Decimal, Decimal | None]:
    """What (quantity, price) pairs add up to: the quantity, and its mean price (``None`` if zero)."""
    with localcontext() as context:
        context.prec = PRECISION
        quantity = sum((quantity for quantity, _ in fills), ZERO)
        if not quantity:
            return quantity, None
        cost = sum((quantity * price for quantity, price in fills), ZERO)
        return quantity, _exact(cost / quantity)


def mean(*parts: tuple[Decimal, Decimal | None]) -> Decimal | None:
    """The price of (quantity, price) pairs together; ``None`` for nothing, or where one is unknown."""
    told = [(quantity, price) for quantity, price in parts if quantity and price is not None]
    if len(told) < sum(bool(quantity) for quantity, _ in parts):
        return None
    return totals(told)[1]


def told_apart(
    ours: Book, theirs: Book, trades: Iterable[tuple[bool, Decimal, Decimal]]
) -> tuple[Book, list[Decimal]]:
    """Two parts of one position after ``trades``, which say whether they are of ``theirs``, how much
    (+ bought) and the price: ``ours`` by now, and what each trade realised beyond what it did at the
    mean of both. Fees are left out.
    """
    parts = ((part.quantity, part.average_price or ZERO) for part in (ours, theirs))
    both, before, beyond = Book(*totals(list(parts))), ZERO, []
    with localcontext() as context:
        context.prec = PRECISION
        for is_theirs, quantity, price in trades:
            both = _moved(both, quantity, price)
            if is_theirs:
                theirs = _moved(theirs, quantity, price)
            else:
                ours = _moved(ours, quantity, price)
            ours, theirs = _settled(ours, theirs)
            so_far = ours.realised_pnl + theirs.realised_pnl - both.realised_pnl
            beyond.append(_exact(so_far - before))
            before = so_far
    return ours, beyond


def _settled(ours: Book, theirs: Book) -> tuple[Book, Book]:
    """Where one part has sold of the other's as well, it takes that over at its cost."""
    price = theirs.average_price
    if price is None or ours.quantity * theirs.quantity >= 0:
        return ours, theirs
    taken = min(abs(ours.quantity), abs(theirs.quantity))
    return (
        _moved(ours, taken.copy_sign(theirs.quantity), price),
        _moved(theirs, taken.copy_sign(ours.quantity), price),
    )


def _moved(book: Book, quantity: Decimal, price: Decimal) -> Book:
    """``book`` after ``quantity`` (signed) changed hands at ``price``, without fees."""
    held = book.quantity
    after = held + quantity
    realised = book.realised_pnl
    if held * quantity < 0 and book.average_price is not None:
        closing = min(abs(held), abs(quantity)).copy_sign(held)
        realised += closing * (price - book.average_price)
    return Book(after, _average(book, quantity, price), realised)


def _average(book: Book, quantity: Decimal, price: Decimal) -> Decimal | None:
    after = book.quantity + quantity
    if after == 0:
        return None
    if book.average_price is None or book.quantity * after <= 0:
        return price
    if abs(after) <= abs(book.quantity):
        return book.average_price
    return _exact((book.quantity * book.average_price + quantity * price) / after)


def _exact(value: Decimal) -> Decimal:
    return value.quantize(QUANTUM, rounding=ROUND_HALF_EVEN)
