"""What an order would cost or bring, by the order book and the fees."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.types import BookLevel, OrderBook, OrderType, Side, TimeInForce, TradingFees
from execution.expected_price import Expected, Terms, expected, walk
from risk.types import ReasonCode, Refusal

D = Decimal
FREE = TradingFees(D(0), D(0))
FEES = TradingFees(maker=D("0.001"), taker=D("0.002"))


def levels(*pairs: tuple[str, str]) -> tuple[BookLevel, ...]:
    return tuple(BookLevel(D(price), D(quantity)) for price, quantity in pairs)


BOOK = OrderBook(
    "BTC/USDT",
    bids=levels(("99", "1"), ("98", "2")),
    asks=levels(("101", "1"), ("102", "2"), ("110", "7")),
    at=datetime(2026, 7, 1, tzinfo=UTC),
)


def market(side: Side, quantity: str) -> Terms:
    return Terms(side, OrderType.MARKET, D(quantity))


def limit(price: str, quantity: str = "2", side: Side = Side.BUY, **terms: object) -> Terms:
    return Terms(side, OrderType.LIMIT, D(quantity), D(price), **terms)  # type: ignore[arg-type]


def test_a_market_order_walks_the_book_and_pays_the_takers_fee() -> None:
    assert expected(market(Side.BUY, "2"), BOOK, FEES) == Expected(
        price=D("101.5"), net=D("101.703"), fee_rate=D("0.002"), taken=D(2)
    )
    assert expected(market(Side.SELL, "3"), BOOK, FREE).price == D("98.333333333333333333")
    assert expected(market(Side.SELL, "1"), BOOK, FEES).net == D("98.802")


def test_more_than_the_book_shows_is_refused_with_both_numbers() -> None:
    with pytest.raises(Refusal) as refused:
        expected(market(Side.SELL, "3.5"), BOOK, FREE)
    assert refused.value.code is ReasonCode.SIZE_TOO_LARGE
    assert refused.value.detail == "the order book shows 3 of 3.5"
    assert refused.value.numbers == {"shown": D(3), "wanted": D("3.5")}


def test_what_a_limit_order_cannot_take_rests_at_its_limit_for_the_makers_fee() -> None:
    told = expected(limit("101", "4"), BOOK, FEES)
    assert (told.taken, told.price) == (D(1), D(101))
    assert told.net == D("101.12625")  # 101 × (1 + (1 × 0.002 + 3 × 0.001) / 4)


def test_a_post_only_order_takes_nothing() -> None:
    told = expected(limit("101", post_only=True), BOOK, FEES)
    assert (told.taken, told.net) == (D(0), D("101.101"))


@pytest.mark.parametrize("until", [TimeInForce.IOC, TimeInForce.FOK])
def test_an_immediate_limit_order_must_find_all_of_it(until: TimeInForce) -> None:
    assert expected(limit("102", "3", time_in_force=until), BOOK, FREE).taken == D(3)
    with pytest.raises(Refusal, match="shows 1 of 3 within the limit"):
        expected(limit("101", "3", time_in_force=until), BOOK, FREE)


def test_a_stop_limit_order_is_counted_at_its_limit() -> None:
    terms = Terms(Side.BUY, OrderType.STOP_LIMIT, D(2), D(120))
    assert expected(terms, BOOK, FEES).net == D("120.24")


@given(st.decimals("0.1", "10", places=2), st.decimals("0", "0.01", places=4))
def test_a_larger_size_or_fee_never_makes_a_purchase_cheaper(size: Decimal, fee: Decimal) -> None:
    fees = TradingFees(fee, fee)
    smaller = expected(Terms(Side.BUY, OrderType.MARKET, size / 2), BOOK, fees)
    larger = expected(Terms(Side.BUY, OrderType.MARKET, size), BOOK, fees)
    free = expected(Terms(Side.BUY, OrderType.MARKET, size), BOOK, FREE)
    assert free.net <= larger.net
    assert smaller.net <= larger.net


def test_walking_stops_at_the_limit() -> None:
    assert walk(BOOK.asks, D(5), Side.BUY, D(102)) == (D(3), D(305))
    assert walk(BOOK.bids, D(5), Side.SELL, D(99)) == (D(1), D(99))
