"""An entry with its stop loss at TWS: two orders that leave as one, cut at every point between them."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest

from brokers.types import AttachedStop, OrderRef, OrderRequest, Outcome, Side, VenueStatus
from tests.brokers.contract import ref
from tests.brokers.terminals.rigs import IbRig

STOP = Decimal(48000)


def guarded(rig: IbRig, **changes: Any) -> OrderRequest:
    """A limit order that rests, with a stop loss."""
    return rig.limit(attached_stop=AttachedStop(uuid.uuid4().hex, STOP), **changes)


def stop_of(request: OrderRequest) -> OrderRef:
    assert request.attached_stop is not None
    return OrderRef(request.attached_stop.identity, request.symbol, "", None)


def shown(rig: IbRig, request: OrderRequest) -> list[tuple[str, str]]:
    """What of the two TWS has, with its state, in the order it came."""
    names = {
        rig.plugin.client_order_id(request.identity): "entry",
        rig.plugin.client_order_id(stop_of(request).identity): "stop",
    }
    rows = [row for row in rig.tws.orders.values() if row["orderRef"] in names]
    return [(names[row["orderRef"]], row["status"]) for row in rows]


def test_the_entry_is_transmitted_by_its_stop(ib_rig: IbRig) -> None:
    request = guarded(ib_rig)
    result = ib_rig.plugin.execute_order(request)
    assert result.outcome is Outcome.ACCEPTED
    entry, stop = ib_rig.sent()
    names = ("action", "orderType", "lmtPrice", "auxPrice", "tif", "totalQuantity", "transmit")
    assert [tuple(told[name] for name in names) for told in (entry, stop)] == [
        ("BUY", "LMT", "50000", "", "GTC", "2", "0"),
        ("SELL", "STP", "", "48000", "GTC", "2", "1"),
    ]
    assert (entry["parentId"], stop["parentId"]) == ("0", entry["orderId"])
    assert stop["orderRef"] == ib_rig.plugin.client_order_id(stop_of(request).identity)
    assert shown(ib_rig, request) == [("entry", "Submitted"), ("stop", "PreSubmitted")]
    assert result.evidence["answer"]["attached_stop"]["request"]["auxPrice"] == "48000"


def test_a_short_sale_carries_a_stop_that_buys(ib_rig: IbRig) -> None:
    stop = AttachedStop(uuid.uuid4().hex, Decimal(72000))
    request = ib_rig.limit("70000", side=Side.SELL, attached_stop=stop)
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert [told["action"] for told in ib_rig.sent()] == ["SELL", "BUY"]


def test_the_stop_is_found_filled_and_cancelled_like_any_order(ib_rig: IbRig) -> None:
    first, second = guarded(ib_rig), guarded(ib_rig)
    entry = ib_rig.plugin.execute_order(first)
    ib_rig.plugin.execute_order(second)
    waiting = ib_rig.plugin.fetch_order(stop_of(first))
    assert waiting is not None
    assert (waiting.status, waiting.quantity) == (VenueStatus.OPEN, Decimal(2))
    ib_rig.tws.fill(int(entry.broker_order_id), Decimal(2))
    ib_rig.tws.fill(int(waiting.broker_order_id), Decimal(2), STOP)
    done = ib_rig.plugin.fetch_order(stop_of(first))
    assert done is not None
    assert (done.status, done.filled_quantity, done.side) == (
        VenueStatus.FILLED,
        Decimal(2),
        Side.SELL,
    )
    assert ib_rig.plugin.cancel_order(stop_of(second)).outcome is Outcome.ACCEPTED
    assert shown(ib_rig, second) == [("entry", "Submitted"), ("stop", "Cancelled")]


def test_the_stop_ends_with_an_entry_that_is_cancelled(ib_rig: IbRig) -> None:
    request = guarded(ib_rig)
    ib_rig.plugin.execute_order(request)
    assert ib_rig.plugin.cancel_order(ref(request)).outcome is Outcome.ACCEPTED
    assert shown(ib_rig, request) == [("entry", "Cancelled"), ("stop", "Cancelled")]


@pytest.mark.parametrize(
    ("faults", "untransmitted"),
    [
        (["after"], "PendingSubmit"),
        ([None, "before"], "PreSubmitted"),
        ([None, "before"], "Inactive"),
        ([None, "swallowed"], "PendingSubmit"),
    ],
)
def test_an_entry_whose_stop_never_arrived_is_taken_back(
    ib_rig: IbRig, faults: list[Any], untransmitted: str
) -> None:
    """However TWS shows what it holds back: nobody documents it."""
    ib_rig.tws.untransmitted = untransmitted
    ib_rig.plugin.fetch_data(ib_rig.symbol)
    request = guarded(ib_rig)
    ib_rig.tws.faults.extend(faults)
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert shown(ib_rig, request) == [("entry", untransmitted)]
    assert ib_rig.status_of(request) is VenueStatus.CANCELED
    assert shown(ib_rig, request) == [("entry", "Cancelled")]
    assert ib_rig.plugin.fetch_order(stop_of(request)) is None
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert len(ib_rig.sent()) == (1 if faults == ["after"] else 2)


@pytest.mark.parametrize("fault", ["after", "between", "hang"])
def test_a_pair_that_arrived_unheard_is_found_whole(ib_rig: IbRig, fault: str) -> None:
    ib_rig.plugin.fetch_data(ib_rig.symbol)
    request = guarded(ib_rig)
    ib_rig.tws.faults.extend([None, fault])
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert ib_rig.status_of(request) is VenueStatus.OPEN
    assert shown(ib_rig, request) == [("entry", "Submitted"), ("stop", "PreSubmitted")]
    assert ib_rig.plugin.fetch_order(stop_of(request)) is not None


def test_a_pair_that_never_arrived_is_absent(ib_rig: IbRig) -> None:
    ib_rig.plugin.fetch_data(ib_rig.symbol)
    request = guarded(ib_rig)
    ib_rig.tws.faults.append("before")
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert ib_rig.plugin.fetch_order(ref(request)) is None
    assert ib_rig.tws.orders == {}


@pytest.mark.parametrize(
    ("faults", "outcome", "there"),
    [
        ([201], Outcome.REJECTED, []),
        ([103], Outcome.NOT_SENT, []),
        ([None, 201], Outcome.REJECTED, [("entry", "Cancelled")]),
        ([None, ("warn", 201)], Outcome.REJECTED, [("entry", "Cancelled"), ("stop", "Cancelled")]),
        (
            [None, ("warn", 399)],
            Outcome.ACCEPTED,
            [("entry", "Submitted"), ("stop", "PreSubmitted")],
        ),
        ([None, 12345], Outcome.UNKNOWN, [("entry", "PendingSubmit")]),
    ],
    ids=[
        "entry refused",
        "number taken",
        "stop refused",
        "stop refused late",
        "stop warned",
        "stop in doubt",
    ],
)
def test_neither_stays_without_the_other(
    ib_rig: IbRig, faults: list[Any], outcome: Outcome, there: list[tuple[str, str]]
) -> None:
    request = guarded(ib_rig)
    ib_rig.tws.faults.extend(faults)
    assert ib_rig.plugin.execute_order(request).outcome is outcome
    assert shown(ib_rig, request) == there


def test_an_entry_that_fills_at_once_leaves_its_stop_working(ib_rig: IbRig) -> None:
    request = ib_rig.order(attached_stop=AttachedStop(uuid.uuid4().hex, STOP))
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert shown(ib_rig, request) == [("entry", "Filled"), ("stop", "PreSubmitted")]


def test_a_stop_off_the_grid_is_not_sent(ib_rig: IbRig) -> None:
    request = ib_rig.limit(attached_stop=AttachedStop(uuid.uuid4().hex, Decimal("48000.001")))
    result = ib_rig.plugin.execute_order(request)
    assert (result.outcome, ib_rig.sent()) == (Outcome.NOT_SENT, [])
    assert "attached stop" in result.detail


def test_an_entry_that_filled_before_its_stop_was_refused_is_told_as_it_is(ib_rig: IbRig) -> None:
    request = ib_rig.order(attached_stop=AttachedStop(uuid.uuid4().hex, STOP))
    ib_rig.tws.untransmitted = "Submitted"
    ib_rig.tws.faults.extend([None, 201])
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    report = ib_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.FILLED
