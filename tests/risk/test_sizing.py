from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from brokers.types import OrderType, Quote, Side
from risk.prices import entry_price, round_price
from risk.sizing import in_base, size
from risk.types import LimitMode, QuantityType, ReasonCode, Refusal, SizingMethod, Step
from tests.risk.builders import AT, FACTS, facts, intent, limit, policy, rules

FIXED = policy(quantity="0.5")
PERCENT = policy(SizingMethod.FIXED_PERCENT, percent="0.1")
RISK = policy(SizingMethod.RISK, percent="0.02")
ATR = policy(SizingMethod.ATR, percent="0.02", atr_multiple=2)


@pytest.mark.parametrize(
    ("order", "sizing", "known", "quantity"),
    [
        (intent(), FIXED, FACTS, "0.5"),
        (intent(quantity="0.25"), FIXED, FACTS, "0.25"),
        (intent(quantity=50, quantity_type=QuantityType.QUOTE), FIXED, FACTS, "0.5"),
        (intent(quantity=5, quantity_type=QuantityType.PERCENT_OF_EQUITY), FIXED, FACTS, "5"),
        (
            intent(quantity=1, quantity_type=QuantityType.RISK_PERCENT, stop_loss=90),
            FIXED,
            FACTS,
            "10",
        ),
        (intent(), PERCENT, FACTS, "10"),
        (intent(), PERCENT, facts(to_account_currency="0.5"), "20"),
        (intent(stop_loss=95), RISK, FACTS, "40"),
        (intent(Side.SELL, stop_loss=104), RISK, FACTS, "40"),
        (intent(stop_loss=95), RISK, facts(to_account_currency=2), "20"),
        (intent(), ATR, facts(atr=5), "20"),
        (intent(quantity=3, stop_loss=95), RISK, FACTS, "3"),
        (intent(quantity=99, stop_loss=95), RISK, FACTS, "40"),
        (intent(quantity=500, quantity_type=QuantityType.QUOTE), PERCENT, FACTS, "5"),
    ],
)
def test_methods_and_units(order, sizing, known, quantity):
    assert size(order, sizing, known).quantity == Decimal(quantity)


def test_the_arithmetic_can_be_followed():
    sized = size(intent(stop_loss=97, quantity=50), RISK, FACTS)
    assert sized.steps == (
        Step("quantity asked for", "50", Decimal(50)),
        Step("stop distance", "|100 − 97|", Decimal(3)),
        Step("equity × risk per trade", "10000 × 0.02", Decimal(200)),
        Step("risk ÷ stop distance", "200 ÷ 3", Decimal("66.666666666666666666")),
        Step("capped at the quantity asked for", "min(66.666666666666666666, 50)", Decimal(50)),
    )
    assert sized.reference_price == 100
    assert sized.value == 5000


@pytest.mark.parametrize(
    ("known", "limits", "quantity"),
    [
        (FACTS, [limit("max_order_value", 1000)], "10"),
        (FACTS, [limit("max_order_value", 1000), limit("max_position_value", 500)], "5"),
        (facts(position_quantity=2), [limit("max_position_value", 500)], "3"),
        (facts(working_buy_quantity=2), [limit("max_position_value", 500)], "3"),
        (facts(position_quantity=-2), [limit("max_position_value", 500)], "7"),
        (facts(to_account_currency=2), [limit("max_order_value", 1000)], "5"),
        (FACTS, [limit("max_order_value", 100000)], "40"),
        (FACTS, [limit("max_order_value", 1000, LimitMode.OBSERVE)], "40"),
    ],
)
def test_a_computed_size_fits_into_what_the_limits_leave(known, limits, quantity):
    computed = replace(known, equity=Decimal(10000) * known.to_account_currency)

    assert size(intent(stop_loss=95), RISK, computed, limits).quantity == Decimal(quantity)


@pytest.mark.parametrize(
    ("rule", "value", "quantity"),
    [
        ("max_order_value", "1000", "10"),
        ("max_order_quantity", "7.5", "7.5"),
        ("max_capital_share", "0.05", "5"),
        ("max_position_value", "800", "8"),
        ("max_open_orders", "1", "40"),
    ],
)
def test_what_fks_computes_fits_into_every_cap(rule, value, quantity):
    capped = size(intent(stop_loss=95), RISK, FACTS, [limit(rule, value)])
    assert capped.quantity == Decimal(quantity)


def test_without_any_room_the_limit_itself_refuses():
    known = facts(position_quantity=9)

    assert (
        size(intent(stop_loss=95), RISK, known, [limit("max_position_value", 500)]).quantity == 40
    )


