"""What holds for every sequence of trades."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from execution.positions import Book, Trade, apply

ROUNDING = Decimal("1E-8")
"""What 18 decimals of an average can amount to over all trades of an example."""


def numbers(least: str, most: str) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(least), Decimal(most), places=8)


trades = st.lists(
    st.builds(
        Trade,
        quantity=numbers("-1000", "1000").filter(bool),
        price=numbers("0.00000001", "100000"),
        base_fee=numbers("-0.1", "1"),
        quote_fee=numbers("-1", "10"),
    ),
    max_size=12,
)


def booked(sequence: list[Trade]) -> tuple[Book, Decimal]:
    book, total = Book(), Decimal(0)
    for trade in sequence:
        book, realised = apply(book, trade)
        total += realised
    return book, total


@given(trades)
def test_a_position_is_the_sum_of_its_trades(sequence: list[Trade]) -> None:
    book, realised = booked(sequence)
    assert book.quantity == sum((one.quantity - one.base_fee for one in sequence), Decimal(0))
    assert book.realised_pnl == realised
    assert (book.average_price is None) == (book.quantity == 0)


@given(trades)
def test_no_money_appears_or_vanishes(sequence: list[Trade]) -> None:
    """What was realised less what the position cost is the cash that changed hands."""
    book, _ = booked(sequence)
    cash = -sum((one.quantity * one.price + one.quote_fee for one in sequence), Decimal(0))
    cost = book.quantity * (book.average_price or 0)
    assert abs(book.realised_pnl - cost - cash) < ROUNDING


@given(st.data(), trades)
def test_the_order_of_trades_changes_neither_quantity_nor_wealth(
    data: st.DataObject, sequence: list[Trade]
) -> None:
    one, _ = booked(sequence)
    other, _ = booked(data.draw(st.permutations(sequence)))
    assert one.quantity == other.quantity
    wealth = [
        book.realised_pnl - book.quantity * (book.average_price or 0) for book in (one, other)
    ]
    assert abs(wealth[0] - wealth[1]) < ROUNDING


@given(trades.filter(bool))
def test_the_average_lies_between_the_prices_paid(sequence: list[Trade]) -> None:
    book, _ = booked(sequence)
    if book.average_price is not None:
        prices = [one.price for one in sequence]
        assert min(prices) <= book.average_price <= max(prices)
