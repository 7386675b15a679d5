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
    ("fields", "opened"),
    [
        ({"prev_market_position": "long", "prev_market_position_size": "2"}, "1"),
        ({"prev_market_position": "long"}, "3"),
        ({"prev_market_position": "flat", "prev_market_position_size": "0"}, "3"),
        ({"prev_market_position": "short", "prev_market_position_size": "2"}, "3"),
    ],
)
def test_what_the_sender_closes_itself_opens_nothing_where_there_is_nothing_to_close(
    fields: dict[str, Any], opened: str
) -> None:
    turned = alert(action="sell", quantity="3", market_position="short", **fields)
    assert reached(aim(turned, FIXED, q("0"), can_short=True)) == ("sell", False, q(opened), False)


@pytest.mark.parametrize(("closed", "opened"), [("0", "2"), ("1", "2"), ("2", "2"), ("3", "1")])
def test_what_is_closed_for_the_sender_or_here_counts_once(closed: str, opened: str) -> None:
    before = {"prev_market_position": "short", "prev_market_position_size": "2"}
    turned = alert(action="buy", quantity="4", market_position="long", **before)
    second = aim(turned, FIXED, q("0"), can_short=True, exited=q(closed))
    assert reached(second) == ("buy", False, q(opened), False)


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


@pytest.mark.parametrize(
    ("action", "side", "held", "can_short", "expected"),
    [
        ("sell", "long", "3", True, ("sell", True, q("1"), False)),
        ("sell", "long", "0.5", True, ("sell", True, q("1"), False)),
        ("sell", "long", "0", True, ("sell", True, q("1"), False)),
        ("sell", "long", "-2", True, ("sell", True, q("1"), False)),
        ("buy", "short", "0", True, ("buy", True, q("1"), False)),
        ("buy", "long", "-3", True, ("buy", True, None, False)),
        ("buy", "long", "-0.5", True, ("buy", True, None, True)),
        ("sell", "short", "3", False, ("sell", True, None, False)),
        ("sell", "short", "0.5", False, ("sell", True, None, False)),
        ("sell", "short", "0", False, ("sell", True, None, False)),
    ],
)
def test_no_order_ends_on_the_side_the_sender_is_not_on(
    action: str,
    side: str,
    held: str,
    can_short: bool,
    expected: tuple[str, bool, Decimal | None, bool],
) -> None:
    """Without a size there is no target to go to, but the side is known."""
    wanted = alert(action=action, quantity="1", market_position=side)

    assert reached(aim(wanted, FIXED, q(held), can_short=can_short)) == expected


MONEY = {"quantity": "100", "quantity_type": "quote"}


@pytest.mark.parametrize(
    ("held", "asked", "can_short", "expected"),
    [
        ("1", "0.5", True, (True, q("100"), "quote", False)),
        ("1", "1.004", True, (True, q("100"), "quote", False)),
        ("1", "2", True, (True, None, "base", True)),
        ("1", "2", False, (True, q("100"), "quote", False)),
        ("1", None, True, (True, q("100"), "quote", False)),
        ("0", "0.5", True, (False, q("100"), "quote", False)),
        ("-1", "0.5", True, (False, q("100"), "quote", False)),
    ],
    ids=["less", "as much", "more", "more on spot", "not known", "flat", "same side"],
)
@pytest.mark.parametrize("policy", [FIXED, PERCENT], ids=["fixed", "sizes itself"])
def test_a_sale_of_money_closes_no_more_than_it_is_worth(
    policy: SizingPolicy,
    held: str,
    asked: str | None,
    can_short: bool,
    expected: tuple[bool, Decimal | None, str, bool],
) -> None:
    worth = None if asked is None else q(asked)
    found = aim(alert(action="sell", **MONEY), policy, q(held), can_short=can_short, asked=worth)
    intent = found.intent
    told = (intent.is_exit, intent.quantity, intent.quantity_type.value, found.reverses)
    assert told == expected


