"""Decimals keep every digit, in the database and on the wire."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.decimals import decimal_text, plain
from tests.factories import OrderFactory

LONGEST = Decimal("12345678901234567890.123456789012345678")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1E+2", "100"),
        ("100.00", "100"),
        ("-1.50", "-1.5"),
        ("-0.000", "0"),
        ("0E+5", "0"),
        ("1E-18", "0.000000000000000001"),
        (str(LONGEST), str(LONGEST)),
        ("NaN", "NaN"),
    ],
)
def test_text_has_neither_exponent_nor_idle_zeros(value: str, text: str) -> None:
    assert decimal_text(Decimal(value)) == text
    assert str(plain(Decimal(value))) == str(Decimal(text))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18), st.integers(1, 60))
def test_no_context_rounds_a_digit_away(value: Decimal, precision: int) -> None:
    with localcontext() as context:
        context.prec = precision
        assert plain(value).compare_total(plain(plain(value))) == 0
        assert not plain(value) > value
        assert not plain(value) < value


@pytest.mark.django_db
def test_the_database_keeps_all_38_digits() -> None:
    order = OrderFactory.create(quantity=LONGEST)
    order.refresh_from_db()
    assert order.quantity == LONGEST