def test_a_quantity_somebody_asked_for_is_not_made_to_fit():
    limits = [limit("max_order_value", 10)]

    assert size(intent(quantity=2), FIXED, FACTS, limits).quantity == 2


def test_a_step_says_that_the_quantity_was_rounded_down():
    sized = size(intent(quantity="0.0019"), FIXED, FACTS)
    assert sized.quantity == Decimal("0.001")
    assert sized.steps[-1] == Step("rounded down", "0.0019 in steps of 0.001", Decimal("0.001"))


def test_a_step_says_that_the_venue_caps():
    sized = size(intent(quantity=9), FIXED, facts(instrument=rules(max_quantity="2.0005")))
    assert sized.quantity == 2
    assert sized.steps[1] == Step(
        "capped at the venue's maximum", "min(9, 2.0005)", Decimal("2.0005")
    )


@pytest.mark.parametrize("order", ["market", "limit", "stop"])
@pytest.mark.parametrize(("may_divide", "quantity"), [(True, 9), (False, 2)])
def test_an_exit_that_goes_out_in_several_is_not_cut_to_the_venues_maximum(
    order: str, quantity: int, *, may_divide: bool
) -> None:
    held = facts(instrument=rules(max_quantity="2.0005"), position_quantity=20)
    prices = {"price": 100, "stop_price": 100}
    wanted = intent(
        Side.SELL, OrderType(order), quantity=9, is_exit=True, may_divide=may_divide, **prices
    )
    assert size(wanted, FIXED, held).quantity == quantity


def test_an_exit_of_a_share_of_an_unknown_equity_is_all_of_it() -> None:
    held = facts(equity=None, position_quantity=3)
    share = {"quantity": 5, "quantity_type": QuantityType.PERCENT_OF_EQUITY}
    assert size(intent(Side.SELL, is_exit=True, **share), FIXED, held).quantity == 3
    with pytest.raises(Refusal, match="equity is not known"):
        size(intent(**share), FIXED, held)


@pytest.mark.parametrize(
    ("unit", "quantity", "expected"),
    [
        ("quote", 50, "0.5"),
        ("percent_of_equity", 1, "1"),
        ("base", 3, "3"),
        ("risk_percent", 1, None),
    ],
)
def test_an_amount_of_money_in_the_base_asset(
    unit: str, quantity: int, expected: str | None
) -> None:
    asked = intent(quantity=quantity, quantity_type=QuantityType(unit))
    assert in_base(asked, FIXED, FACTS) == (None if expected is None else Decimal(expected))


def test_value_is_in_the_account_currency():
    sized = size(intent(quantity=2), FIXED, facts(to_account_currency="0.9"))
    assert sized.value == 180


@pytest.mark.parametrize(
    ("order", "sizing", "known", "code"),
    [
        (intent(), policy(), FACTS, ReasonCode.SIZE_MISSING),
        (intent(quantity=0), FIXED, FACTS, ReasonCode.SIZE_MISSING),
        (intent(quantity=-1), FIXED, FACTS, ReasonCode.SIZE_MISSING),
        (intent(quantity="NaN"), FIXED, FACTS, ReasonCode.SIZE_MISSING),
        (intent(quantity="sNaN"), FIXED, FACTS, ReasonCode.SIZE_MISSING),
        (intent(quantity="Infinity"), FIXED, FACTS, ReasonCode.SIZE_MISSING),
        (
            intent(),
            policy(SizingMethod.ATR, percent="0.1"),
            facts(atr=1),
            ReasonCode.SIZE_MISSING,
        ),
        (intent(stop_loss=95), policy(SizingMethod.RISK), FACTS, ReasonCode.SIZE_MISSING),
        (intent(), ATR, FACTS, ReasonCode.REFERENCE_UNAVAILABLE),
        (intent(), RISK, FACTS, ReasonCode.STOP_LOSS_MISSING),
        (intent(stop_loss=100), RISK, FACTS, ReasonCode.STOP_LOSS_INVALID),
        (intent(stop_loss=101), RISK, FACTS, ReasonCode.STOP_LOSS_INVALID),
        (intent(stop_loss=-1), RISK, FACTS, ReasonCode.STOP_LOSS_INVALID),
        (intent(stop_loss="NaN"), RISK, FACTS, ReasonCode.STOP_LOSS_INVALID),
        (intent(Side.SELL, stop_loss=98), RISK, FACTS, ReasonCode.STOP_LOSS_INVALID),
        (intent(stop_loss=95), RISK, facts(equity=None), ReasonCode.EQUITY_UNKNOWN),
        (intent(stop_loss=95), RISK, facts(equity="NaN"), ReasonCode.EQUITY_UNKNOWN),
        (intent(stop_loss=95), RISK, facts(equity=0), ReasonCode.SIZE_TOO_SMALL),
        (intent(stop_loss=95), RISK, facts(equity=-5), ReasonCode.SIZE_TOO_SMALL),
        (intent(quantity="0.0009"), FIXED, FACTS, ReasonCode.SIZE_TOO_SMALL),
        (intent(quantity="1E+25"), FIXED, FACTS, ReasonCode.SIZE_TOO_LARGE),
        (intent(quantity="1E+999999"), FIXED, FACTS, ReasonCode.SIZE_TOO_LARGE),
        (intent(quantity=1), FIXED, facts(to_account_currency=0), ReasonCode.CURRENCY_MISMATCH),
        (intent(type=OrderType.LIMIT), FIXED, FACTS, ReasonCode.PRICE_MISSING),
        (intent(type=OrderType.LIMIT, price=0), FIXED, FACTS, ReasonCode.PRICE_MISSING),
        (intent(type=OrderType.STOP), FIXED, FACTS, ReasonCode.PRICE_MISSING),
        (intent(type=OrderType.STOP_LIMIT, price=9), FIXED, FACTS, ReasonCode.PRICE_MISSING),
    ],
)
def test_refusals(order, sizing, known, code):
    with pytest.raises(Refusal) as refused:
        size(order, sizing, known)
    assert refused.value.code is code