def test_the_other_half_of_a_sale_of_money_is_what_is_left_of_it() -> None:
    sale = alert(action="sell", **MONEY)
    intent = aim(sale, FIXED, q("0"), can_short=True, exited=q("1"), asked=q("1.5")).intent
    assert (intent.is_exit, intent.quantity, intent.quantity_type.value) == (
        False,
        q("0.5"),
        "base",
    )


def test_what_is_closed_toward_a_target_is_in_base_whatever_the_alerts_unit_is() -> None:
    fields = {"market_position": "long", "market_position_size": "3", "quantity_type": "quote"}
    intent = aim(alert(action="sell", quantity="2", **fields), FIXED, q("5"), can_short=True).intent
    assert (intent.is_exit, intent.quantity, intent.quantity_type.value) == (True, q("2"), "base")


class TestARouteThatSizesItself:
    """The sender's quantities are not its own: what counts of them is the side and the share."""

    def test_a_part_is_the_same_share_of_ours(self) -> None:
        sizes = {"market_position_size": "1500", "prev_market_position_size": "2000"}
        part = alert(action="sell", quantity="500", market_position="long", **sizes)

        assert reached(aim(part, PERCENT, q("0.4"), can_short=True)) == (
            ("sell", True, q("0.1"), False)
        )

    @pytest.mark.parametrize("sizes", [{}, {"market_position_size": "1500"}])
    def test_without_both_sizes_the_quantity_is_what_is_known(self, sizes: dict[str, str]) -> None:
        part = alert(action="sell", quantity="500", market_position="long", **sizes)

        found = aim(part, PERCENT, q("0.4"), can_short=True)
        assert reached(found) == ("sell", True, q("500"), False)

    @pytest.mark.parametrize("size", ["0.1", "5"])
    def test_a_reversal_turns_all_of_it_over(self, size: str) -> None:
        fields = {"market_position": "long", "market_position_size": size}
        turned = alert(action="buy", quantity="0.2", **fields)

        first = aim(turned, PERCENT, q("-0.5"), can_short=True)
        second = aim(turned, PERCENT, q("0"), can_short=True, exited=q("0.5"))

        assert reached(first) == ("buy", True, None, True)
        assert reached(second) == ("buy", False, q(size), False)


def test_the_routes_own_quantity_turns_a_position_over() -> None:
    policy = SizingPolicy(SizingMethod.FIXED_QUANTITY, quantity=q("3"))
    turned = alert(action="buy", market_position="long")

    first = aim(turned, policy, q("-3"), can_short=True)
    second = aim(turned, policy, q("0"), can_short=True, exited=q("3"))

    assert reached(first) == ("buy", True, None, True)
    assert reached(second) == ("buy", False, None, False)


@pytest.mark.parametrize("held", ["3", "2.99"])
def test_a_target_that_is_reached_but_for_a_fee_needs_nothing(held: str) -> None:
    wanted = alert(market_position="long", market_position_size="3")

    with pytest.raises(Refusal) as refused:
        aim(wanted, FIXED, q(held), can_short=True)

    assert refused.value.code is ReasonCode.ALREADY_AT_TARGET


@pytest.mark.parametrize("held", ["2", "0", "-2"])
@pytest.mark.parametrize("can_short", [True, False])
def test_a_share_of_the_position_only_ever_reduces(held: str, can_short: bool) -> None:
    wanted = alert(action="sell", quantity="50", quantity_type="percent_of_position")
    assert reached(aim(wanted, FIXED, q(held), can_short=can_short)) == (
        "sell",
        True,
        q("50"),
        False,
    )


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


@pytest.mark.parametrize(
    "guards", [{"stop_loss": "95"}, {"take_profit": [{"price": "120", "percent": "100"}]}]
)
def test_a_spot_sale_that_names_the_positions_guards_is_an_exit(guards: dict[str, Any]) -> None:
    """One template for both sides; the position came out smaller than the sender thinks."""
    found = aim(alert(action="sell", quantity="3", **guards), FIXED, q("2"), can_short=False)

    assert reached(found) == ("sell", True, q("3"), False)
    assert (found.intent.stop_loss, found.intent.targets) == (None, ())
