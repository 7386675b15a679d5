"""An exit is not lost over what only an entry needs: whatever stands there, it is the same exit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.aims import only_exits
from execution.alerts import Action, Alert
from execution.formats import format_of
from execution.formats.mapping import TARGETS
from execution.schema import Invalid
from risk.types import QuantityType

OF_AN_ENTRY = ("stop_loss", "take_profit", "confidence", "atr", "time_in_force", "post_only")
FKS = (*OF_AN_ENTRY, "execution", "price", "stop_price", "trailing_percent", "comment")
FLAT = (*FKS, "quantity", "quantity_type", "order_type", "reduce_only", "market_position_size")
TRADERSPOST = (
    "delay", "cancel", "extendedHours", "ignoreTradingWindows", "stopLoss", "takeProfit",
    "timeInForce", "price", "signalPrice", "trailPercent", "limitPrice", "stopPrice",
)  # fmt: skip
THREECOMMAS = ("trigger_price", "take_profit", "stop_loss", "trailing", "attach_conditional_orders")
KEYVALUE = (
    "stop_loss", "take_profit", "delay", "wait", "l", "leverage", "confidence", "atr", "dt", "comment",
)  # fmt: skip
PRICES = ("p", "fp", "price")
OWN_ORDERS = ("sl", "fsl", "tp", "ftp", "ts")
"""What Autoview's words make of an exit: an order at a price, or one that waits for it."""
PINE = (
    "risk",
    "vol_lots",
    "quantity",
    "vol_pct_bal",
    "sl",
    "tp",
    "price",
    "sl_pct",
    "tp_price",
    "betrigger",
)
OCTOBOT = ("leverage", "stop_price", "take_profit_price", "take_profit_price_1", "price", "tag")
OPENALGO = ("quantity", "price", "trigger_price", "pricetype", "disclosed_quantity", "strategy")
EXITS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("fks", {"action": "close"}, (*FKS, "order_type", "market_position_size", "reduce_only")),
    ("fks", {"action": "close", "quantity": "0.5"}, (*FKS, "order_type", "market_position")),
    ("fks", {"action": "cancel"}, FLAT),
    ("fks", {"action": "sell", "market_position": "flat"}, FLAT),
    ("fks", {"action": "sell", "quantity": "0.5", "reduce_only": "true"}, FKS),
    ("fks", {"action": "sell", "quantity": "50", "quantity_type": "percent_of_position"}, FKS),
    ("fks", {"action": "sell", "quantity": "0.5", "market_position": "long"}, FKS),
    ("mapping", {"action": "sell", "quantity": "0.5", "reduce_only": "true"}, FKS),
    ("mapping", {"action": "sell", "quantity": "0.5", "reduce_only": "1"}, FKS),
    ("fks", {"action": "sell", "quantity": "0.5", "reduce_only": "1"}, FKS),
    ("traderspost", {"action": "exit"}, (*TRADERSPOST, "orderType", "quantityType")),
    ("traderspost", {"action": "exit", "quantity": "5"}, (*TRADERSPOST, "orderType")),
    ("traderspost", {"action": "sell", "sentiment": "flat"}, (*TRADERSPOST, "quantity")),
    ("traderspost", {"action": "sell", "sentiment": "long", "quantity": "2"}, TRADERSPOST),
    ("3commas", {"action": "exit_long"}, (*THREECOMMAS, "strategy_info.prev_market_position")),
    ("3commas", {"action": "exit_long", "order": {"amount": "2"}}, (*THREECOMMAS, "order.order_type")),
    ("3commas", {"action": "disable", "positions_sub_action": "market_close"},
     (*THREECOMMAS, "order.amount", "order.currency_type")),
    ("3commas", {"action": "sell", "strategy_info": {"market_position": "flat"}},
     (*THREECOMMAS, "order.amount", "order.currency_type", "strategy_info.market_position_size")),
    ("3commas",
     {"action": "sell", "strategy_info": {"market_position": "long"}, "order": {"amount": "2"}},
     (*THREECOMMAS, "order.order_type", "strategy_info.prev_market_position")),
    ("okx", {"action": "EXIT_LONG"},
     ("orderType", "orderPriceOffset", "prevMarketPosition", "id", "investmentType")),
    ("okx", {"action": "sell", "marketPosition": "long", "amount": "2", "investmentType": "base"},
     ("orderType", "orderPriceOffset", "prevMarketPosition", "id")),
    ("okx", {"action": "sell", "marketPosition": "flat"},
     ("orderType", "orderPriceOffset", "amount", "investmentType", "prevMarketPosition")),
    ("openalgo", {"action": "SELL", "position_size": "0"}, OPENALGO),
    ("keyvalue", {"c": "position"}, (*KEYVALUE, "t", "ro")),
    ("keyvalue", {"c": "position", "b": "long", "q": "50%"}, KEYVALUE),
    ("keyvalue", {"c": "position", "t": "market"}, (*KEYVALUE, *PRICES, "ro")),
    ("keyvalue", {"b": "sell", "q": "1", "ro": "1", "t": "market"}, (*KEYVALUE, *PRICES)),
    ("keyvalue", {"c": "order"}, (*KEYVALUE, *PRICES, *OWN_ORDERS, "t", "q")),
    ("pineconnector", {"command": "closelong"}, PINE),
    ("pineconnector", {"command": "closeall"}, PINE),
    ("octobot", {"signal": "SELL", "volume": "1", "reduce_only": "true", "order_type": "market"},
     OCTOBOT),
    ("octobot", {"signal": "CANCEL"}, ("leverage", "stop_price", "price", "volume", "order_type")),
]  # fmt: skip
ENDS: list[tuple[str, dict[str, Any]]] = [
    ("fks", {"action": "close"}),
    ("fks", {"action": "close", "quantity": "0.5"}),
    ("fks", {"action": "cancel"}),
    ("fks", {"action": "sell", "market_position": "flat"}),
    ("mapping", {"action": "close"}),
    ("traderspost", {"action": "exit"}),
    ("traderspost", {"action": "cancel"}),
    ("traderspost", {"action": "sell", "sentiment": "flat"}),
    ("3commas", {"action": "exit_long"}),
    ("3commas", {"action": "sell", "strategy_info": {"market_position": "flat"}}),
    ("okx", {"action": "EXIT_LONG"}),
    ("okx", {"action": "sell", "marketPosition": "flat"}),
    ("openalgo", {"action": "SELL", "position_size": "0"}),
    ("keyvalue", {"c": "position"}),
    ("keyvalue", {"c": "order"}),
    ("pineconnector", {"command": "closelong"}),
    ("octobot", {"signal": "CANCEL"}),
]
"""What leaves nothing open: it is not lost for its time or its name either."""
TIME_AND_NAME = {
    "traderspost": ("time", "id"),
    "3commas": ("timestamp", "max_lag", "id"),
    "okx": ("timestamp", "maxLag", "alertId"),
}
SYMBOLS = {"traderspost": "ticker", "3commas": "tv_instrument", "okx": "instrument"}
OPTIONS = {"mapping": {"fields": {name: {"path": name} for name in TARGETS}}}
GARBAGE = st.sampled_from(
    [
        "0", "-1", "NaN", "null", "true", "1", "5", "1e400", "9" * 40, "5%", "x", "{{plot_0}}", "cls",
        "trailing_stop", "limit", "flat", "long", "risk_dollar_amount", "y" * 1100,
        None, True, [], ["x"], {}, {"type": "trailing_stop"}, {"percent": "900"}, {"price": "1"},
        [{"price": "x", "percent": "y"}],
    ]
)  # fmt: skip


