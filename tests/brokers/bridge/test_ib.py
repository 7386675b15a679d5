"""The Interactive Brokers driver over a real agent process, ib_async and an imitation of TWS."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brokers.bridge.driver import Listed
from brokers.bridge.drivers.ib import is_real
from brokers.bridge.drivers.ib_contracts import Traded
from brokers.bridge.drivers.ib_orderbook import tells_of
from brokers.bridge.drivers.ib_orders import judge
from brokers.bridge.drivers.ib_placing import Placing
from brokers.bridge.drivers.ib_session import MOST_A_SECOND, Pace
from brokers.bridge.drivers.ib_settings import terms_of
from brokers.errors import (
    ConfigurationError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.plugins.bridge import BridgePlugin
from brokers.symbols import resolve
from brokers.types import (
    Environment,
    ExecutionResult,
    OrderRef,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
    TimeInForce,
    VenueStatus,
)
from tests.brokers.contract import order
from tests.brokers.terminals import ib, ib_wire
from tests.brokers.terminals.rigs import SHARE, IbRig, ib_agent

FUTURE = (
    '[instruments."ES 12-26"]\nsymbol = "ES"\nmax_quantity = "1000"\ntype = "FUT"\n'
    'exchange = "CME"\ncurrency = "USD"\nexpiry = "202612"\noutside_rth = true\n'
)
CORN = (
    '[instruments."ZC 12-26"]\nsymbol = "ZC"\nmax_quantity = "1000"\ntype = "FUT"\n'
    'exchange = "CBOT"\ncurrency = "USD"\ntick = "0.5"\n'
)
COIN = (
    '[instruments."BTC/USD"]\nsymbol = "BTC"\nmax_quantity = "10"\ntype = "CRYPTO"\n'
    'exchange = "PAXOS"\ncurrency = "USD"\n'
)
OTHERS = [
    ib.share(
        51,
        symbol="ES",
        secType="FUT",
        exchange="CME",
        expiry="202612",
        multiplier="50",
        localSymbol="ESZ6",
        minTick="0.25",
        validExchanges="CME",
        marketRuleIds="",
        minSize="1",
        sizeIncrement="1",
        bid=Decimal(6000),
        ask=Decimal("6000.25"),
    ),
    ib.share(
        52,
        symbol="ZC",
        secType="FUT",
        exchange="CBOT",
        multiplier="5000",
        priceMagnifier="100",
        minSize="1",
        sizeIncrement="1",
        bid=Decimal(450),
        ask=Decimal("450.25"),
    ),
    ib.share(
        53,
        symbol="BTC",
        secType="CRYPTO",
        exchange="PAXOS",
        marketRuleIds="",
        minSize="0.00000001",
        sizeIncrement="0.00000001",
        minTick="0.25",
    ),
]


@pytest.fixture
def varied(tmp_path: Path) -> Iterator[IbRig]:
    tws = ib.Tws(contracts=[ib.share(), *OTHERS])
    with ib.running(tws) as port:
        agent = ib_agent(tmp_path, tws, port, instruments=SHARE + FUTURE + CORN + COIN)
        agent.start()
        yield IbRig(tws, agent)
        agent.kill()


def ref(request: OrderRequest, hours_ago: float | None = None) -> OrderRef:
    sent_at = None if hours_ago is None else datetime.now(UTC) - timedelta(hours=hours_ago)
    return OrderRef(request.identity, request.symbol, "", sent_at)


def sent(tws: ib.Tws) -> list[dict[str, str]]:
    orders = [one for one in tws.requests if one[0] == "3"]
    return [ib_wire.named(ib_wire.PLACE_ORDER, one) for one in orders]


def status_of(rig: IbRig, request: OrderRequest) -> VenueStatus | None:
    report = rig.plugin.fetch_order(ref(request))
    return None if report is None else report.status


# --- what leaves ---


def test_numbers_leave_as_plain_text(varied: IbRig) -> None:
    request = varied.limit(
        "1000.25", symbol="BTC/USD", quantity=Decimal("0.00000001"), side=Side.BUY
    )
    assert varied.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    told = sent(varied.tws)[0]
    assert (told["totalQuantity"], told["lmtPrice"]) == ("0.00000001", "1000.25")
    assert (told["orderType"], told["tif"], told["transmit"]) == ("LMT", "GTC", "1")
    assert told["orderRef"] == varied.plugin.client_order_id(request.identity)
    assert (told["account"], told["auxPrice"], told["outsideRth"]) == ("DU1234567", "", "0")


def test_every_type_of_order_has_its_own_fields(ib_rig: IbRig) -> None:
    stop = {"stop_price": Decimal(55000)}
    requests = [
        ib_rig.order(time_in_force=TimeInForce.DAY),
        ib_rig.order(side=Side.SELL, type=OrderType.STOP, **stop),
        ib_rig.order(side=Side.SELL, type=OrderType.STOP_LIMIT, price=Decimal(54000), **stop),
        ib_rig.order(side=Side.SELL, type=OrderType.TRAILING_STOP, trailing_percent=Decimal("1.5")),
    ]
    for request in requests:
        assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    names = ("action", "orderType", "tif", "lmtPrice", "auxPrice", "trailingPercent")
    assert [tuple(told[name] for name in names) for told in sent(ib_rig.tws)] == [
        ("BUY", "MKT", "DAY", "", "", ""),
        ("SELL", "STP", "GTC", "", "55000", ""),
        ("SELL", "STP LMT", "GTC", "54000", "55000", ""),
        ("SELL", "TRAIL", "GTC", "", "", "1.5"),
    ]


def test_a_contract_is_as_many_units_as_its_price_counts(varied: IbRig) -> None:
    rules = varied.plugin.instrument("ES 12-26")
    assert (rules.quantity_step, rules.price_tick) == (Decimal(50), Decimal("0.25"))
    assert (rules.base, rules.quote, rules.venue_symbol) == ("ES", "USD", "ESZ6")
    assert rules.market_type == "future"
    request = varied.order(symbol="ES 12-26", quantity=Decimal(100))
    assert varied.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert (sent(varied.tws)[0]["totalQuantity"], sent(varied.tws)[0]["outsideRth"]) == ("2", "1")
    report = varied.plugin.fetch_order(ref(request))
    assert report is not None
    assert report.quantity == report.filled_quantity == Decimal(100)
    assert report.average_price == Decimal("6000.25")
    held = varied.plugin.positions()
    assert [(p.symbol, p.quantity, p.average_price) for p in held] == [
        ("ES 12-26", Decimal(100), Decimal("6000.25"))
    ]
    half = varied.plugin.execute_order(varied.order(symbol="ES 12-26", quantity=Decimal(25)))
    assert half.outcome is Outcome.NOT_SENT


def test_prices_in_cents_count_as_cents(varied: IbRig) -> None:
    rules = varied.plugin.instrument("ZC 12-26")
    assert (rules.quantity_step, rules.price_tick) == (Decimal(50), Decimal("0.5"))


def test_a_shares_tick_is_the_widest_of_its_exchanges_rule(ib_rig: IbRig) -> None:
    rules = ib_rig.plugin.instrument("BRK.A/USD")
    assert (rules.price_tick, rules.quantity_step) == (Decimal("0.01"), Decimal(1))
    result = ib_rig.plugin.execute_order(ib_rig.limit("50000.001"))
    assert (result.outcome, sent(ib_rig.tws)) == (Outcome.NOT_SENT, [])


@pytest.mark.parametrize("count", [0, 2])
def test_a_symbol_that_is_not_one_contract_is_refused(ib_rig: IbRig, count: int) -> None:
    ib_rig.tws.contracts = [ib.share(4242 + number) for number in range(count)]
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "UNKNOWN_SYMBOL")
    with pytest.raises(UnknownSymbolError, match=f"{count} contracts"):
        ib_rig.plugin.instrument("BRK.A/USD")


# --- what TWS answers ---


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
    assert status_of(ib_rig, request) is VenueStatus.OPEN


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
    assert status_of(ib_rig, request) is (VenueStatus.OPEN if placed else None)


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
    assert status_of(ib_rig, request) is VenueStatus.OPEN


# --- numbers of orders ---


def test_the_number_of_an_open_order_is_not_used_again(ib_rig: IbRig) -> None:
    """TWS would take a second order with it for a change of the first."""
    ib_rig.tws.forgets_numbers = True
    first, second = ib_rig.limit(), ib_rig.limit("49000")
    ib_rig.plugin.execute_order(first)
    ib_rig.tws.cut()
    assert ib_rig.plugin.execute_order(second).outcome is Outcome.ACCEPTED
    assert [ib_rig.placed(request) for request in (first, second)] == [1, 1]
    assert len({told["orderId"] for told in sent(ib_rig.tws)}) == 2


def test_a_number_tws_has_used_is_not_sent_and_the_next_one_is_taken(ib_rig: IbRig) -> None:
    ib_rig.tws.forgets_numbers = True
    for _ in range(3):
        ib_rig.plugin.execute_order(ib_rig.order())
    ib_rig.tws.cut()
    request = ib_rig.order()
    refused = ib_rig.plugin.execute_order(request)
    assert (refused.outcome, refused.retry_after) == (Outcome.NOT_SENT, 1)
    assert "Duplicate order id (103)" in refused.detail
    assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert ib_rig.placed(request) == 1


def test_open_orders_that_cannot_be_read_stop_new_ones(ib_rig: IbRig) -> None:
    """Their numbers are not known, and must not be used again."""
    ib_rig.plugin.execute_order(ib_rig.limit())
    ib_rig.tws.cut()
    ib_rig.tws.garbled = {5}
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, len(sent(ib_rig.tws))) == (Outcome.NOT_SENT, 1)
    assert "open orders with something ib_async cannot read" in result.detail


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
    ids=str,
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


# --- looking up ---


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
    assert status_of(ib_rig, request) is VenueStatus.OPEN


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
    ib_rig.tws.cut()
    ib_rig.tws.garbled = {number}
    for request in (resting, filled, ib_rig.order()):
        with pytest.raises(QueryFailedError):
            ib_rig.plugin.fetch_order(ref(request))


def test_executions_without_their_order_leave_the_question_open(ib_rig: IbRig) -> None:
    request = ib_rig.order()
    ib_rig.plugin.execute_order(request)
    ib_rig.tws.orders.clear()
    with pytest.raises(QueryFailedError, match="executions of this order but not the order"):
        ib_rig.plugin.fetch_order(ref(request))


def test_an_order_of_yesterday_is_never_proven_absent(ib_rig: IbRig) -> None:
    with pytest.raises(QueryFailedError, match="today alone"):
        ib_rig.plugin.fetch_order(ref(ib_rig.order(), hours_ago=24))
    since = datetime.now(UTC) - timedelta(hours=24)
    with pytest.raises(QueryFailedError, match="today alone"):
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


def test_orders_of_others_are_seen_and_only_they_can_cancel_them(ib_rig: IbRig) -> None:
    request = ib_rig.limit()
    number = int(ib_rig.plugin.execute_order(request).broker_order_id)
    ib_rig.tws.orders[number].update(clientId=0, orderId=-3, orderRef="")
    ib_rig.tws.cut()
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
    assert status_of(ib_rig, request) is status
    assert len(ib_rig.plugin.open_orders()) == working


def test_a_cancel_that_comes_too_late_is_rejected(ib_rig: IbRig) -> None:
    request = ib_rig.limit()
    ib_rig.plugin.execute_order(request)
    ib_rig.tws.fills_first = True
    result = ib_rig.plugin.cancel_order(ref(request))
    assert (result.outcome, result.code) == (Outcome.REJECTED, "NOTHING_TO_CANCEL")
    assert status_of(ib_rig, request) is VenueStatus.FILLED


def test_a_cancel_nobody_answers_is_unknown(ib_rig: IbRig) -> None:
    request = ib_rig.limit()
    ib_rig.plugin.execute_order(request)
    ib_rig.tws.mute = {4}
    assert ib_rig.plugin.cancel_order(ref(request)).outcome is Outcome.UNKNOWN


# --- the connection ---


def test_tws_without_its_servers_gets_no_order_and_proves_nothing(ib_rig: IbRig) -> None:
    assert ib_rig.plugin.health_check().ok
    ib_rig.tws.say(1100, "Connectivity between IB and TWS has been lost.")
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, result.retry_after) == (Outcome.NOT_SENT, 2)
    assert not ib_rig.plugin.health_check().ok
    with pytest.raises(QueryFailedError, match="lost its connection"):
        ib_rig.plugin.fetch_order(ref(ib_rig.order()))
    ib_rig.tws.say(1102, "Connectivity between IB and TWS has been restored.")
    assert ib_rig.plugin.health_check().ok
    assert ib_rig.plugin.execute_order(ib_rig.order()).outcome is Outcome.ACCEPTED


def test_outages_leave_no_account_summaries_behind(ib_rig: IbRig) -> None:
    """TWS allows two, and ib_async opens one after each outage."""
    assert ib_rig.plugin.health_check().ok
    for _ in range(3):
        ib_rig.tws.say(1100)
        ib_rig.tws.say(1102)
    assert ib_rig.plugin.health_check().ok
    assert len(ib_rig.plugin.balances()) == 1


def test_a_silent_tws_gets_no_order(ib_rig: IbRig) -> None:
    assert ib_rig.plugin.health_check().ok
    ib_rig.tws.mute = {49}
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, sent(ib_rig.tws)) == (Outcome.NOT_SENT, [])
    ib_rig.tws.mute = set()
    assert ib_rig.plugin.execute_order(ib_rig.order()).outcome is Outcome.ACCEPTED


def test_no_more_messages_than_tws_takes() -> None:
    async def turns() -> float:
        pace, started = Pace(), time.monotonic()
        for _ in range(MOST_A_SECOND + 1):
            await pace.turn()
        return time.monotonic() - started

    assert 1 <= asyncio.run(turns()) < 2


def test_a_claim_that_ended_while_the_order_waited_its_turn_sends_nothing() -> None:
    class Crowded:
        async def turn(self) -> None:
            await asyncio.sleep(0.05)

    session: Any = SimpleNamespace(pace=Crowded(), require_servers=lambda: None)
    share = Traded("A/USD", None, Decimal(1), Decimal(1), Decimal(1), Decimal("0.01"), False)
    request = order(symbol="A/USD", quantity=Decimal(1))
    placing = Placing(
        replace(request, send_before=datetime.now(UTC) + timedelta(seconds=0.01)), "DU1", "fks"
    )
    result = asyncio.run(placing.run(session, share))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "EXPIRED_BEFORE_SENDING")
    assert (result.retry_after, placing.is_sent) == (1, False)


# --- accounts ---


@pytest.mark.parametrize(
    ("account", "port", "real"),
    [
        ("DU1234567", 7497, False),
        ("DU1234567", 4002, False),
        ("DU1234567", 7496, True),
        ("DU1234567", 4001, True),
        ("U1234567", 7497, True),
        ("F1234567", 7497, True),
        ("", 7497, True),
    ],
)
def test_only_a_paper_number_behind_a_paper_port_is_paper(
    account: str, port: int, *, real: bool
) -> None:
    assert is_real(account, port) is real


def test_real_money_needs_both_ends_to_say_so(tmp_path: Path) -> None:
    tws = ib.Tws(accounts=("U7654321",))
    with ib.running(tws) as port:
        agent = ib_agent(tmp_path, tws, port)
        agent.start()
        request = IbRig(tws, agent).order()
        paper, live = agent.plugin(), agent.plugin(Environment.LIVE)
        assert paper.execute_order(request).outcome is Outcome.NOT_SENT
        refused = live.execute_order(request)
        assert (refused.outcome, "allow_live is off" in refused.detail) == (Outcome.NOT_SENT, True)
        agent.kill()
        agent.settings = "allow_live = true"
        agent.write()
        agent.start()
        assert agent.plugin().execute_order(request).outcome is Outcome.NOT_SENT
        assert sent(tws) == []
        live = agent.plugin(Environment.LIVE)
        assert live.execute_order(request).outcome is Outcome.ACCEPTED
        agent.kill()


def test_an_account_tws_is_not_on_gets_no_order(ib_rig: IbRig) -> None:
    ib_rig.tws.accounts = ("DU7777777",)
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "on account DU7777777" in result.detail


def test_balances_are_asked_anew_and_leave_nothing_open(ib_rig: IbRig) -> None:
    for balance in (1000, 2000, 3000, 4000):
        ib_rig.tws.balance = Decimal(balance)
        told = ib_rig.plugin.balances()
        assert [(b.currency, b.total, b.free) for b in told] == [("USD", balance, balance)]


def test_positions_are_signed_and_flat_ones_left_out(ib_rig: IbRig) -> None:
    ib_rig.plugin.execute_order(ib_rig.order(side=Side.SELL))
    assert [p.quantity for p in ib_rig.plugin.positions()] == [Decimal(-2)]
    ib_rig.plugin.execute_order(ib_rig.order())
    assert ib_rig.plugin.positions() == []


# --- prices ---


def test_a_price_is_asked_anew(ib_rig: IbRig) -> None:
    assert ib_rig.plugin.fetch_data("BRK.A/USD").bid == Decimal(60000)
    ib_rig.tws.contracts[0].update(bid=Decimal("61000.5"), ask=Decimal(61001))
    quote = ib_rig.plugin.fetch_data("BRK.A/USD")
    assert (quote.bid, quote.ask) == (Decimal("61000.5"), Decimal(61001))
    ib_rig.tws.mute = {1}
    with pytest.raises(QuoteUnavailableError, match="no live bid and ask"):
        ib_rig.plugin.fetch_data("BRK.A/USD")


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_frozen_and_delayed_prices_are_none(ib_rig: IbRig, kind: int) -> None:
    ib_rig.tws.data_type = kind
    with pytest.raises(QuoteUnavailableError, match="no live bid and ask"):
        ib_rig.plugin.fetch_data("BRK.A/USD")


def test_without_a_subscription_there_is_no_price(ib_rig: IbRig) -> None:
    ib_rig.tws.contracts[0]["no_price"] = 354
    with pytest.raises(QuoteUnavailableError, match=r"not subscribed \(354\)"):
        ib_rig.plugin.fetch_data("BRK.A/USD")
    ib_rig.tws.mute = {1}
    del ib_rig.tws.contracts[0]["no_price"]
    with pytest.raises(QuoteUnavailableError):
        ib_rig.plugin.fetch_data("BRK.A/USD")
    assert ib_rig.plugin.health_check().ok


# --- the agent ---


def test_a_dry_run_asks_what_if_and_places_nothing(tmp_path: Path) -> None:
    tws = ib.Tws()
    with ib.running(tws) as port:
        agent = ib_agent(tmp_path, tws, port, settings="dry_run = true")
        agent.start()
        rig = IbRig(tws, agent)
        passed, failed = (
            rig.plugin.execute_order(rig.limit()),
            rig.plugin.execute_order(rig.unaffordable()),
        )
        agent.kill()
    assert "passed its checks" in passed.detail
    assert "no funds (201)" in failed.detail
    assert {passed.outcome, failed.outcome} == {Outcome.NOT_SENT}
    assert ([told["whatIf"] for told in sent(tws)], tws.orders) == (["1", "1"], {})


def test_the_selftest_proves_a_paper_account(ib_rig: IbRig) -> None:
    arguments = (str(ib_rig.agent.file), "--account", "DU1234567", "--symbol", "BRK.A/USD")
    done = ib_rig.agent.command("selftest", *arguments)
    assert (done.returncode, done.stdout.count("ok  ")) == (0, 5), done.stdout + done.stderr
    assert [row["status"] for row in ib_rig.tws.orders.values()] == ["Cancelled"]


def test_the_log_names_orders_and_not_what_ib_async_says_of_the_account(ib_rig: IbRig) -> None:
    request = ib_rig.order()
    ib_rig.plugin.execute_order(request)
    ib_rig.plugin.positions()
    log = (ib_rig.agent.folder / "agent.log").read_text()
    assert f"{ib_rig.plugin.client_order_id(request.identity)} buy 2 BRK.A/USD: accepted" in log
    assert "DU1234567" not in log


@pytest.mark.parametrize(
    ("options", "symbol"), [({"shares": True}, "AAPL/USD"), ({"shares": "yes"}, ""), ({}, "")]
)
def test_a_lone_ticker_is_a_share_where_the_account_says_so(
    options: dict[str, Any], symbol: str
) -> None:
    shares = BridgePlugin.trades_shares(options)
    if symbol:
        assert resolve("NASDAQ:AAPL", shares=shares) == symbol
    else:
        with pytest.raises(UnknownSymbolError):
            resolve("NASDAQ:AAPL", shares=shares)


@pytest.mark.parametrize(
    ("options", "terms", "sentence"),
    [
        ({}, {}, "port must be"),
        ({"port": 7497}, {}, "client_id must be"),
        ({"port": 7497, "client_id": 0}, {}, "client_id must be"),
        ({"port": 7497, "client_id": 1, "colour": "red"}, {}, "no setting 'colour'"),
        ({"port": 7497, "client_id": 1, "host": "0.0.0.0"}, {}, "open to others"),  # noqa: S104
        ({"port": 7497, "client_id": 1, "host": "10.0.0.2"}, {}, "vpn = true"),
        ({"port": 7497, "client_id": 1, "time_zone": "Mars"}, {}, "there is no 'Mars'"),
        ({"port": 7497, "client_id": 1, "answer_seconds": 60}, {}, "answer_seconds must be"),
        ({"port": 7497, "client_id": 1}, {"type": "OPT"}, "must be one of"),
        ({"port": 7497, "client_id": 1}, {"exchange": ""}, "lacks exchange"),
        ({"port": 7497, "client_id": 1}, {"tick": 0.5}, "in quotation marks"),
        ({"port": 7497, "client_id": 1}, {"multiplier": 50}, "in quotation marks"),
        ({"port": 7497, "client_id": 1}, {"con_id": "5"}, "con_id is a number"),
        ({"port": 7497, "client_id": 1}, {"colour": "red"}, "no setting 'colour'"),
    ],
    ids=str,
)
def test_what_the_file_must_say(
    options: dict[str, Any], terms: dict[str, Any], sentence: str
) -> None:
    told = {"type": "STK", "exchange": "SMART", "currency": "USD", **terms}
    listed = {"A/USD": Listed("A/USD", "A", Decimal(1), told)}
    with pytest.raises(ConfigurationError, match=sentence):
        terms_of(listed, options)
