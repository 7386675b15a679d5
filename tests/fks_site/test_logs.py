"""Log lines: no secret leaves, and no outsider writes a line of his own."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from fks_site.logs import JsonFormatter, ScrubbingFormatter, logging_config, scrub
from risk import correlation

CANARY = "canary-7f3e9a1c"


@pytest.mark.parametrize(
    "text",
    [
        f"secret={CANARY}",
        f"secret: {CANARY}",
        f"SECRET = {CANARY}",
        f"token={CANARY}&symbol=BTC",
        f"webhook_token={CANARY}",
        f"?a=b&passphrase={CANARY}",
        f'{{"secret": "{CANARY}"}}',
        f'{{"secret":"{CANARY} with blanks, commas and more {CANARY}"}}',
        f'{{"secret": "quoted \\"{CANARY}\\" inside"}}',
        f"{{'password': '{CANARY}'}}",
        f"{{'key': 'a\"{CANARY}'}}",
        f'{{"key": "{CANARY}"}}',
        f'"body": "{{\\"secret\\": \\"{CANARY}, {CANARY}\\"}}"',
        f'{{"secret": "{CANARY}',
        f"api_key={CANARY} apiSecret={CANARY} api_secret='{CANARY}'",
        f"X-Webhook-Signature: {CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"Authorization: Basic {CANARY}",
        f"'Authorization': 'Bearer {CANARY}'",
        f'"POST /webhook/demo/{CANARY} HTTP/1.1" 202',
        f"POST /webhook/demo/{CANARY}/ 404",
        f"POST /webhook/demo/{CANARY}/{CANARY}?x=1",
        f"https://fks.example/webhook/demo/{CANARY}",
        f"postgres://fks:{CANARY}@db:5432/fks",
        f"cannot reach redis://:{CANARY}@127.0.0.1:6379/0",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    scrubbed = scrub(text)

    assert CANARY not in scrubbed
    assert "***" in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "webhook secret 5 cannot be opened: no configured key has the id 0badc0de",
        "POST /webhook/demo 202",
        '{"symbol": "BTC/USDT", "quantity": "0.01"}',
        "keys=5 monkey: 7 tokens",
        "redis://127.0.0.1:6379/0 refused",
        "https://docs.example:8443/a@b",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert scrub(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert (
        scrub(f'{{"secret": "{CANARY}", "symbol": "BTC"}}') == '{"secret": "***", "symbol": "BTC"}'
    )
    assert scrub(f"POST /webhook/demo/{CANARY} HTTP/1.1") == "POST /webhook/demo/*** HTTP/1.1"
    assert scrub(f"postgres://fks:{CANARY}@db/fks") == "postgres://fks:***@db/fks"


@pytest.mark.parametrize(
    "text",
    [
        'secret="' * 8000,
        "secret:" + " " * 60_000,
        'secret: "' + "\\" * 60_000,
        '\\"' * 30_000 + "key",
        "://" * 20_000,
        "://" + "a" * 60_000,
        "/webhook/" * 7000,
        "a" * 65_536,
    ],
    ids=range(8),
)
def test_hostile_text_is_scrubbed_at_once(text: str) -> None:
    started = time.process_time()

    scrub(text)

    assert time.process_time() - started < 1


def record(message: str, *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("fks", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    return made


def failed(error: Exception) -> logging.LogRecord:
    made = record("it failed")
    try:
        raise error
    except type(error):
        made.exc_info = sys.exc_info()
    return made


class TestConsole:
    formatter = ScrubbingFormatter("%(levelname)s %(name)s %(message)s")

    def test_a_message_is_one_line(self) -> None:
        forged = "x\r\n2026-01-01 ERROR fks forged\u2028y\x1b[2J\x85z\x00"

        line = self.formatter.format(record("unknown symbol %s", forged))

        assert line == (
            "WARNING fks unknown symbol x\\r\\n2026-01-01 ERROR fks forged\\u2028y\\x1b[2J\\x85z\\x00"
        )

    def test_a_secret_in_the_arguments(self) -> None:
        assert self.formatter.format(record("secret=%s", CANARY)) == "WARNING fks secret=***"

    def test_tracebacks_keep_their_lines_but_not_their_secrets(self) -> None:
        text = self.formatter.format(failed(ValueError(f"token={CANARY}\x1b[2J\rx")))

        assert text.splitlines()[0] == "WARNING fks it failed"
        assert text.splitlines()[1] == "Traceback (most recent call last):"
        assert text.splitlines()[-1] == "ValueError: token=***\\rx"


class TestJson:
    def event(self, made: logging.LogRecord) -> dict[str, Any]:
        line = JsonFormatter().format(made)
        assert len(line.splitlines()) == 1
        event: dict[str, Any] = json.loads(line)
        return event

    def test_an_event(self) -> None:
        event = self.event(record("stored %s", "it", signal_id=7, order_id="o", unknown="x"))

        moment = datetime.fromisoformat(event.pop("time"))
        assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
        assert event == {
            "level": "warning",
            "logger": "fks",
            "process": os.getpid(),
            "message": "stored it",
            "correlation_id": "7",
            "order_id": "o",
        }

    def test_what_runs_for_a_signal_names_it(self) -> None:
        with correlation.concerning("0197-signal"):
            assert self.event(record("asking"))["correlation_id"] == "0197-signal"
        assert "correlation_id" not in self.event(record("asking"))

    def test_line_breaks_and_quotes_are_data(self) -> None:
        forged = 'x"}\n{"level": "critical"}\ud800\u2028'

        assert self.event(record("%s", forged))["message"] == forged

    def test_errors_are_kept_without_their_secrets(self) -> None:
        event = self.event(failed(ValueError(f"password={CANARY}")))

        assert "ValueError: password=***" in event["error"]
        assert CANARY not in str(event)


@pytest.mark.parametrize(
    ("style", "formatter"), [("json", "json"), ("console", "console"), ("other", "console")]
)
def test_the_configuration(style: str, formatter: str) -> None:
    config = logging_config(style, debug=False)

    assert config["handlers"]["stderr"]["formatter"] == formatter
    assert config["loggers"]["execution"] == {"level": "INFO"}
    assert config["loggers"]["ccxt"] == {"level": "WARNING"}
    assert logging_config(style, debug=True)["loggers"]["ccxt"] == {"level": "WARNING"}
    assert logging_config(style, debug=True)["loggers"]["execution"] == {"level": "DEBUG"}