def parse(sender: str, document: dict[str, Any]) -> Alert:
    format = format_of(sender, OPTIONS.get(sender, {}))
    return format.alert({SYMBOLS.get(sender, "symbol"): "BTCUSDT", **document})


def with_garbage(document: dict[str, Any], garbage: dict[str, Any]) -> dict[str, Any]:
    spoiled = json.loads(json.dumps(document))
    for name, value in garbage.items():
        *outer, inner = name.split(".")
        place = spoiled.setdefault(outer[0], {}) if outer else spoiled
        place[inner] = Decimal(value) if isinstance(value, int) and value is not True else value
    return spoiled


def what_it_closes(alert: Alert) -> tuple[Any, ...]:
    quantity = None if alert.action is Action.CANCEL or is_whole(alert) else alert.quantity
    unit = alert.quantity_type if quantity is not None else QuantityType.BASE
    opens = alert.action is not Action.CANCEL and not only_exits(alert)
    return alert.symbol, alert.action, quantity, unit, alert.wants_flat, opens


def is_whole(alert: Alert) -> bool:
    return alert.wants_flat and alert.action is not Action.CLOSE


@pytest.mark.parametrize(
    ("sender", "document", "names"), EXITS, ids=[f"{one[0]} {one[1]}" for one in EXITS]
)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_an_exit_is_read_whatever_stands_in_what_only_an_entry_needs(
    sender: str, document: dict[str, Any], names: tuple[str, ...], data: st.DataObject
) -> None:
    garbage = data.draw(st.dictionaries(st.sampled_from(names), GARBAGE, max_size=4))
    plain = parse(sender, document)
    spoiled = parse(sender, with_garbage(document, garbage))
    assert what_it_closes(spoiled) == what_it_closes(plain)
    assert spoiled.missing_prices == []


@pytest.mark.parametrize(("sender", "document"), ENDS, ids=[f"{one} {two}" for one, two in ENDS])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_ends_a_position_is_read_whatever_its_time_and_name(
    sender: str, document: dict[str, Any], data: st.DataObject
) -> None:
    names = TIME_AND_NAME.get(sender, ("timestamp", "id"))
    garbage = data.draw(st.dictionaries(st.sampled_from(names), GARBAGE, min_size=1))
    spoiled = parse(sender, with_garbage(document, garbage))
    assert what_it_closes(spoiled) == what_it_closes(parse(sender, document))


@pytest.mark.parametrize(
    ("sender", "document", "names"), EXITS, ids=[f"{one[0]} {one[1]}" for one in EXITS]
)
@given(garbage=st.sampled_from(["NaN", "x", "-1", "0", "{{plot_0}}"]))
@settings(max_examples=10, deadline=None)
def test_a_part_to_close_is_never_guessed(
    sender: str, document: dict[str, Any], names: tuple[str, ...], garbage: str
) -> None:
    """What is asked to be closed is refused where it cannot be read, never taken for everything."""
    for name in ("quantity", "q", "volume", "amount"):
        if name in document:
            with pytest.raises(Invalid):
                parse(sender, document | {name: garbage})
    if "amount" in document.get("order", {}):
        with pytest.raises(Invalid):
            parse(sender, document | {"order": {"amount": garbage}})
