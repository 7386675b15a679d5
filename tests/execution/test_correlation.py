"""One id in the logs from the stored alert to its last fill."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from pytest_django import DjangoCaptureOnCommitCallbacks

from brokers.models import Account
from execution.models import Order
from execution.strategies import create_strategy
from fks_site.logs import JsonFormatter
from tests.brokers.scripted import script_of
from tests.execution.posting import body_of, post
from tests.factories import allow_trading

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process")]


@pytest.fixture
def log() -> Iterator[StringIO]:
    """What the product writes with LOG_FORMAT=json."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("execution")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def events(log: StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


@pytest.mark.usefixtures("worked_off", "eager")
def test_the_path_of_an_alert_can_be_read_by_its_id(
    scripted: Callable[..., Account],
    log: StringIO,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    allow_trading()
    made = create_strategy("desk", accounts=[scripted().name], options={"allowlist": "none"})
    with django_capture_on_commit_callbacks(execute=True):
        answer = post(f"desk/{made.secret}", body_of(id="one"))
    signal_id = json.loads(answer.content)["signal_id"]

    mine = [event for event in events(log) if event["correlation_id"] == signal_id]
    assert {event["message"] for event in mine} >= {
        "alert stored: buy",
        "alert decided: 1 lanes to send",
        "order pending → submitting (claim)",
        "order submitting → filled (fill)",
        "filled 0.01 at 60000",
    }
    order = Order.objects.get()
    told = [event for event in mine if event["message"].startswith(("order", "filled"))]
    assert {(event["order_id"], event["symbol"]) for event in told} == {(str(order.pk), "BTC/USDT")}
    assert made.secret not in log.getvalue()


@pytest.mark.usefixtures("worked_off", "eager")
def test_what_goes_wrong_on_the_way_names_it_too(
    scripted: Callable[..., Account], log: StringIO
) -> None:
    allow_trading()
    account = scripted()

    def breaks(*_: object) -> None:
        raise RuntimeError("a plugin's defect")

    script_of(account).outcomes.append(breaks)
    made = create_strategy("desk", accounts=[account.name], options={"allowlist": "none"})
    answer = post(f"desk/{made.secret}", body_of(id="one"))

    [event] = [event for event in events(log) if event["message"] == "placing an order raised"]
    assert event["correlation_id"] == json.loads(answer.content)["signal_id"]
    assert "a plugin's defect" in event["error"]