def test_without_a_usable_quote_there_is_no_size():
    empty = facts(quote=Quote("BTC/USDT", Decimal(0), Decimal(0), Decimal(0), AT))
    with pytest.raises(Refusal) as refused:
        size(intent(quantity=1), FIXED, empty)
    assert refused.value.code is ReasonCode.REFERENCE_UNAVAILABLE


@pytest.mark.parametrize(
    ("asked", "instrument", "numbers"),
    [
        (
            "0.0099",
            rules(min_quantity="0.01"),
            {"wanted": "0.0099", "quantity": "0.009", "price": "100", "min_quantity": "0.01"},
        ),
        (
            "0.0999",
            rules(min_value=10),
            {
                "wanted": "0.0999",
                "quantity": "0.099",
                "price": "100",
                "value": "9.9",
                "min_value": "10",
            },
        ),
    ],
)
def test_too_small_is_refused_with_the_numbers(asked, instrument, numbers):
    with pytest.raises(Refusal) as refused:
        size(intent(quantity=asked), FIXED, facts(instrument=instrument))
    assert refused.value.code is ReasonCode.SIZE_TOO_SMALL
    assert refused.value.numbers == {name: Decimal(value) for name, value in numbers.items()}


def test_an_exit_of_derivatives_may_be_worth_less_than_an_entry():
    small = facts(
        instrument=replace(rules(min_value=100), market_type="swap"), position_quantity="0.9"
    )
    assert size(intent(Side.SELL, quantity="0.9", is_exit=True), FIXED, small).quantity == Decimal(
        "0.9"
    )
    with pytest.raises(Refusal, match="below the smallest of 100"):
        size(intent(quantity="0.9"), FIXED, small)


def test_an_entry_whose_stop_would_be_too_small_is_refused():
    spot = facts(instrument=rules(min_value=100))
    with pytest.raises(Refusal) as refused:
        size(intent(quantity="1.01", stop_loss=98), FIXED, spot)
    assert refused.value.code is ReasonCode.SIZE_TOO_SMALL
    assert refused.value.numbers["value"] == Decimal("98.98")
    swap = facts(instrument=replace(rules(min_value=100), market_type="swap"))
    for passes in (spot, swap):
        stop = 98 if passes is swap else "99.5"
        assert size(intent(quantity="1.01", stop_loss=stop), FIXED, passes).quantity == Decimal(
            "1.01"
        )


@pytest.mark.parametrize("asked", ["0.01", "0.1"])
def test_the_smallest_order_itself_passes(asked):
    smallest = facts(instrument=rules(min_quantity="0.01", min_value=1))
    assert size(intent(quantity=asked), FIXED, smallest).quantity == Decimal(asked)


@pytest.mark.parametrize(
    ("side", "position", "asked", "quantity"),
    [
        (Side.SELL, 3, None, 3),
        (Side.BUY, -3, None, 3),
        (Side.SELL, 3, 2, 2),
        (Side.SELL, 3, 3, 3),
        (Side.SELL, 3, 4, 3),
    ],
)
def test_an_exit_is_never_more_than_the_position(side, position, asked, quantity):
    order = intent(side, is_exit=True, quantity=asked)
    assert size(order, RISK, facts(position_quantity=position)).quantity == quantity


