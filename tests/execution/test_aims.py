"""What an alert aims at, given what is held."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from execution.aims import Aim, aim
from execution.alerts import Alert
from execution.formats.fks import parse
from risk.types import ReasonCode, Refusal, SizingMethod, SizingPolicy

FIXED = SizingPolicy(SizingMethod.FIXED_QUANTITY)
PERCENT = SizingPolicy(SizingMethod.FIXED_PERCENT, percent=Decimal("0.1"))


def alert(**fields: Any) -> Alert:
    return parse({"symbol": "BTC/USDT", "action": "buy"} | fields)


def reached(found: Aim) -> tuple[str, bool, Decimal | None, bool]:
    intent = found.intent
    return intent.side.value, intent.is_exit, intent.quantity, found.reverses


def q(text: str) -> Decimal:
    return Decimal(text)


@pytest.mark.parametrize(
    ("fields", "held", "expected"),
    [
        ({"action": "buy", "quantity": "1"}, "0", ("buy", False, q("1"), False)),
        ({"action": "buy", "quantity": "1"}, "2", ("buy", False, q("1"), False)),
        ({"action": "sell", "quantity": "1"}, "2", ("sell", True, q("1"), False)),
        ({"action": "sell", "quantity": "1"}, "0.999", ("sell", True, q("1"), False)),
        ({"action": "sell", "quantity": "3"}, "2", ("sell", True, None, True)),
        ({"action": "buy", "quantity": "3"}, "-2", ("buy", True, None, True)),
        ({"action": "close"}, "2", ("sell", True, None, False)),
        ({"action": "close", "quantity": "1"}, "-2", ("buy", True, q("1"), False)),
        ({"action": "sell", "market_position": "flat"}, "2", ("sell", True, None, False)),
        ({"action": "buy", "reduce_only": True}, "-2", ("buy", True, None, False)),
    ],
)
def test_an_alert_that_names_a_change(
    fields: dict[str, Any], held: str, expected: tuple[str, bool, Decimal | None, bool]
) -> None:
    assert reached(aim(alert(**fields), FIXED, q(held), can_short=True)) == expected


@pytest.mark.parametrize(
    ("side", "size", "held", "can_short", "expected"),
    [
        ("long", "3", "0", True, ("buy", False, q("3"), False)),
        ("long", "3", "1", True, ("buy", False, q("2"), False)),
        ("long", "3", "5", True, ("sell", True, q("2"), False)),
        ("long", "3", "-1", True, ("buy", True, None, True)),
        ("short", "3", "0", True, ("sell", False, q("3"), False)),
        ("short", "3", "2", True, ("sell", True, None, True)),
        ("short", "3", "2", False, ("sell", True, None, False)),
    ],
)
def test_an_alert_that_names_a_target(
    side: str,
    size: str,
    held: str,
    can_short: bool,
    expected: tuple[str, bool, Decimal | None, bool],
) -> None:
    wanted = alert(quantity="9", market_position=side, market_position_size=size)

    assert reached(aim(wanted, FIXED, q(held), can_short=can_short)) == expected


@pytest.mark.parametrize("held", ["3", "2.99"])
def test_a_target_that_is_reached_but_for_a_fee_needs_nothing(held: str) -> None:
    wanted = alert(market_position="long", market_position_size="3")

    with pytest.raises(Refusal) as refused:
        aim(wanted, FIXED, q(held), can_short=True)

    assert refused.value.code is ReasonCode.ALREADY_AT_TARGET


def test_the_second_half_of_a_reversal_opens_what_is_left() -> None:
    second = aim(alert(action="sell", quantity="3"), FIXED, q("0"), can_short=True, exited=q("2"))

    assert reached(second) == ("sell", False, q("1"), False)


def test_nothing_is_opened_when_the_first_half_left_something() -> None:
    with pytest.raises(Refusal) as refused:
        aim(alert(action="sell", quantity="3"), FIXED, q("1"), can_short=True, exited=q("1"))

    assert refused.value.code is ReasonCode.NOT_FLAT


def test_a_sized_strategy_turns_over_in_full() -> None:
    first = aim(alert(action="sell"), PERCENT, q("2"), can_short=True)
    second = aim(alert(action="sell"), PERCENT, q("0"), can_short=True, exited=q("2"))

    assert reached(first) == ("sell", True, None, True)
    assert reached(second) == ("sell", False, None, False)


def test_a_spot_sale_of_more_than_fks_bought_is_sent_as_asked() -> None:
    found = aim(alert(action="sell", quantity="3"), FIXED, q("2"), can_short=False)

    assert reached(found) == ("sell", False, q("3"), False)
