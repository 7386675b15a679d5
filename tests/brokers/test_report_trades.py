"""An order's report where the question for its trades is another one, and fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from brokers.base import ExecutionPlugin
from brokers.errors import HeldBackError, QueryFailedError
from brokers.report_trades import with_trades
from brokers.types import FillReport, OrderReport, Side, VenueStatus
from tests.brokers.contract import AlpacaRig, CcxtRig, ProjectXRig, ref
from tests.brokers.scripted import trade
from tests.venues.client import RunningVenue

D = Decimal
FILLED = OrderReport(
    "1", "ours", "BTC/USDT", Side.BUY, VenueStatus.FILLED, D(2), D(2), D(60000), reason="said"
)
PARTLY = replace(FILLED, status=VenueStatus.PARTIALLY_FILLED, filled_quantity=D(1))


def failing(error: Exception) -> Callable[..., list[FillReport]]:
    def ask(*_args: object) -> list[FillReport]:
        raise error

    return ask


def test_what_has_not_traded_is_not_asked_about() -> None:
    resting = replace(FILLED, status=VenueStatus.OPEN, filled_quantity=D(0))
    assert with_trades(resting, failing(AssertionError())) == resting


def test_an_order_that_went_on_filling_meanwhile_is_read_again() -> None:
    fills = (trade("1", "1"), trade("2", "1"))
    assert with_trades(PARTLY, lambda: fills, lambda: FILLED) == replace(FILLED, fills=fills)
    assert with_trades(PARTLY, lambda: fills, lambda: None) == replace(PARTLY, fills=fills)
    with pytest.raises(QueryFailedError):
        with_trades(PARTLY, lambda: fills, failing(QueryFailedError("away")))  # type: ignore[arg-type]


def test_trades_that_cannot_be_read_hide_no_order() -> None:
    told = with_trades(FILLED, failing(QueryFailedError("HTTP 404")))
    assert told == replace(FILLED, reason="its trades cannot be read: HTTP 404")


def test_a_question_that_never_left_or_may_be_repeated_tells_nothing() -> None:
    with pytest.raises(HeldBackError):
        with_trades(FILLED, failing(HeldBackError("our limiter")))
    with pytest.raises(QueryFailedError):
        with_trades(FILLED, failing(QueryFailedError("clock")), is_passing=lambda _: True)


@pytest.mark.parametrize(
    ("name", "rig", "asked"),
    [
        ("alpaca", AlpacaRig, lambda plugin: (plugin._lists, "activities")),
        ("projectx", ProjectXRig, lambda plugin: (plugin, "_trades")),
    ],
)
def test_alpaca_and_projectx_tell_an_order_without_its_trades(
    venue: RunningVenue,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    rig: type[CcxtRig],
    asked: Callable[[ExecutionPlugin], tuple[object, str]],
) -> None:
    made = rig(name, venue)
    request = made.order()
    placed = made.plugin.execute_order(request)
    monkeypatch.setattr(*asked(made.plugin), failing(QueryFailedError("away")))
    report = made.plugin.fetch_order(ref(request, placed.broker_order_id))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.FILLED, request.quantity)
    assert (report.fills, report.reason) == ((), "its trades cannot be read: away")
