"""Orders at TWS found again, never called absent without proof, and cancelled."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from brokers.bridge.drivers.ib_orderbook import tells_of
from brokers.errors import NotShownError, QueryFailedError
from brokers.types import OrderRef, OrderType, Outcome, Side, VenueStatus
from tests.brokers.contract import ref
from tests.brokers.terminals.rigs import IbRig


def test_a_question_that_failed_is_not_an_absent_order(ib_rig: IbRig) -> None:
    request = ib_rig.limit()
    ib_rig.plugin.execute_order(request)
    for number in (16, 99, 7):
        ib_rig.tws.mute = {number}
        with pytest.raises(QueryFailedError, match="did not answer"):
            ib_rig.plugin.fetch_order(ref(request))
    ib_rig.tws.mute = set()
    ib_rig.tws.refuses = {7: 322}
    with pytest.raises(QueryFailedError, match=r"executions: refused by the test \(322\)"):
        ib_rig.plugin.fetch_order(ref(request))
    ib_rig.tws.refuses = {}
    assert ib_rig.status_of(request) is VenueStatus.OPEN


def test_the_rest_of_a_late_list_is_not_taken_for_the_next_one(ib_rig: IbRig) -> None:
    first, second = ib_rig.limit(), ib_rig.limit("49000")
    for request in (first, second):
        ib_rig.plugin.execute_order(request)
    ib_rig.tws.stutters = 2.5
    with pytest.raises(QueryFailedError, match="did not answer"):
        ib_rig.plugin.open_orders()
    with suppress(QueryFailedError):
        assert len(ib_rig.plugin.open_orders()) == 2
    time.sleep(1)
    assert len(ib_rig.plugin.open_orders()) == 2


@pytest.mark.parametrize("number", [5, 101, 11])
def test_a_message_that_cannot_be_read_is_not_an_absent_order(ib_rig: IbRig, number: int) -> None:
    """ib_async leaves it out of the list with a line in the log."""
    resting, filled = ib_rig.limit(), ib_rig.order()
    for request in (resting, filled):
        ib_rig.plugin.execute_order(request)
    ib_rig.cut()
    ib_rig.tws.garbled = {number}
    for request in (resting, filled, ib_rig.order()):
        with pytest.raises(QueryFailedError):
            ib_rig.plugin.fetch_order(ref(request))


def test_executions_without_their_order_leave_the_question_open(ib_rig: IbRig) -> None:
    request = ib_rig.order()
    ib_rig.plugin.execute_order(request)
    ib_rig.tws.orders.clear()
    with pytest.raises(NotShownError, match="executions of this order but not the order"):
        ib_rig.plugin.fetch_order(ref(request))


def test_an_order_of_yesterday_is_never_proven_absent(ib_rig: IbRig) -> None:
    since = datetime.now(UTC) - timedelta(hours=24)
    with pytest.raises(NotShownError, match="today alone"):
        ib_rig.plugin.fetch_order(replace(ref(ib_rig.order()), submitted_at=since))
    with pytest.raises(NotShownError, match="today alone"):
        ib_rig.plugin.trades_since("BRK.A/USD", since)


@pytest.mark.parametrize(
    ("sent_at", "now", "zone", "whole"),
    [
        ("2026-11-20T15:00", "2026-11-20T20:00", "", True),
        ("2026-11-20T04:30", "2026-11-20T05:30", "", False),
        ("2026-11-20T05:00:30", "2026-11-20T05:02", "", False),
        ("2026-11-20T14:30", "2026-11-20T15:30", "Asia/Tokyo", False),
        ("2026-11-20T15:30", "2026-11-20T16:30", "Asia/Tokyo", True),
    ],
)
def test_midnight_of_any_zone_that_may_count(
    sent_at: str, now: str, zone: str, *, whole: bool
) -> None:
    moments = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (sent_at, now)]
    assert tells_of(*moments, zone) is whole


def test_a_correction_replaces_its_execution(ib_rig: IbRig) -> None:
    request = ib_rig.order()
    ib_rig.plugin.execute_order(request)
    first = ib_rig.plugin.fetch_order(ref(request))
    wrong = ib_rig.tws.executions[0]
    corrected = wrong["execId"].removesuffix("01") + "02"
    ib_rig.tws.executions.append({**wrong, "execId": corrected, "price": Decimal(59000)})
    report = ib_rig.plugin.fetch_order(ref(request))
    assert first is not None
    assert report is not None
    assert report.average_price == Decimal(59000)
    assert [one.trade_id for one in report.fills] == [one.trade_id for one in first.fills]


def test_a_fill_whose_commission_is_still_to_come_has_none(ib_rig: IbRig) -> None:
    ib_rig.tws.silent_commissions = True
    request = ib_rig.order()
    ib_rig.plugin.execute_order(request)
    report = ib_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert [(one.quantity, one.fee) for one in report.fills] == [(Decimal(2), Decimal(0))]
    log = (ib_rig.agent.folder / "agent.log").read_text()
    assert f"TWS tells no commission yet of {ib_rig.tws.executions[0]['execId']}" in log


def test_orders_of_others_are_seen_and_only_they_can_cancel_them(ib_rig: IbRig) -> None:
    request = ib_rig.limit()
    number = int(ib_rig.plugin.execute_order(request).broker_order_id)
    ib_rig.tws.orders[number].update(clientId=0, orderId=-3, orderRef="")
    ib_rig.cut()
    working = ib_rig.plugin.open_orders()
    assert [(one.broker_order_id, one.client_order_id) for one in working] == [(str(number), "")]
    named = OrderRef("0" * 32, request.symbol, str(number), None)
    result = ib_rig.plugin.cancel_order(named)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    assert ib_rig.tws.orders[number]["status"] == "Submitted"


@pytest.mark.parametrize(
    ("held_for", "status", "working"),
    [("", VenueStatus.REJECTED, 0), ("locate", VenueStatus.OPEN, 1)],
)
def test_an_inactive_order_is_rejected_unless_it_is_held_for_something(
    ib_rig: IbRig, held_for: str, status: VenueStatus, working: int
) -> None:
    """A stop that was refused after it was taken must not pass for one that guards."""
    request = ib_rig.order(side=Side.SELL, type=OrderType.STOP, stop_price=Decimal(55000))
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    row = next(iter(ib_rig.tws.orders.values()))
    row.update(status="Inactive", whyHeld=held_for)
    assert ib_rig.status_of(request) is status
    assert len(ib_rig.plugin.open_orders()) == working


def test_a_cancel_that_comes_too_late_is_rejected(ib_rig: IbRig) -> None:
    request = ib_rig.limit()
    ib_rig.plugin.execute_order(request)
    ib_rig.tws.fills_first = True
    result = ib_rig.plugin.cancel_order(ref(request))
    assert (result.outcome, result.code) == (Outcome.REJECTED, "NOTHING_TO_CANCEL")
    assert ib_rig.status_of(request) is VenueStatus.FILLED


def test_a_cancel_nobody_answers_is_unknown(ib_rig: IbRig) -> None:
    request = ib_rig.limit()
    ib_rig.plugin.execute_order(request)
    ib_rig.tws.mute = {4}
    assert ib_rig.plugin.cancel_order(ref(request)).outcome is Outcome.UNKNOWN
