"""Messages to paste into TradingView for a strategy, in its format, and a line to try it with curl.

Every message carries ``{{timenow}}``, which staleness is told from, and an id no other alert has.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from execution.models import Strategy

SECRET = "PUT-THE-SECRET-HERE"  # noqa: S105
SYMBOL = "{{exchange}}:{{ticker}}"
TIME, PRICE = "{{timenow}}", "{{close}}"
ID = f"{SYMBOL}-{TIME}"
ORDER_ID = f"{ID}-{{{{strategy.order.id}}}}-{{{{strategy.position_size}}}}"
"""One order of a script may trade twice in a second; the position after it tells the trades apart."""
ACTION, CONTRACTS = "{{strategy.order.action}}", "{{strategy.order.contracts}}"
POSITION = {
    "market_position": "{{strategy.market_position}}",
    "market_position_size": "{{strategy.market_position_size}}",
    "prev_market_position": "{{strategy.prev_market_position}}",
    "prev_market_position_size": "{{strategy.prev_market_position_size}}",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One text to copy, and when to use it."""

    name: str
    title: str
    hint: str
    text: str


STRATEGY = ("strategy", "Strategy alert", "For an alert on a Pine strategy: follows its position.")
PLAIN = (
    "plain",
    "Plain buy",
    "For an indicator or a price alert: sized by the route; write sell for the other side.",
)
CLOSE = ("close", "Close", "Closes whatever the strategy holds in the symbol.")

_FKS: dict[tuple[str, str, str], dict[str, Any]] = {
    STRATEGY: {
        "symbol": SYMBOL, "action": ACTION, "quantity": CONTRACTS, "price": PRICE, **POSITION,
        "timestamp": TIME, "id": ORDER_ID,
    },
    PLAIN: {
        "symbol": SYMBOL, "action": "buy", "price": PRICE, "timestamp": TIME, "id": f"{ID}-buy",
    },
    CLOSE: {"symbol": SYMBOL, "action": "close", "timestamp": TIME, "id": f"{ID}-close"},
}  # fmt: skip
_TRADERSPOST: dict[tuple[str, str, str], dict[str, Any]] = {
    STRATEGY: {
        "ticker": "{{ticker}}", "action": ACTION, "sentiment": "{{strategy.market_position}}",
        "quantity": CONTRACTS, "price": PRICE, "time": TIME, "id": ORDER_ID,
    },
    PLAIN: {"ticker": "{{ticker}}", "action": "buy", "price": PRICE, "time": TIME, "id": f"{ID}-buy"},
    CLOSE: {"ticker": "{{ticker}}", "action": "exit", "time": TIME, "id": f"{ID}-exit"},
}  # fmt: skip
_THREECOMMAS: dict[tuple[str, str, str], dict[str, Any]] = {
    STRATEGY: {
        "tv_exchange": "{{exchange}}", "tv_instrument": "{{ticker}}", "action": ACTION,
        "timestamp": TIME, "max_lag": "300", "trigger_price": PRICE, "id": ORDER_ID,
        "strategy_info": POSITION, "order": {"amount": CONTRACTS, "currency_type": "base"},
    },
    PLAIN: {
        "tv_exchange": "{{exchange}}", "tv_instrument": "{{ticker}}", "action": "enter_long",
        "timestamp": TIME, "max_lag": "300", "trigger_price": PRICE, "id": f"{ID}-long",
    },
    CLOSE: {
        "tv_exchange": "{{exchange}}", "tv_instrument": "{{ticker}}", "action": "exit_long",
        "timestamp": TIME, "max_lag": "300", "trigger_price": PRICE, "id": f"{ID}-exit",
    },
}  # fmt: skip
_OKX: dict[tuple[str, str, str], dict[str, Any]] = {
    STRATEGY: {
        "id": "{{strategy.order.id}}", "action": ACTION, "instrument": "{{ticker}}",
        "marketPosition": "{{strategy.market_position}}",
        "prevMarketPosition": "{{strategy.prev_market_position}}",
        "timestamp": TIME, "maxLag": "300", "investmentType": "base", "amount": CONTRACTS,
        "alertId": ORDER_ID,
    },
    PLAIN: {
        "action": "ENTER_LONG", "instrument": "{{ticker}}", "timestamp": TIME, "maxLag": "300",
        "orderType": "market", "alertId": f"{ID}-long",
    },
    CLOSE: {
        "action": "EXIT_LONG", "instrument": "{{ticker}}", "timestamp": TIME, "maxLag": "300",
        "orderType": "market", "investmentType": "percentage_position", "amount": "100",
        "alertId": f"{ID}-exit",
    },
}  # fmt: skip
_OPENALGO: dict[tuple[str, str, str], dict[str, Any]] = {
    STRATEGY: {
        "strategy": "TradingView", "exchange": "{{exchange}}", "symbol": "{{ticker}}",
        "action": ACTION, "quantity": CONTRACTS, "position_size": "{{strategy.position_size}}",
        "timestamp": TIME, "id": ORDER_ID,
    },
    PLAIN: {
        "strategy": "TradingView", "exchange": "{{exchange}}", "symbol": "{{ticker}}",
        "action": "BUY", "quantity": "1", "timestamp": TIME, "id": f"{ID}-buy",
    },
    CLOSE: {
        "strategy": "TradingView", "exchange": "{{exchange}}", "symbol": "{{ticker}}",
        "action": "SELL", "position_size": "0", "timestamp": TIME, "id": f"{ID}-close",
    },
}  # fmt: skip
JSON_MESSAGES: Mapping[str, tuple[str, Mapping[tuple[str, str, str], dict[str, Any]]]] = {
    "fks": ("secret", _FKS),
    "traderspost": ("secret", _TRADERSPOST),
    "3commas": ("secret", _THREECOMMAS),
    "okx": ("signalToken", _OKX),
    "openalgo": ("apikey", _OPENALGO),
}
"""The field of the secret, and the messages of each format that is JSON."""
_LINES = f"SYMBOL={{{{ticker}}}}\nTIMESTAMP={TIME}\nTOKEN={SECRET}\n"
TEXT_MESSAGES: Mapping[str, Mapping[tuple[str, str, str], str]] = {
    "octobot": {
        STRATEGY: f"SIGNAL={ACTION}\nVOLUME={CONTRACTS}\nID={ORDER_ID}\n{_LINES}",
        PLAIN: f"SIGNAL=BUY\nID={ID}-buy\n{_LINES}",
        CLOSE: f"SIGNAL=SELL\nREDUCE_ONLY=true\nID={ID}-close\n{_LINES}",
    },
    "keyvalue": {
        STRATEGY: f's={{{{ticker}}}} b={ACTION} q={CONTRACTS} t=market timestamp={TIME} '
        f'id="{ORDER_ID}" secret={SECRET}',
        PLAIN: f's={{{{ticker}}}} b=buy t=market timestamp={TIME} id="{ID}-buy" secret={SECRET}',
        CLOSE: f's={{{{ticker}}}} c=position timestamp={TIME} id="{ID}-close" secret={SECRET}',
    },
    "pineconnector": {
        STRATEGY: f"1,{ACTION},{{{{ticker}}}},quantity={CONTRACTS},timestamp={TIME},"
        f'id="{ORDER_ID}",secret={SECRET}',
        PLAIN: f'1,buy,{{{{ticker}}}},timestamp={TIME},id="{ID}-buy",secret={SECRET}',
        CLOSE: f'1,closelong,{{{{ticker}}}},timestamp={TIME},id="{ID}-close",secret={SECRET}',
    },
}  # fmt: skip
WITH_CONFIDENCE = frozenset({"fks", "keyvalue", "mapping"})
"""Formats an alert can carry a confidence in."""
EXAMPLES = {
    "{{exchange}}": "BINANCE",
    "{{ticker}}": "BTCUSDT",
    "{{close}}": "60000",
    ACTION: "buy",
    CONTRACTS: "0.01",
}
"""What stands for the placeholders of a plain message when it is tried with curl."""


