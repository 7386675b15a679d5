"""How numbers look on pages."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brokers import display


@pytest.mark.parametrize(
    ("exact", "shown"),
    [
        ("3003.699170038888888889", "3003.69917"),
        ("60000.5", "60000.5"),
        ("0.000012345678901234", "0.0000123456789"),
        ("123456789012.345678", "123456789012.35"),
        ("0.3333333333333333333", "0.3333333333"),
        ("100", "100"),
        ("0", "0"),
        ("-1.00000000005", "-1"),
    ],
)
def test_a_computed_price_is_short_and_exact_on_hover(exact: str, shown: str) -> None:
    assert display.average(Decimal(exact)) == (
        f'<span class="fks-number" title="{exact}">{shown}</span>'
    )


def test_a_price_nobody_knows_is_a_dash() -> None:
    assert display.average(None) == display.EMPTY
