"""What TWS answers to a placement, and the numbers it gives orders."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brokers.bridge.drivers.ib_orders import judge
from brokers.types import ExecutionResult, Outcome, TimeInForce, VenueStatus
from tests.brokers.contract import ref
from tests.brokers.terminals.rigs import IbRig, ib_agent


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (201, Outcome.REJECTED),
        (203, Outcome.REJECTED),
        (200, Outcome.REJECTED),
        (110, Outcome.REJECTED),
        (103, Outcome.NOT_SENT),
        (202, Outcome.UNKNOWN),
        (321, Outcome.UNKNOWN),
        (399, Outcome.UNKNOWN),
        (404, Outcome.UNKNOWN),
        (434, Outcome.UNKNOWN),
        (10293, Outcome.UNKNOWN),
        (12345, Outcome.UNKNOWN),
    ],
)
def test_a_code_without_an_order_by_its_consequence(
    ib_rig: IbRig, code: int, outcome: Outcome
) -> None:
    ib_rig.tws.faults.append(code)
    request = ib_rig.limit()
    result = ib_rig.plugin.execute_order(request)
    assert result.outcome is outcome
    assert f"({code})" in result.detail
    assert ib_rig.plugin.fetch_order(ref(request)) is None


@pytest.mark.parametrize("code", [399, 404, 2109, 321, 12345])
def test_a_code_beside_a_living_order_is_a_warning(ib_rig: IbRig, code: int) -> None:
    """What TWS says of an order's state counts, not how ib_async takes the code."""
    ib_rig.tws.faults.append(("warn", code))
    request = ib_rig.limit()
    result = ib_rig.plugin.execute_order(request)
    assert (result.outcome, f"({code})" in result.detail) == (Outcome.ACCEPTED, True)
    assert ib_rig.status_of(request) is VenueStatus.OPEN


def test_an_unfilled_immediate_order_was_taken_and_is_over(ib_rig: IbRig) -> None:
    request = ib_rig.limit(time_in_force=TimeInForce.IOC)
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    report = ib_rig.plugin.fetch_order(ref(request))
    assert report is not None
    told = (report.status, report.quantity, report.filled_quantity)
    assert told == (VenueStatus.CANCELED, Decimal(2), Decimal(0))


@pytest.mark.parametrize(
    ("fault", "outcome", "placed"),
    [
        ("before", Outcome.UNKNOWN, 0),
        ("swallowed", Outcome.UNKNOWN, 0),
        ("after", Outcome.UNKNOWN, 1),
        ("hang", Outcome.UNKNOWN, 1),
        ("between", Outcome.UNKNOWN, 1),
        ("answered", Outcome.ACCEPTED, 1),
        (("late", 1), Outcome.ACCEPTED, 1),
        (("late", 2.5), Outcome.UNKNOWN, 1),
    ],
    ids=str,
)
def test_a_cut_at_every_point(ib_rig: IbRig, fault: Any, outcome: Outcome, placed: int) -> None:
    request = ib_rig.limit()
    ib_rig.plugin.fetch_data("BRK.A/USD")
    ib_rig.tws.faults.append(fault)
    assert ib_rig.plugin.execute_order(request).outcome is outcome
    assert ib_rig.plugin.execute_order(request).outcome is outcome
    assert ib_rig.placed(request) == placed
    assert ib_rig.status_of(request) is (VenueStatus.OPEN if placed else None)


def test_a_fill_nobody_heard_of_is_found(ib_rig: IbRig) -> None:
    ib_rig.tws.faults.append("after")
    request = ib_rig.order()
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    report = ib_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.FILLED, Decimal(2))
    assert [(one.price, one.fee) for one in report.fills] == [(Decimal(60001), Decimal("12.0002"))]
    assert abs(report.fills[0].at - datetime.now(UTC)) < timedelta(seconds=5)


def test_an_agent_killed_with_the_order_at_tws_never_sends_again(ib_rig: IbRig) -> None:
    request, ends = ib_rig.limit(), list[ExecutionResult]()
    ib_rig.plugin.health_check()
    ib_rig.tws.faults.append("hang")
    held = threading.Thread(target=lambda: ends.append(ib_rig.plugin.execute_order(request)))
    held.start()
    while not ib_rig.tws.orders:
        time.sleep(0.01)
    ib_rig.agent.kill()
    held.join()
    ib_rig.agent.start()
    again = ib_rig.connect().execute_order(request)
    assert [ends[0].outcome, again.outcome] == [Outcome.UNKNOWN, Outcome.UNKNOWN]
    assert ib_rig.placed(request) == 1
    assert ib_rig.status_of(request) is VenueStatus.OPEN


