"""Exits in senders' words: lost over nothing they do not need, sent no other way than asked."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from brokers.types import OrderType
from execution.alerts import Action, Alert
from execution.formats import FORMATS, format_of
from execution.formats.mapping import TARGETS
from execution.schema import Invalid
from risk.types import QuantityType

OPTIONS = {"mapping": {"fields": {name: {"path": name} for name in TARGETS}}}
SYMBOLS = {"traderspost": "ticker", "3commas": "tv_instrument", "okx": "instrument"}


def autoview(words: str) -> Alert:
    format = FORMATS["keyvalue"]
    return format.alert(format.read(f"s=BTCUSDT {words}".encode()))


def alert_of(sender: str, **document: Any) -> Alert:
    format = format_of(sender, OPTIONS.get(sender, {}))
    body = {SYMBOLS.get(sender, "symbol"): "BTCUSDT", **document}
    return format.alert(format.read(json.dumps(body).encode()))


def complaints(invalid: pytest.ExceptionInfo[Invalid]) -> list[tuple[str, str]]:
    return [(one["field"], one["code"]) for one in invalid.value.errors]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("c=position b=long p=5%", ("p", "NUMBER_INVALID")),
        ("c=position b=long q=50% fp=5%", ("fp", "NUMBER_INVALID")),
        ("c=position b=long p=NaN", ("p", "NUMBER_INVALID")),
        ("c=position b=long p=-1", ("p", "OUT_OF_RANGE")),
        ("c=position p=5%", ("p", "NUMBER_INVALID")),
        ("c=position t=limit p=5%", ("p", "NUMBER_INVALID")),
        ("b=sell q=1 ro=1 p=5%", ("p", "NUMBER_INVALID")),
        ("b=sell q=1 ro=1 t=limit p=5%", ("p", "NUMBER_INVALID")),
        ("b=sell q=1 ro=1 t=limit p=0", ("p", "REQUIRED")),
    ],
)
def test_a_price_to_leave_at_that_cannot_be_read_is_not_the_market(
    words: str, complaint: tuple[str, str]
) -> None:
    with pytest.raises(Invalid) as invalid:
        autoview(words)
    assert complaints(invalid)[0] == complaint


@pytest.mark.parametrize(
    "words",
    [
        "c=position b=long fp=61000 p=62000",
        "c=position fp=61000 p=62000",
        "b=sell q=1 ro=1 fp=61000 p=62000",
    ],
)
def test_two_prices_to_leave_at_are_not_one(words: str) -> None:
    with pytest.raises(Invalid) as invalid:
        autoview(words)
    assert complaints(invalid) == [("fp", "DUPLICATE_KEY")]


@pytest.mark.parametrize("words", ["c=position", "c=position b=long", "b=sell q=1 ro=1"])
def test_an_exit_with_a_price_waits_for_it(words: str) -> None:
    alert = autoview(f"{words} p=61000")
    assert (alert.order_type, alert.price) == (OrderType.LIMIT, Decimal(61000))


@pytest.mark.parametrize(
    "words",
    [
        "c=position p=NaN",
        "c=position t=limit p=NaN",
        "c=position p=0",
        "c=position b=long p=0",
        "c=position b=long t=market p=5%",
        "c=position t=market fp=61000 p=5%",
        "b=sell q=1 ro=1 t=market p=5%",
    ],
)
def test_an_exit_that_names_no_price_or_the_market_leaves_at_once(words: str) -> None:
    assert autoview(words).order_type is OrderType.MARKET


@pytest.mark.parametrize("words", ["c=position", "c=position b=long q=50%", "b=sell q=1 ro=1"])
@pytest.mark.parametrize("name", ["sl", "fsl", "tp", "ftp", "ts"])
@pytest.mark.parametrize("value", ["2%", "59000", "x"])
def test_an_exit_that_is_to_wait_for_a_stop_or_target_does_not_happen_at_once(
    words: str, name: str, value: str
) -> None:
    with pytest.raises(Invalid) as invalid:
        autoview(f"{words} {name}={value}")
    assert complaints(invalid) == [(name, "UNSUPPORTED")]


@pytest.mark.parametrize("words", ["c=position", "c=position b=long", "b=sell q=1 ro=1"])
@pytest.mark.parametrize(
    "left", ["sl=NaN", "tp={{plot_0}}", "ts=0", "stop_loss=x", "take_profit=5% trailing="]
)
def test_an_exit_is_not_lost_over_what_an_entry_left_there(words: str, left: str) -> None:
    assert autoview(f"{words} {left}") == autoview(words)


def test_a_cancel_asks_for_no_price_and_no_stop() -> None:
    assert autoview("c=order p=5% fp=1 sl=2% ts=x").action is Action.CANCEL


PARTS = [
    ("fks", {"action": "sell", "quantity": 1, "market_position": "long", "stop_loss": "NaN"}),
    ("fks", {"action": "buy", "quantity": 1, "market_position": "short", "take_profit": "x"}),
    ("mapping", {"action": "sell", "quantity": 1, "market_position": "long", "atr": "x"}),
    (
        "3commas",
        {
            "action": "sell",
            "take_profit": {"enabled": True},
            "strategy_info": {"market_position": "long"},
            "order": {"amount": 1, "order_type": "limit"},
        },
    ),
    (
        "okx",
        {
            "action": "sell",
            "marketPosition": "long",
            "orderType": "limit",
            "investmentType": "base",
            "amount": 1,
        },
    ),
    (
        "traderspost",
        {"action": "sell", "sentiment": "bullish", "quantity": 1, "delay": 5, "stopLoss": "x"},
    ),
]


@pytest.mark.parametrize(("sender", "document"), PARTS)
def test_a_part_sold_by_a_sender_that_stays_long_is_not_lost(
    sender: str, document: dict[str, Any]
) -> None:
    alert = alert_of(sender, **document)
    assert (alert.order_type, alert.quantity) == (OrderType.MARKET, Decimal(1))
    assert (alert.stop_loss, alert.take_profit) == (None, ())


@pytest.mark.parametrize(
    ("sender", "document", "field"),
    [
        ("fks", {"market_position": "long", "market_position_size": 2}, "stop_loss"),
        ("mapping", {"market_position": "long", "market_position_size": 2}, "stop_loss"),
        (
            "3commas",
            {"strategy_info": {"market_position": "long", "market_position_size": 2}},
            "stop_loss",
        ),
        ("fks", {"market_position": "short"}, "stop_loss"),
    ],
)
def test_what_may_be_an_entry_keeps_its_stop(
    sender: str, document: dict[str, Any], field: str
) -> None:
    """A sale after which 2 are left long buys, where FKS holds one."""
    with pytest.raises(Invalid) as invalid:
        alert_of(sender, action="sell", **document, **{field: "x"})
    assert [name for name, _ in complaints(invalid)] == [field]


UNITS = [
    ("fks", {"action": "sell", "reduce_only": True, "quantity_type": "lots"}, "quantity"),
    ("fks", {"action": "close", "quantity_type": "lots"}, "quantity"),
    ("traderspost", {"action": "exit", "quantityType": "lots"}, "quantity"),
    ("traderspost", {"action": "sell", "sentiment": "long", "quantityType": "lots"}, "quantity"),
    ("okx", {"action": "EXIT_LONG", "investmentType": "margin"}, "amount"),
    ("okx", {"action": "EXIT_LONG", "investmentType": "x"}, "amount"),
    ("3commas", {"action": "exit_long", "order": {"currency_type": "margin_percent"}}, "amount"),
]


@pytest.mark.parametrize(("sender", "document", "amount"), UNITS)
def test_an_exit_without_an_amount_needs_no_unit(
    sender: str, document: dict[str, Any], amount: str
) -> None:
    alert = alert_of(sender, **document)
    assert (alert.quantity, alert.quantity_type) == (None, QuantityType.BASE)
    outer = {"order": document["order"] | {amount: 1}} if "order" in document else {amount: 1}
    with pytest.raises(Invalid):
        alert_of(sender, **document | outer)


def test_money_at_risk_does_not_say_how_much_is_closed() -> None:
    asked = {"action": "exit", "quantity": 50, "quantityType": "risk_dollar_amount"}
    with pytest.raises(Invalid) as invalid:
        alert_of("traderspost", **asked)
    assert complaints(invalid) == [("quantityType", "PRICE_MISSING")]
    priced = alert_of("traderspost", **asked, price=100, stopLoss={"stopPrice": 110})
    assert (priced.action, priced.quantity) == (Action.CLOSE, Decimal(5))
