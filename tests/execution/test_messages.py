"""What operators paste into TradingView must be read by FKS as they mean it."""

from __future__ import annotations

import shlex
from decimal import Decimal

import pytest

from execution.alerts import Action, Alert, MarketPosition
from execution.formats import FORMATS, format_of
from execution.masking import mask_document
from execution.messages import SECRET, curl, lacks_confidence, messages_for
from execution.models import Strategy

NOW = "2026-03-02T14:05:07Z"
RENDERED = {
    "{{exchange}}": "BINANCE",
    "{{ticker}}": "BTCUSDT",
    "{{timenow}}": NOW,
    "{{close}}": "60123.45",
    "{{strategy.order.action}}": "buy",
    "{{strategy.order.contracts}}": "0.02",
    "{{strategy.order.id}}": "Long TP",
    "{{strategy.market_position}}": "long",
    "{{strategy.market_position_size}}": "0.02",
    "{{strategy.prev_market_position}}": "flat",
    "{{strategy.prev_market_position_size}}": "0",
    "{{strategy.position_size}}": "0.02",
}
WITH_MESSAGES = sorted(set(FORMATS) - {"mapping"})


def strategy_of(format: str, auth: str = Strategy.Auth.TOKEN) -> Strategy:
    return Strategy(slug="demo", auth=auth, format=format, format_options={})


def read(strategy: Strategy, text: str) -> Alert:
    for placeholder, value in RENDERED.items():
        text = text.replace(placeholder, value)
    assert "{{" not in text
    format = format_of(strategy.format, strategy.format_options)
    document = format.read(text.encode())
    if strategy.auth == Strategy.Auth.TOKEN:
        assert next(document[name] for name in format.secrets if name in document) == SECRET
    alert: Alert = format.parse(mask_document(document, (), format))
    assert SECRET not in str(alert)
    return alert


@pytest.mark.parametrize("format", WITH_MESSAGES)
def test_the_messages_of_a_format_are_read_as_they_are_meant(format: str) -> None:
    strategy = strategy_of(format)
    texts = {message.name: read(strategy, message.text) for message in messages_for(strategy)}
    assert list(texts) == ["strategy", "plain", "close"]
    for alert in texts.values():
        assert alert.symbol.endswith("BTCUSDT")
        assert alert.sent_at is not None
        assert alert.sent_at.isoformat() == "2026-03-02T14:05:07+00:00"
        assert alert.extras == {}
    assert (texts["strategy"].action, str(texts["strategy"].quantity)) == (Action.BUY, "0.02")
    assert texts["plain"].action is Action.BUY
    closes = texts["close"]
    assert (
        closes.action is Action.CLOSE
        or closes.reduce_only
        or closes.market_position is MarketPosition.FLAT
    )


@pytest.mark.parametrize("format", WITH_MESSAGES)
def test_every_message_has_an_id_no_other_alert_has(format: str) -> None:
    strategy = strategy_of(format)
    keys = [read(strategy, message.text).idempotency_key for message in messages_for(strategy)]
    assert len(set(keys)) == 3
    assert all(key.startswith(f"BINANCE:BTCUSDT-{NOW}-") for key in keys)


@pytest.mark.parametrize("format", WITH_MESSAGES)
def test_two_trades_of_one_order_in_a_second_are_two_alerts(format: str) -> None:
    """A script that closes in parts trades one order again and again: the size after each tells."""
    strategy = strategy_of(format)
    (text,) = (one.text for one in messages_for(strategy) if one.name == "strategy")

    first = read(strategy, text.replace("{{strategy.position_size}}", "0.04"))
    second = read(strategy, text.replace("{{strategy.position_size}}", "0.02"))

    assert first.idempotency_key != second.idempotency_key


@pytest.mark.parametrize("format", WITH_MESSAGES)
def test_a_strategy_that_signs_gets_no_secret_to_fill_in(format: str) -> None:
    strategy = strategy_of(format, Strategy.Auth.HMAC)
    assert all(SECRET not in message.text for message in messages_for(strategy))
    for message in messages_for(strategy):
        read(strategy, message.text)


@pytest.mark.parametrize("format", WITH_MESSAGES)
def test_the_line_for_a_shell_posts_the_plain_message(format: str) -> None:
    strategy = strategy_of(format)
    words = shlex.split(curl(strategy, "http://127.0.0.1:8000/webhook/demo", NOW))
    assert words[:4] == ["curl", "-X", "POST", "http://127.0.0.1:8000/webhook/demo"]
    alert = read(strategy, words[words.index("--data-binary") + 1])
    assert (alert.action, alert.symbol.endswith("BTCUSDT")) == (Action.BUY, True)


def test_a_mapping_has_no_message_of_its_own() -> None:
    strategy = strategy_of("mapping")
    assert messages_for(strategy) == []
    assert curl(strategy, "http://x", NOW) == "curl -X POST http://x --data-binary '{}'"


@pytest.mark.parametrize("format", ["fks", "keyvalue"])
def test_a_strategy_that_asks_for_a_confidence_gets_a_place_for_it(format: str) -> None:
    strategy = strategy_of(format)
    strategy.min_confidence = Decimal("0.6")
    for message in messages_for(strategy):
        assert read(strategy, message.text).confidence == 1
    assert not lacks_confidence(strategy)


def test_a_format_without_a_place_for_a_confidence_says_so() -> None:
    strategy = strategy_of("okx")
    assert not lacks_confidence(strategy)
    strategy.min_confidence = Decimal("0.6")
    assert lacks_confidence(strategy)