def messages_for(strategy: Strategy) -> list[Message]:
    """What to paste; nothing for a mapping, whose sender writes as it likes."""
    if strategy.format in TEXT_MESSAGES:
        texts = TEXT_MESSAGES[strategy.format]
        return [Message(*kind, text=_fitted(strategy, text)) for kind, text in texts.items()]
    if strategy.format not in JSON_MESSAGES:
        return []
    field, documents = JSON_MESSAGES[strategy.format]
    added = {field: SECRET} if strategy.auth == Strategy.Auth.TOKEN else {}
    if strategy.format in WITH_CONFIDENCE and strategy.asks_confidence:
        added = {"confidence": "1"} | added
    return [
        Message(*kind, text=json.dumps(document | added, indent=1))
        for kind, document in documents.items()
    ]


def lacks_confidence(strategy: Strategy) -> bool:
    """Whether the strategy asks entries for a confidence and its format has no place for one."""
    return strategy.asks_confidence and strategy.format not in WITH_CONFIDENCE


def curl(strategy: Strategy, address: str, now: str) -> str:
    """A command that posts the plain message with values in the place of its placeholders."""
    plain = next((one.text for one in messages_for(strategy) if one.name == "plain"), "{}")
    for placeholder, value in (EXAMPLES | {TIME: now}).items():
        plain = plain.replace(placeholder, value)
    body = json.dumps(json.loads(plain)) if plain.startswith("{") else plain
    return shlex.join(["curl", "-X", "POST", address, "--data-binary", body])


def _fitted(strategy: Strategy, text: str) -> str:
    if strategy.format in WITH_CONFIDENCE and strategy.asks_confidence:
        text = text.replace(" timestamp=", " confidence=1 timestamp=")
    if strategy.auth == Strategy.Auth.TOKEN:
        return text
    for start in (f" secret={SECRET}", f",secret={SECRET}", f"TOKEN={SECRET}\n"):
        text = text.replace(start, "")
    return text