@pytest.mark.parametrize(
    ("position", "percent", "quantity"),
    [("3", "50", "1.5"), ("3", "100", "3"), ("3", "250", "3"), ("0.001", "50", None)],
)
def test_an_exit_in_percent_of_the_position(position, percent, quantity):
    order = intent(
        Side.SELL,
        is_exit=True,
        quantity=percent,
        quantity_type=QuantityType.PERCENT_OF_POSITION,
    )
    known = facts(position_quantity=position, equity=None)
    if quantity is None:
        with pytest.raises(Refusal) as refused:
            size(order, FIXED, known)
        assert refused.value.code is ReasonCode.SIZE_TOO_SMALL
    else:
        assert size(order, FIXED, known).quantity == Decimal(quantity)


def test_an_exit_in_percent_of_risk_closes_the_position():
    order = intent(Side.SELL, is_exit=True, quantity=1, quantity_type=QuantityType.RISK_PERCENT)
    assert size(order, RISK, facts(position_quantity=3, equity=None)).quantity == 3


@pytest.mark.parametrize(("side", "position"), [(Side.SELL, 0), (Side.SELL, -1), (Side.BUY, 1)])
def test_nothing_to_close(side, position):
    with pytest.raises(Refusal) as refused:
        size(intent(side, is_exit=True), FIXED, facts(position_quantity=position))
    assert refused.value.code is ReasonCode.NOTHING_TO_CLOSE


@pytest.mark.parametrize(
    ("order", "price"),
    [
        (intent(), 100),
        (intent(Side.SELL), 99),
        (intent(type=OrderType.TRAILING_STOP, trailing_percent=Decimal(2)), 102),
        (intent(Side.SELL, OrderType.TRAILING_STOP, trailing_percent=Decimal(2)), 99),
        (intent(type=OrderType.LIMIT, price=90), 90),
        (intent(type=OrderType.LIMIT, price=110), 110),
        (intent(Side.SELL, OrderType.LIMIT, price=110), 110),
        (intent(Side.SELL, OrderType.LIMIT, price=1), 99),
        (intent(type=OrderType.STOP, stop_price=105), 105),
        (intent(type=OrderType.STOP, stop_price=50), 100),
        (intent(Side.SELL, OrderType.STOP, stop_price=95), 95),
        (intent(Side.SELL, OrderType.STOP, stop_price=150), 99),
        (intent(type=OrderType.STOP_LIMIT, stop_price=105, price=106), 106),
        (intent(Side.SELL, OrderType.STOP_LIMIT, stop_price=95, price=94), 95),
        (intent(Side.SELL, OrderType.STOP_LIMIT, stop_price=95, price=1), 95),
        (intent(Side.SELL, OrderType.STOP_LIMIT, stop_price=150, price=1), 99),
    ],
)
def test_entry_price(order, price):
    assert entry_price(order, FACTS.quote) == price


@pytest.mark.parametrize(
    ("side", "type", "price", "rounded"),
    [
        (Side.BUY, OrderType.LIMIT, "1.239", "1.23"),
        (Side.SELL, OrderType.LIMIT, "1.231", "1.24"),
        (Side.SELL, OrderType.STOP, "1.231", "1.24"),
        (Side.BUY, OrderType.STOP, "1.239", "1.23"),
        (Side.BUY, OrderType.LIMIT, "1.23", "1.23"),
        (Side.SELL, OrderType.LIMIT, "1.23", "1.23"),
    ],
)
def test_prices_are_rounded_toward_less_risk(side, type, price, rounded):
    assert round_price(side, type, Decimal(price), Decimal("0.01")) == Decimal(rounded)


@pytest.mark.parametrize("price", ["0.009", "-1", "0", "NaN", "Infinity", "1E+60"])
def test_a_price_of_which_nothing_is_left_is_refused(price):
    with pytest.raises(Refusal) as refused:
        round_price(Side.BUY, OrderType.LIMIT, Decimal(price), Decimal("0.01"))
    assert refused.value.code is ReasonCode.PRICE_MISSING


@pytest.mark.parametrize("type", [OrderType.MARKET, OrderType.STOP_LIMIT])
def test_the_caller_says_which_price_is_rounded(type):
    with pytest.raises(ValueError, match="no single price"):
        round_price(Side.BUY, type, Decimal(1), Decimal("0.01"))


def test_steps_of_whole_lots_have_no_exponent():
    lots = replace(FACTS, instrument=rules(quantity_step=100))
    assert str(size(intent(quantity=12345), FIXED, lots).quantity) == "12300"
