"""A group of accounts ends where one account with all of its position would."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from brokers.types import Side
from execution import allocation
from execution.aims import aim
from execution.alerts import Action, Alert, MarketPosition
from risk.types import QuantityType, Refusal, SizingMethod, SizingPolicy

D = Decimal
FIXED = SizingPolicy(SizingMethod.FIXED_QUANTITY, quantity=D(1))
PERCENT = SizingPolicy(SizingMethod.FIXED_PERCENT, percent=D("0.01"))


def alert(action: Action = Action.BUY, **fields: Any) -> Alert:
    return Alert(symbol="BTC/USDT", action=action, **fields)


def traded(order: Alert, held: Decimal, policy: SizingPolicy = FIXED) -> Decimal:
    """What an account holds once everything ``order`` asks for has filled, exits capped at it."""
    try:
        goal = aim(order, policy, held, can_short=True)
    except Refusal:
        return held
    side, quantity = goal.intent.side, goal.intent.quantity
    if not goal.intent.is_exit:
        return held + side.sign * (D(1) if quantity is None else quantity)
    if held * side.sign >= 0:
        return held
    off = abs(held) if quantity is None else min(quantity, abs(held))
    left = held + side.sign * off
    if not goal.reverses:
        return left
    second = aim(order, policy, left, can_short=True, exited=off).intent
    return left + second.side.sign * (D(1) if second.quantity is None else second.quantity)


def all_together(
    order: Alert, held: dict[int, Decimal], cheapest: int, policy: SizingPolicy = FIXED
) -> dict[int, Decimal]:
    """What each account holds after the group has taken ``order``."""
    ranked, by_target = allocation.in_order(held), policy is FIXED
    if allocation.is_priced(order, ranked, by_target=by_target):
        part = allocation.part_of_addition(order, ranked, cheapest, by_target=by_target)
        parts = {cheapest: part}
    else:
        parts = allocation.parts(order, ranked, by_target=by_target) if ranked else {}
    return {
        account: traded(allocation.applied(order, parts[account]), quantity, policy)
        if account in parts
        else quantity
        for account, quantity in held.items()
    }


quantities = st.sampled_from([D(n) / 2 for n in range(1, 9)])
sides = st.sampled_from([1, -1])


@st.composite
def holdings(draw: st.DrawFn) -> dict[int, Decimal]:
    sign = draw(sides)
    return {n: sign * draw(quantities | st.just(D(0))) for n in (1, 2, 3)}


@st.composite
def orders(draw: st.DrawFn) -> Alert:
    kind = draw(st.sampled_from(["trade", "close", "reduce", "target", "turn", "flat"]))
    quantity = draw(quantities)
    action = draw(st.sampled_from([Action.BUY, Action.SELL]))
    ends = MarketPosition.LONG if action is Action.BUY else MarketPosition.SHORT
    told = {
        "market_position": draw(st.sampled_from([None, MarketPosition.LONG, MarketPosition.SHORT])),
        "market_position_size": draw(st.none() | quantities),
    }
    match kind:
        case "close":
            return alert(Action.CLOSE, quantity=draw(st.none() | st.just(quantity)), **told)
        case "reduce":
            return alert(action, quantity=quantity, reduce_only=True, **told)
        case "target":
            asked = draw(st.none() | quantities)
            fields = {"market_position": ends, "market_position_size": quantity}
            return alert(action, quantity=asked, **fields)
        case "turn":
            before = MarketPosition.SHORT if ends is MarketPosition.LONG else MarketPosition.LONG
            closes = draw(st.none() | quantities.filter(lambda size: size < quantity))
            sizes = {"prev_market_position": before, "prev_market_position_size": closes}
            return alert(action, quantity=quantity, market_position=ends, **sizes)
        case "flat":
            return alert(action, market_position=MarketPosition.FLAT)
    return alert(action, quantity=quantity)


@pytest.mark.parametrize(
    ("held", "before", "ends"),
    [
        ({1: D("1.5"), 2: D("1.5")}, "2", "-1"),
        ({1: D("0.5"), 2: D("0.5")}, "2", "-2"),
        ({1: D("0.5"), 2: D("0.5")}, None, "-3"),
    ],
)
def test_what_the_sender_closes_is_closed_once_in_a_group(
    held: dict[int, Decimal], before: str | None, ends: str
) -> None:
    size = None if before is None else D(before)
    was = {"prev_market_position": MarketPosition.LONG, "prev_market_position_size": size}
    turned = alert(Action.SELL, quantity=D(4), market_position=MarketPosition.SHORT, **was)

    assert traded(turned, D(sum(held.values()))) == D(ends)
    assert all_together(turned, held, 1) == {1: D(ends), 2: 0}


@given(holdings(), orders(), st.sampled_from([1, 2, 3]))
def test_together_they_end_where_one_account_would(
    held: dict[int, Decimal], order: Alert, cheapest: int
) -> None:
    total = sum(held.values())
    assume(total or not order.wants_flat)
    after = all_together(order, held, cheapest)
    assert sum(after.values()) == traded(order, D(total))


@given(holdings(), orders(), st.sampled_from([1, 2, 3]), st.sampled_from([FIXED, PERCENT]))
@example(
    {1: D("0.2"), 2: D("0.1"), 3: D(0)},
    Alert(
        symbol="BTC/USDT",
        action=Action.SELL,
        quantity=D(3),
        market_position=MarketPosition.SHORT,
        market_position_size=D(1),
    ),
    1,
    PERCENT,
)
def test_no_two_accounts_end_on_different_sides_nor_turn_over(
    held: dict[int, Decimal], order: Alert, cheapest: int, policy: SizingPolicy
) -> None:
    after = all_together(order, held, cheapest, policy)
    assert min(after.values()) >= 0 or max(after.values()) <= 0
    assert sum(after[account] * quantity < 0 for account, quantity in held.items()) <= 1


@given(holdings(), orders())
def test_what_takes_off_touches_only_accounts_that_hold_some(
    held: dict[int, Decimal], order: Alert
) -> None:
    ranked = allocation.in_order(held)
    assume(ranked and not allocation.is_priced(order, ranked, by_target=True))
    parts = allocation.parts(order, ranked, by_target=True)
    assert parts
    assert all(held[account] for account in parts)


def test_a_sale_is_shared_out_the_largest_first() -> None:
    held = allocation.in_order({1: D(1), 2: D(3), 3: D(2)})
    sale = alert(Action.SELL, quantity=D(4))
    assert allocation.parts(sale, held, by_target=True) == {
        2: {"quantity": "3"},
        3: {"quantity": "1"},
    }


def test_a_reversal_turns_the_largest_over_and_the_others_close() -> None:
    held = allocation.in_order({1: D("0.2"), 2: D("0.1")})
    fields = {"market_position": MarketPosition.SHORT, "market_position_size": D(1)}
    turned = alert(Action.SELL, quantity=D(3), **fields)
    assert allocation.parts(turned, held, by_target=False) == {
        1: {
            "quantity": "2.9",
            "prev_market_position": "long",
            "prev_market_position_size": "0.2",
        },
        2: allocation.CLOSE,
    }


@pytest.mark.parametrize("exited", [None, D("0.5"), D("1.5")])
@pytest.mark.parametrize("tells_before", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_stop_that_closes_the_largest_first_makes_it_open_no_more(
    sign: int, tells_before: bool, exited: Decimal | None
) -> None:
    long, short = MarketPosition.LONG, MarketPosition.SHORT
    action, was, ends = (Action.SELL, long, short) if sign > 0 else (Action.BUY, short, long)
    before = {"prev_market_position": was, "prev_market_position_size": D(3)}
    told = before if tells_before else {}
    turned = alert(action, quantity=D(4), market_position=ends, **told)
    group = allocation.in_order({1: sign * D("1.5"), 2: sign * D("1.5")})
    part = allocation.parts(turned, group, by_target=False)[1]
    mine = allocation.applied(turned, part)
    goal = aim(mine, FIXED, D(0), can_short=True, exited=exited)
    assert (goal.intent.side, goal.intent.quantity) == (Side(action.value), D(1))


@pytest.mark.parametrize("quantity", [D(2), D(3)])
def test_a_reversal_with_nothing_left_to_open_only_closes(quantity: Decimal) -> None:
    turned = alert(Action.BUY, quantity=quantity, market_position=MarketPosition.LONG)
    group = allocation.in_order({1: D("-1.5"), 2: D("-1.5")})
    parts = allocation.parts(turned, group, by_target=True)
    assert parts == {1: allocation.CLOSE, 2: allocation.CLOSE}


def test_a_reversal_turns_over_what_sizes_itself_whatever_the_sender_has_left() -> None:
    turned = alert(Action.BUY, quantity=D(3), market_position=MarketPosition.LONG)
    group = allocation.in_order({1: D("-1.5"), 2: D("-1.5")})
    assert allocation.parts(turned, group, by_target=False)[1] == {
        "quantity": "1.5",
        "prev_market_position": "short",
        "prev_market_position_size": "1.5",
    }


def test_what_only_reduces_takes_off_no_more_than_it_says() -> None:
    held = allocation.in_order({1: D("0.2"), 2: D("0.1")})
    sale = alert(
        Action.SELL, quantity=D("0.1"), reduce_only=True, market_position=MarketPosition.SHORT
    )
    assert allocation.parts(sale, held, by_target=False) == {1: {"quantity": "0.1"}}


def test_what_only_reduces_is_no_target_whatever_the_sender_holds_then() -> None:
    held = allocation.in_order({1: D(1), 2: D("0.5")})
    after = {"market_position": MarketPosition.LONG, "market_position_size": D("0.3")}
    sale = alert(Action.SELL, quantity=D("1.2"), reduce_only=True, **after)
    assert allocation.parts(sale, held, by_target=True) == {
        1: {"quantity": "1"},
        2: {"quantity": "0.2"},
    }


def test_a_share_of_the_position_is_taken_off_everywhere() -> None:
    half = alert(Action.CLOSE, quantity=D(50), quantity_type=QuantityType.PERCENT_OF_POSITION)
    held = allocation.in_order({1: D(1), 2: D(3)})
    assert allocation.parts(half, held, by_target=True) == {1: {}, 2: {}}


def test_a_sale_of_no_known_size_goes_to_the_account_that_holds_most() -> None:
    sale = alert(Action.SELL, quantity=D(500), quantity_type=QuantityType.QUOTE)
    held = allocation.in_order({1: D(1), 2: D(3)})
    assert allocation.parts(sale, held, by_target=True) == {2: {}}


@pytest.mark.parametrize("side", list(Side))
def test_a_group_that_holds_nothing_asks_for_prices(side: Side) -> None:
    assert allocation.is_priced(alert(Action(side.value)), [], by_target=True)


def test_only_what_differs_is_changed_in_an_alert() -> None:
    order = alert(Action.SELL, quantity=D(4), stop_loss=D(9), comment="x")
    assert allocation.applied(order, {}) is order
    assert allocation.applied(order, {"quantity": "1"}).quantity == D(1)
    closing = allocation.applied(order, allocation.CLOSE)
    assert (closing.action, closing.quantity, closing.stop_loss) == (Action.CLOSE, None, D(9))
