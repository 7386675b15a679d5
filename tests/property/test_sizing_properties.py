"""What holds for every size, whatever an alert, a venue or an account brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, reject
from hypothesis import strategies as st

from brokers.types import Instrument, OrderType, Quote, Side
from risk.prices import round_price
from risk.rules import RULES
from risk.sizing import LARGEST, size
from risk.types import (
    Facts,
    Intent,
    Limit,
    QuantityType,
    Refusal,
    Size,
    SizingMethod,
    SizingPolicy,
)
from tests.risk.builders import AT, limit


def amounts(least: str = "1E-8", most: str = "1E+12") -> st.SearchStrategy[Decimal]:
    return st.decimals(
        Decimal(least), Decimal(most), places=8, allow_nan=False, allow_infinity=False
    )


steps = st.sampled_from([Decimal(text) for text in ("1E-8", "0.001", "0.25", "1", "7", "1E+2")])
sides = st.sampled_from(Side)
prices = amounts("0.01", "1E+5")
quantities = amounts("10", "1E+6")


@st.composite
def facts_of_an_account(draw: st.DrawFn) -> Facts:
    bid = draw(prices)
    instrument = Instrument(
        symbol="A/B",
        venue_symbol="AB",
        base="A",
        quote="B",
        quantity_step=draw(steps),
        price_tick=Decimal("0.01"),
        min_quantity=draw(st.none() | amounts(most="10")),
        max_quantity=draw(st.none() | amounts("100", "1E+5")),
        min_value=draw(st.none() | amounts(most="10")),
    )
    return Facts(
        at=AT,
        instrument=instrument,
        quote=Quote("A/B", bid, bid + draw(amounts("0", "10")), bid, AT),
        equity=draw(amounts("1E+6", "1E+9")),
        position_quantity=draw(quantities),
        working_buy_quantity=Decimal(0),
        working_sell_quantity=Decimal(0),
        open_orders=0,
        atr=draw(amounts("0.01", "1E+3")),
        to_account_currency=draw(amounts("0.5", "2")),
    )


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    side = draw(sides)
    return Intent(
        side=side,
        type=draw(st.sampled_from(OrderType)),
        is_exit=side is Side.SELL and draw(st.booleans()),
        may_divide=draw(st.booleans()),
        quantity=draw(st.none() | quantities),
        quantity_type=draw(st.sampled_from(QuantityType)),
        price=draw(prices),
        stop_price=draw(prices),
        stop_loss=draw(amounts("0.001", "0.009") if side is Side.BUY else amounts("2E+5", "3E+5")),
    )


policies = st.builds(
    SizingPolicy,
    st.sampled_from(SizingMethod),
    quantity=quantities,
    percent=amounts("0.01", "2"),
    atr_multiple=amounts("0.1", "10"),
)


def sized(intent: Intent, policy: SizingPolicy, facts: Facts, limits: Sequence[Limit] = ()) -> Size:
    try:
        return size(intent, policy, facts, limits)
    except Refusal:
        reject()


@given(intents(), policies, facts_of_an_account())
def test_a_size_is_a_plain_number_on_the_grid_within_every_cap(
    intent: Intent, policy: SizingPolicy, facts: Facts
) -> None:
    result = sized(intent, policy, facts)
    rules = facts.instrument
    for number in (result.quantity, result.value):
        assert number.is_finite()
        assert int(number.as_tuple().exponent) <= 0
    assert result.quantity > 0
    assert result.quantity % rules.quantity_step == 0
    assert result.quantity >= (rules.min_quantity or 0)
    goes_in_parts = intent.is_exit and intent.may_divide
    assert goes_in_parts or rules.max_quantity is None or result.quantity <= rules.max_quantity
    assert result.quantity * result.reference_price >= (rules.min_value or 0)
    if intent.is_exit:
        assert result.quantity <= facts.position_quantity


@given(intents(), policies, facts_of_an_account())
def test_a_size_is_never_more_than_was_asked_for(
    intent: Intent, policy: SizingPolicy, facts: Facts
) -> None:
    """In whatever unit; an exit by risk closes the position, whatever its number says."""
    asked, unit = intent.quantity, intent.quantity_type
    if asked is None or facts.equity is None or intent.stop_loss is None:
        return
    result = sized(intent, policy, facts)
    quantity, price = Fraction(result.quantity), Fraction(result.reference_price)
    rate, equity = Fraction(facts.to_account_currency), Fraction(facts.equity)
    part = Fraction(asked) / 100
    match unit:
        case QuantityType.BASE:
            assert result.quantity <= asked
        case QuantityType.QUOTE:
            assert quantity * price <= asked
        case QuantityType.PERCENT_OF_POSITION:
            assert quantity <= Fraction(facts.position_quantity) * part
        case QuantityType.PERCENT_OF_EQUITY:
            assert quantity * price * rate <= equity * part
        case QuantityType.RISK_PERCENT if not intent.is_exit:
            at_the_stop = quantity * abs(price - Fraction(intent.stop_loss)) * rate
            assert at_the_stop <= equity * part


computing = policies.filter(lambda policy: policy.method is not SizingMethod.FIXED_QUANTITY)
caps = st.fixed_dictionaries(
    {
        "max_order_value": amounts("1E+6", "1E+9"),
        "max_order_quantity": amounts("100", "1E+6"),
        "max_capital_share": amounts("0.05", "1"),
        "max_position_value": amounts("1E+6", "1E+9"),
    }
)


@given(intents(), computing, facts_of_an_account(), caps)
def test_a_size_fks_computes_is_above_no_cap(
    intent: Intent, policy: SizingPolicy, facts: Facts, values: dict[str, Decimal]
) -> None:
    """The rules themselves say so."""
    entry = replace(intent, is_exit=False)
    flat = replace(facts, position_quantity=Decimal(0))
    limits = [limit(rule, value) for rule, value in values.items()]
    result = sized(entry, policy, flat, limits)
    verdicts = [RULES[one.rule].judge(one, entry, result, flat) for one in limits]
    assert [verdict.detail for verdict in verdicts if not verdict.passed] == []


@given(intents(), policies, facts_of_an_account(), amounts("0", "1E+9"))
def test_more_equity_never_means_a_smaller_size(
    intent: Intent, policy: SizingPolicy, facts: Facts, more: Decimal
) -> None:
    assert facts.equity is not None
    richer = replace(facts, equity=facts.equity + more)
    before = sized(intent, policy, facts)
    assert size(intent, policy, richer).quantity >= before.quantity


anything = st.none() | st.decimals()


@given(
    st.builds(
        Intent,
        sides,
        st.sampled_from(OrderType),
        st.booleans(),
        quantity=anything,
        quantity_type=st.sampled_from(QuantityType),
        price=anything,
        stop_price=anything,
        stop_loss=anything,
    ),
    policies,
    facts_of_an_account(),
    anything,
)
def test_whatever_an_alert_says_ends_in_a_size_or_a_refusal(
    intent: Intent, policy: SizingPolicy, facts: Facts, equity: Decimal | None
) -> None:
    try:
        result = size(intent, policy, replace(facts, equity=equity))
    except Refusal:
        return
    assert 0 < result.quantity < LARGEST
    assert 0 <= result.value < LARGEST


@given(amounts("1E+6", "1E+9"), amounts("0.01", "1"), prices, amounts("1E-8", "100"), steps)
def test_a_stop_never_costs_more_than_the_risk_allowed(
    equity: Decimal, percent: Decimal, bid: Decimal, distance: Decimal, step: Decimal
) -> None:
    intent = Intent(Side.SELL, OrderType.MARKET, is_exit=False, stop_loss=bid + distance)
    facts = Facts(
        at=AT,
        instrument=Instrument("A/B", "AB", "A", "B", step, step),
        quote=Quote("A/B", bid, bid, bid, AT),
        equity=equity,
        position_quantity=Decimal(0),
        working_buy_quantity=Decimal(0),
        working_sell_quantity=Decimal(0),
        open_orders=0,
    )
    result = sized(intent, SizingPolicy(SizingMethod.RISK, percent=percent), facts)
    assert result.quantity * distance <= equity * percent


@given(sides, st.sampled_from([OrderType.LIMIT, OrderType.STOP]), amounts(), steps)
def test_a_rounded_price_is_on_the_grid_and_less_than_a_tick_away(
    side: Side, type: OrderType, price: Decimal, tick: Decimal
) -> None:
    try:
        rounded = round_price(side, type, price, tick)
    except Refusal:
        assert side is Side.BUY
        assert price < tick
        return
    assert rounded % tick == 0
    assert 0 <= (rounded - price) * -side.sign < tick
    assert int(rounded.as_tuple().exponent) <= 0