def test_the_number_of_an_open_order_is_not_used_again(ib_rig: IbRig) -> None:
    """TWS would take a second order with it for a change of the first."""
    ib_rig.tws.forgets_numbers = True
    first, second = ib_rig.limit(), ib_rig.limit("49000")
    ib_rig.plugin.execute_order(first)
    ib_rig.cut()
    assert ib_rig.plugin.execute_order(second).outcome is Outcome.ACCEPTED
    assert [ib_rig.placed(request) for request in (first, second)] == [1, 1]
    assert len({told["orderId"] for told in ib_rig.sent()}) == 2


def test_a_number_tws_has_used_is_not_sent_and_the_next_one_is_taken(ib_rig: IbRig) -> None:
    ib_rig.tws.forgets_numbers = True
    for _ in range(3):
        ib_rig.plugin.execute_order(ib_rig.order())
    ib_rig.cut()
    request = ib_rig.order()
    refused = ib_rig.plugin.execute_order(request)
    assert (refused.outcome, refused.retry_after) == (Outcome.NOT_SENT, 1)
    assert "Duplicate order id (103)" in refused.detail
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert ib_rig.placed(request) == 1


def test_open_orders_that_cannot_be_read_stop_new_ones(ib_rig: IbRig) -> None:
    """Their numbers are not known, and must not be used again."""
    ib_rig.plugin.execute_order(ib_rig.limit())
    ib_rig.tws.garbled = {5}
    ib_rig.tws.cut()
    # the first of them may still meet the end of the old connection
    results = [ib_rig.plugin.execute_order(ib_rig.order()) for _ in range(2)]
    assert {one.outcome for one in results} == {Outcome.NOT_SENT}
    assert len(ib_rig.sent()) == 1
    assert "open orders with something ib_async cannot read" in results[1].detail


def answered(reference: str, *states: tuple[str, int], perm_id: int = 5, fills: int = 0) -> Any:
    log = [SimpleNamespace(status=status, errorCode=code) for status, code in states]
    order = SimpleNamespace(permId=perm_id, orderRef=reference)
    return SimpleNamespace(order=order, log=log, fills=[object()] * fills)


@pytest.mark.parametrize(
    ("trade", "codes", "outcome"),
    [
        (answered("ours", ("Submitted", 0)), [], Outcome.ACCEPTED),
        (answered("another", ("Submitted", 0)), [], None),
        (answered("ours", ("Submitted", 0), perm_id=0), [], None),
        (answered("ours", ("PendingSubmit", 0)), [], None),
        (answered("ours", ("Inactive", 0)), [], None),
        (answered("ours", ("PendingSubmit", 0), ("Cancelled", 321)), [321], None),
        (answered("ours", ("Cancelled", 0)), [], Outcome.ACCEPTED),
        (answered("ours", ("PendingSubmit", 0), ("Cancelled", 202)), [202], Outcome.ACCEPTED),
        (answered("another", ("Cancelled", 202)), [202], None),
        (answered("ours", ("Submitted", 0), ("Cancelled", 201)), [201], Outcome.REJECTED),
        (answered("ours", ("Submitted", 0), ("Cancelled", 201), fills=1), [201], Outcome.ACCEPTED),
        (answered("another", ("Filled", 0), fills=1), [103], Outcome.NOT_SENT),
        (answered("ours", ("Submitted", 0)), [103], Outcome.ACCEPTED),
    ],
)
def test_what_counts_is_what_tws_says_of_our_reference(
    trade: Any, codes: list[int], outcome: Outcome | None
) -> None:
    result = judge(trade, [(code, "said") for code in codes], "ours")
    assert (None if result is None else result.outcome) is outcome


def test_two_agents_cannot_be_the_same_client(ib_rig: IbRig, tmp_path: Path) -> None:
    assert ib_rig.plugin.health_check().ok
    folder = tmp_path / "second"
    folder.mkdir()
    port = int(ib_rig.agent.table.split()[2])
    second = ib_agent(folder, ib_rig.tws, port)
    second.start()
    result = second.plugin().execute_order(ib_rig.order())
    second.kill()
    assert (result.outcome, result.retry_after) == (Outcome.NOT_SENT, 2)
    assert "already in use. (326)" in result.detail
    assert ib_rig.plugin.health_check().ok
