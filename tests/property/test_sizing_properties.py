"""What holds for every size, whatever an alert, a venue or an account brings."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from brokers.types import Instrument, OrderType, Quote, Side
from risk.sizing import round_price, size
from risk.types import Facts, Intent, QuantityType, Refusal, Size, SizingMethod, SizingPolicy
from tests.risk.builders import AT


def amounts(least: str = "1E-8", most: str = "1E+12") -> st.SearchStrategy[Decimal]:
    return st.decimals(
        Decimal(least), Decimal(most), places=8, allow_nan=False, allow_infinity=False
    )


steps = st.sampled_from([Decimal(text) for text in ("1E-8", "0.001", "0.25", "1", "7", "1E+2")])
sides = st.sampled_from(Side)
methods = st.sampled_from(SizingMethod)


@st.composite
def instruments(draw: st.DrawFn) -> Instrument:
    return Instrument(
        symbol="A/B",
        venue_symbol="AB",
        base="A",
        quote="B",
        quantity_step=draw(steps),
        price_tick=draw(steps),
        min_quantity=draw(st.none() | amounts()),
        max_quantity=draw(st.none() | amounts()),
        min_value=draw(st.none() | amounts()),
    )


@st.composite
def known(draw: st.DrawFn) -> Facts:
    bid = draw(amounts())
    return Facts(
        at=AT,
        instrument=draw(instruments()),
        quote=Quote("A/B", bid, bid + draw(amounts(least="0")), bid, AT),
        equity=draw(st.none() | amounts(least="-1000")),
        position_quantity=draw(amounts(least="-1E+12")),
        working_buy_quantity=Decimal(0),
        working_sell_quantity=Decimal(0),
        open_orders=0,
        realised_today=None,
        atr=draw(st.none() | amounts()),
        to_account_currency=draw(amounts(most="1E+4")),
    )


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    return Intent(
        side=draw(sides),
        type=draw(st.sampled_from(OrderType)),
        is_exit=draw(st.booleans()),
        quantity=draw(st.none() | amounts() | st.decimals()),
        quantity_type=draw(st.sampled_from(QuantityType)),
        price=draw(st.none() | amounts()),
        stop_price=draw(st.none() | amounts()),
        stop_loss=draw(st.none() | amounts() | st.decimals()),
    )


@st.composite
def policies(draw: st.DrawFn) -> SizingPolicy:
    return SizingPolicy(
        draw(methods),
        quantity=draw(st.none() | amounts()),
        percent=draw(st.none() | amounts(most="2")),
        atr_multiple=draw(st.none() | amounts(most="10")),
    )


def sized(intent: Intent, policy: SizingPolicy, facts: Facts) -> Size | None:
    try:
        return size(intent, policy, facts)
    except Refusal:
        return None


@given(intents(), policies(), known())
def test_a_size_is_a_plain_number_on_the_grid_within_every_cap(
    intent: Intent, policy: SizingPolicy, facts: Facts
) -> None:
    result = sized(intent, policy, facts)
    assume(result is not None)
    assert result is not None
    rules = facts.instrument
    for number in (result.quantity, result.value):
        assert number.is_finite()
        assert "E" not in format(number, "f")
        assert int(number.as_tuple().exponent) <= 0
    assert result.quantity > 0
    assert result.quantity % rules.quantity_step == 0
    assert result.quantity >= (rules.min_quantity or 0)
    assert rules.max_quantity is None or result.quantity <= rules.max_quantity
    assert result.quantity * result.reference_price >= (rules.min_value or 0)
    if intent.quantity is not None and intent.quantity_type is QuantityType.BASE:
        assert result.quantity <= intent.quantity
    if intent.quantity is not None and intent.quantity_type is QuantityType.QUOTE:
        assert result.quantity * result.reference_price <= intent.quantity
    if intent.is_exit:
        assert result.quantity <= abs(facts.position_quantity)


@given(intents(), policies(), known(), amounts(least="0"))
def test_more_equity_never_means_a_smaller_size(
    intent: Intent, policy: SizingPolicy, facts: Facts, more: Decimal
) -> None:
    assume(facts.equity is not None)
    assert facts.equity is not None
    before = sized(intent, policy, facts)
    richer = sized(intent, policy, replace(facts, equity=facts.equity + more))
    assume(before is not None and richer is not None)
    assert before is not None
    assert richer is not None
    assert richer.quantity >= before.quantity


@given(amounts(most="1E+9"), amounts(most="1"), amounts(), amounts(), steps)
def test_a_stop_never_costs_more_than_the_risk_allowed(
    equity: Decimal, percent: Decimal, bid: Decimal, distance: Decimal, step: Decimal
) -> None:
    assume(bid > distance)
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
        realised_today=None,
    )
    result = sized(intent, SizingPolicy(SizingMethod.RISK, percent=percent), facts)
    assume(result is not None)
    assert result is not None
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
