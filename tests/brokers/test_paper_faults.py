"""A rehearsal with trouble: what the script of a paper account makes happen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from threading import Thread
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import ConfigurationError, QueryFailedError
from brokers.models import PaperOrder
from brokers.plugins.paper import PaperPlugin
from brokers.types import (
    AccountConfig,
    CancelResult,
    Environment,
    ExecutionResult,
    OrderType,
    Outcome,
    TimeInForce,
    VenueStatus,
)
from tests.brokers.contract import limit, order, ref

pytestmark = pytest.mark.django_db
D = Decimal
BTC = "BTC/USDT"


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """It stands still until the test moves it."""
    with time_machine.travel(timezone.now(), tick=False) as standing:
        yield standing


def paper(*faults: dict[str, Any], key: str = "1", **options: Any) -> PaperPlugin:
    plugin = PaperPlugin()
    options = {"prices": {BTC: "60000"}, "faults": list(faults), **options}
    plugin.init(AccountConfig(key, "paper", Environment.DRY_RUN, options))
    return plugin


def ends(plugin: PaperPlugin, orders: int) -> list[str]:
    return [plugin.execute_order(order()).outcome.value for _ in range(orders)]


def test_the_order_of_that_number_is_struck_and_no_other() -> None:
    plugin = paper({"fault": "reject", "order": 2}, {"fault": "lost_request", "order": 3})
    assert ends(plugin, 4) == ["accepted", "rejected", "unknown", "accepted"]
    assert PaperOrder.objects.count() == 2


def test_every_so_many_and_only_of_that_symbol() -> None:
    plugin = paper(
        {"fault": "reject", "every": 2, "symbol": BTC}, prices={BTC: "1", "ETH/USDT": "1"}
    )
    assert ends(plugin, 4) == ["accepted", "rejected", "accepted", "rejected"]
    ether = [plugin.execute_order(order(symbol="ETH/USDT")).outcome for _ in range(2)]
    assert ether == [Outcome.ACCEPTED] * 2


def test_orders_are_counted_by_all_processes_and_another_script_starts_anew() -> None:
    first, second = (paper({"fault": "reject", "order": 3}) for _ in range(2))
    assert ends(first, 1) + ends(second, 2) == ["accepted", "accepted", "rejected"]
    assert ends(paper({"fault": "reject", "order": 1}), 1) == ["rejected"]
    assert ends(paper({"fault": "reject", "order": 2}, key="2"), 1) == ["accepted"]


@pytest.mark.django_db(transaction=True)
def test_threads_share_one_count() -> None:
    plugin, seen = paper({"fault": "reject", "every": 4}), []
    workers = [Thread(target=lambda: seen.extend(ends(plugin, 4))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(seen) == ["accepted"] * 12 + ["rejected"] * 4


def test_an_account_without_a_script_counts_nothing(django_assert_num_queries: Any) -> None:
    plugin = paper()
    with django_assert_num_queries(0):
        assert plugin._script.next(BTC, PaperOrder().created_at) is None
        assert plugin._script.is_down(PaperOrder().created_at) is False


def test_a_lost_answer_leaves_the_order_and_a_second_try_finds_it() -> None:
    plugin, request = paper({"fault": "lost_answer", "order": 1}), order()
    lost = plugin.execute_order(request)
    assert (lost.outcome, lost.broker_order_id) == (Outcome.UNKNOWN, "")
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.FILLED
    assert plugin.execute_order(request).broker_order_id == report.broker_order_id
    assert PaperOrder.objects.count() == 1


def test_a_throttled_order_may_come_back() -> None:
    result = paper({"fault": "throttled", "order": 1, "seconds": 7}).execute_order(order())
    assert (result.outcome, result.code, result.retry_after) == (
        Outcome.NOT_SENT,
        "RATE_LIMITED",
        7,
    )


def test_a_late_answer_comes() -> None:
    plugin = paper({"fault": "late", "order": 1, "seconds": 1})
    started = time.monotonic()
    assert plugin.execute_order(order()).outcome is Outcome.ACCEPTED
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("share", ["0.5", "0"])
def test_a_partial_fill_is_completed_later(share: str, clock: time_machine.Traveller) -> None:
    plugin, request = paper({"fault": "partial", "order": 1, "seconds": 1, "share": share}), order()
    first = plugin.execute_order(request).report
    assert first is not None
    assert first.filled_quantity == D("0.002") * D(share)
    status = VenueStatus.PARTIALLY_FILLED if D(share) else VenueStatus.OPEN
    assert first.status is status
    assert [one.status for one in plugin.open_orders()] == [status]
    clock.shift(1.1)
    done = plugin.fetch_order(ref(request))
    assert done is not None
    assert (done.status, done.filled_quantity) == (VenueStatus.FILLED, D("0.002"))
    assert len({one.trade_id for one in done.fills}) == len(done.fills) == (2 if D(share) else 1)
    (held,) = plugin.positions()
    assert held.quantity == D("0.002")


def test_a_partly_filled_order_can_be_canceled() -> None:
    plugin, request = paper({"fault": "partial", "order": 1, "seconds": 60}), order()
    plugin.execute_order(request)
    assert plugin.cancel_order(ref(request)) == CancelResult(Outcome.ACCEPTED)
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, D("0.001"))


@pytest.mark.parametrize(
    ("term", "status", "filled"),
    [
        (TimeInForce.IOC, VenueStatus.EXPIRED, D("0.001")),
        (TimeInForce.FOK, VenueStatus.FILLED, D("0.002")),
    ],
)
def test_an_immediate_order_keeps_no_rest(
    term: TimeInForce, status: VenueStatus, filled: Decimal
) -> None:
    plugin = paper({"fault": "partial", "order": 1})
    request = limit("70000", time_in_force=term)
    report = plugin.execute_order(request).report
    assert report is not None
    assert (report.status, report.filled_quantity) == (status, filled)


def test_during_an_outage_nothing_answers_and_then_everything_does(
    clock: time_machine.Traveller,
) -> None:
    plugin, request = paper({"fault": "outage", "order": 2, "seconds": 1}), limit()
    plugin.execute_order(request)
    down = plugin.execute_order(order())
    assert down == ExecutionResult(
        Outcome.NOT_SENT,
        code="VENUE_UNREACHABLE",
        detail="the paper venue is down",
        retry_after=1,
    )
    other = paper({"fault": "outage", "order": 2, "seconds": 1})
    for question in (
        other.open_orders,
        other.balances,
        other.positions,
        lambda: other.fetch_order(ref(request)),
        lambda: other.fetch_data(BTC),
    ):
        with pytest.raises(QueryFailedError, match="down"):
            question()
    assert other.cancel_order(ref(request)).outcome is Outcome.NOT_SENT
    assert other.health_check().ok is False
    clock.shift(1.1)
    assert other.health_check().ok
    assert ends(other, 2) == ["accepted", "accepted"]
    report = other.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.OPEN


def test_orders_that_cannot_be_read_are_not_counted() -> None:
    plugin = paper({"fault": "reject", "order": 1})
    assert plugin.execute_order(order(quantity=D(0))).outcome is Outcome.NOT_SENT
    assert plugin.execute_order(order(type=OrderType.LIMIT)).outcome is Outcome.NOT_SENT
    assert ends(plugin, 1) == ["rejected"]


@pytest.mark.parametrize(
    ("faults", "match"),
    [
        ({}, "list"),
        (["reject"], "line 1: not an object"),
        ([{"fault": "fire", "order": 1}], "line 1: fault is one of reject"),
        ([{"order": 1}], "fault is one of"),
        ([{"fault": "reject"}], "order or every"),
        ([{"fault": "reject", "order": 1, "every": 2}], "order or every"),
        ([{"fault": "reject", "order": 0}], "order is a whole number"),
        ([{"fault": "reject", "every": True}], "every is a whole number"),
        ([{"fault": "reject", "order": 1}, {"fault": "late", "order": 1, "for": 2}], "line 2"),
        ([{"fault": "reject", "order": 1, "seconds": 2}], "takes no time"),
        ([{"fault": "late", "order": 1, "seconds": 601}], "from 1 to 600"),
        ([{"fault": "late", "order": 1, "share": "0.5"}], "only a partial fill"),
        ([{"fault": "partial", "order": 1, "share": "1"}], "share lies"),
        ([{"fault": "partial", "order": 1, "share": "NaN"}], "share lies"),
        ([{"fault": "reject", "order": 1}] * 101, "at most 100"),
    ],
    ids=str,
)
def test_a_script_that_makes_no_sense_is_refused(faults: object, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        paper(faults=faults)
