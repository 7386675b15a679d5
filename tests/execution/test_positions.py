"""The arithmetic of positions: average cost, realised profit, fees."""

from __future__ import annotations

from decimal import Decimal

import pytest

from execution.positions import Book, Trade, apply, told_apart, totals

D = Decimal


def booked(*trades: Trade) -> tuple[Book, list[Decimal]]:
    book, realised = Book(), []
    for trade in trades:
        book, part = apply(book, trade)
        realised.append(part)
    return book, realised


def test_buying_more_averages_the_cost() -> None:
    book, realised = booked(Trade(D(1), D(100)), Trade(D(3), D(200)))
    assert book == Book(D(4), D(175), D(0))
    assert realised == [0, 0]


def test_selling_a_part_realises_against_the_average_and_keeps_it() -> None:
    book, realised = booked(Trade(D(2), D(100)), Trade(D(-1), D(130)))
    assert book == Book(D(1), D(100), D(30))
    assert realised == [0, 30]


def test_closing_leaves_no_average() -> None:
    book, _ = booked(Trade(D(2), D(100)), Trade(D(-2), D(90)))
    assert book == Book(D(0), None, D(-20))


def test_a_short_gains_when_the_price_falls() -> None:
    book, realised = booked(Trade(D(-2), D(100)), Trade(D(1), D(80)))
    assert book == Book(D(-1), D(100), D(20))
    assert realised == [0, 20]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_trade_through_zero_closes_and_opens_the_rest_at_its_own_price(sign: int) -> None:
    book, realised = booked(Trade(D(2) * sign, D(100)), Trade(D(-5) * sign, D(110)))
    assert book == Book(D(-3) * sign, D(110), D(20) * sign)
    assert realised == [0, 20 * sign]


def test_a_fee_in_the_quote_asset_costs_and_leaves_the_quantity() -> None:
    book, realised = booked(Trade(D(1), D(100), quote_fee=D("0.1")))
    assert book == Book(D(1), D(100), D("-0.1"), D("0.1"))
    assert realised == [D("-0.1")]


def test_a_fee_in_the_coin_leaves_the_position_at_what_it_had_cost() -> None:
    book, realised = booked(Trade(D(1), D(100), base_fee=D("0.001")))
    assert book == Book(D("0.999"), D(100), D("-0.1"), D("0.1"))
    assert realised == [D("-0.1")]


def test_a_fee_in_the_coin_neither_makes_nor_loses_money_elsewhere() -> None:
    """200 was paid for the first coin and 100 for the second; 1.9 coins are left of 2."""
    book, _ = booked(Trade(D(1), D(200)), Trade(D(1), D(100), base_fee=D("0.1")))
    assert (book.quantity, book.average_price) == (D("1.9"), D(150))
    assert book.realised_pnl - book.quantity * book.average_price == -300


def test_a_fee_in_the_coin_may_turn_a_closed_position_over() -> None:
    book, _ = booked(Trade(D(1), D(100)), Trade(D(-1), D(200), base_fee=D("0.001")))
    assert book == Book(D("-0.001"), D(200), D("99.8"), D("0.2"))


def test_a_rebate_in_the_coin_is_a_gift_at_the_trades_price() -> None:
    book, realised = booked(Trade(D(1), D(100), base_fee=D("-0.5")))
    assert book == Book(D("1.5"), D(100), D(50), D(-50))
    assert realised == [50]


def test_averages_are_exact_to_18_decimals() -> None:
    book, _ = booked(Trade(D(1), D(1)), Trade(D(2), D(2)))
    assert book.average_price == D("1.666666666666666667")


def test_numbers_as_wide_as_the_columns_are_not_rounded() -> None:
    wide = D("12345678901234567890.123456789012345678")
    book, _ = booked(Trade(wide, D(1)), Trade(D("1E-18"), D(1)))
    assert book.quantity == D("12345678901234567890.123456789012345679")


def test_what_fills_add_up_to() -> None:
    assert totals([]) == (0, None)
    assert totals([(D(1), D(100)), (D(3), D(200))]) == (4, 175)


def test_totals_keep_every_digit() -> None:
    """Currencies exist in which a coin costs more than ten digits, and coins cheaper than dust."""
    price = D("31234567890.123456789012345678")
    assert totals([(D("0.000000000000000003"), price)]) == (D("3E-18"), price)
    many = D("12345678901234567890.123456789012345678")
    one_more = D("12345678901234567890.123456789012345679")
    assert totals([(many, D(1)), (D("1E-18"), D(1))]) == (one_more, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_two_parts_of_a_position_told_apart_each_realise_at_their_own_cost(sign: int) -> None:
    """1 of ours at 60 and 9 of theirs at 70 were booked at 69."""
    trades = [(False, D("-0.5") * sign, D(62)), (True, D(-9) * sign, D(71))]
    ours, beyond = told_apart(Book(D(1) * sign, D(60)), Book(D(9) * sign, D(70)), trades)
    assert ours == Book(D("0.5") * sign, D(60), sign * D(1))
    assert beyond == [sign * D("4.5"), sign * D(-9)]


@pytest.mark.parametrize(("is_theirs", "cost"), [(True, 60), (False, 70)])
def test_a_part_that_sells_more_than_it_has_sells_of_the_other(is_theirs: bool, cost: int) -> None:
    """1 at each cost, at 65 together, of which one sells 1.5 at 80."""
    sold = (is_theirs, D("-1.5"), D(80))
    ours, beyond = told_apart(Book(D(1), D(60)), Book(D(1), D(70)), [sold])
    own = 130 - cost
    true = (80 - own) + (80 - cost) * D("0.5")
    assert beyond == [true - D("22.5")]
    assert (ours.quantity, ours.average_price) == ((D("0.5"), 60) if is_theirs else (0, None))
