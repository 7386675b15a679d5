"""The promises every plugin keeps, whatever its venue."""

from __future__ import annotations

import dataclasses
import json
import pkgutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.capabilities import BookDepth, IdRule
from brokers.errors import NotSupportedError, UnknownSymbolError
from brokers.plugins.bridge import BridgePlugin
from brokers.types import (
    OrderRef,
    OrderReport,
    OrderType,
    Outcome,
    Side,
    TimeInForce,
    VenueStatus,
)
from tests.brokers.contract import (
    CCXT_VENUES,
    AlpacaRig,
    CcxtRig,
    OandaRig,
    PaperRig,
    ProjectXRig,
    Rig,
    SchwabRig,
    ref,
)

ZERO = Decimal(0)

TERMINALS = ("mt5", "nt8", "ib")
"""Venues behind a bridge agent."""
VENUES = [
    *CCXT_VENUES,
    "alpaca",
    "oanda",
    "schwab",
    "projectx",
    pytest.param("paper", marks=pytest.mark.django_db(transaction=True)),
    *TERMINALS,
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every venue of ours, or the one rig that ``--rig`` names."""
    if "rig" in metafunc.fixturenames:
        named = metafunc.config.getoption("--rig")
        venues = VENUES if named is None else [pytest.param(named, id=named.partition(":")[2])]
        metafunc.parametrize("rig", venues, indirect=True)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    name: str = request.param
    if ":" in name:
        return pkgutil.resolve_name(name)(request.getfixturevalue("tmp_path"))  # type: ignore[no-any-return]
    if name in TERMINALS:
        return request.getfixturevalue(f"{name}_rig")  # type: ignore[no-any-return]
    if name == "paper":
        return PaperRig("7")
    kind = {
        "alpaca": AlpacaRig,
        "oanda": OandaRig,
        "schwab": SchwabRig,
        "projectx": ProjectXRig,
    }.get(name, CcxtRig)
    return kind(name, request.getfixturevalue("venue"))


def found(rig: Rig, request: object, broker_order_id: str = "") -> OrderReport:
    report = rig.plugin.fetch_order(ref(request, broker_order_id))  # type: ignore[arg-type]
    assert report is not None
    return report


def test_an_accepted_market_order_is_proven_by_its_id_and_read_back_exactly(rig: Rig) -> None:
    request = rig.order()
    result = rig.plugin.execute_order(request)
    assert (result.outcome, rig.placed(request)) == (Outcome.ACCEPTED, 1)
    report = found(rig, request, result.broker_order_id)
    assert report == found(rig, request)
    assert report.broker_order_id == result.broker_order_id
    assert report.client_order_id == rig.plugin.client_order_id(request.identity)
    assert (report.symbol, report.side, report.status) == (rig.symbol, Side.BUY, VenueStatus.FILLED)
    assert report.quantity == report.filled_quantity == rig.lot
    assert sum(fill.quantity for fill in report.fills) == rig.lot
    assert all(fill.price > 0 and fill.at.tzinfo for fill in report.fills)
    assert all((fill.fee > 0) is rig.tells_fees for fill in report.fills)
    assert report.average_price == report.fills[0].price
    if result.report is not None:
        assert result.report == report


def test_evidence_is_json_and_every_number_a_decimal(rig: Rig) -> None:
    result = rig.plugin.execute_order(rig.order())
    assert json.loads(json.dumps(result.evidence)) == result.evidence
    assert result.evidence["request"]
    values: list[Any] = [
        *rig.plugin.balances(),
        *rig.plugin.trades_since(rig.symbol, datetime.now(UTC) - timedelta(minutes=1)),
        rig.plugin.instrument(rig.symbol),
        rig.plugin.fetch_data(rig.symbol),
    ]
    members = [v for value in values for v in dataclasses.asdict(value).values()]
    assert not [member for member in members if isinstance(member, float)]
    assert [member for member in members if isinstance(member, Decimal)]


def test_a_rejected_order_does_not_exist(rig: Rig) -> None:
    request = rig.unaffordable()
    result = rig.plugin.execute_order(request)
    assert (result.outcome, result.code) == (Outcome.REJECTED, "VENUE_REJECTED")
    assert result.detail
    assert rig.placed(request) == 0
    assert rig.plugin.fetch_order(ref(request)) is None


def test_a_post_only_order_never_takes(rig: Rig) -> None:
    """Some venues refuse it, some take it in and cancel it at once."""
    if not rig.plugin.capabilities.post_only:
        pytest.skip("this venue has no post-only orders")
    request = rig.limit("70000", post_only=True)
    result = rig.plugin.execute_order(request)
    assert result.outcome in {Outcome.REJECTED, Outcome.ACCEPTED}
    report = rig.plugin.fetch_order(ref(request))
    assert (report is None) is (result.outcome is Outcome.REJECTED)
    if report is not None:
        assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, ZERO)


@pytest.mark.parametrize(
    "changes",
    [
        {"symbol": "nothing"},
        {"quantity": Decimal("0.000000001")},
        {"quantity": Decimal(0)},
        {"quantity": Decimal("NaN")},
        {"type": OrderType.TRAILING_STOP, "trailing_percent": Decimal(1)},
        {"type": OrderType.LIMIT},
        {"time_in_force": TimeInForce.DAY},
        {"reduce_only": True},
        {"post_only": True},
    ],
    ids=str,
)
def test_an_impossible_order_is_never_sent(rig: Rig, changes: dict[str, object]) -> None:
    request = rig.order(**changes)
    if changes == {"reduce_only": True} and rig.plugin.capabilities.reduce_only:
        pytest.skip("this venue has reduce-only orders")
    if changes.get("type") in rig.plugin.capabilities.order_types - {OrderType.LIMIT}:
        pytest.skip("this venue has trailing stops")
    if changes.get("time_in_force") in rig.plugin.capabilities.time_in_force:
        pytest.skip("this venue has day orders")
    result = rig.plugin.execute_order(request)
    assert result.outcome is Outcome.NOT_SENT
    assert result.code in {"NOT_SUPPORTED", "UNKNOWN_SYMBOL"}
    assert result.detail


def test_a_lost_answer_is_unknown_and_the_order_is_found(rig: Rig) -> None:
    request = rig.order()
    rig.lose_the_answer()
    result = rig.plugin.execute_order(request)
    assert (result.outcome, result.broker_order_id) == (Outcome.UNKNOWN, "")
    assert rig.placed(request) == 1
    assert found(rig, request).status is VenueStatus.FILLED


def test_a_lost_request_is_unknown_and_the_order_is_absent(rig: Rig) -> None:
    request = rig.order()
    rig.lose_the_request()
    assert rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert rig.placed(request) == 0
    assert rig.plugin.fetch_order(ref(request)) is None


def test_a_partial_fill_shows_in_the_order_and_in_the_trades(rig: Rig) -> None:
    request = rig.limit()
    placed = rig.plugin.execute_order(request)
    rig.fill_half(request, placed.broker_order_id)
    report = found(rig, request)
    assert report.status is VenueStatus.PARTIALLY_FILLED
    assert (report.quantity, report.filled_quantity) == (rig.lot, rig.lot / 2)
    assert report.average_price == Decimal(50000)
    assert [fill.quantity for fill in report.fills] == [rig.lot / 2]
    assert rig.plugin.open_orders(rig.symbol)[0].status is VenueStatus.PARTIALLY_FILLED
    rig.plugin.cancel_order(ref(request, placed.broker_order_id))
    after = found(rig, request)
    assert (after.status, after.filled_quantity) == (VenueStatus.CANCELED, rig.lot / 2)


@pytest.mark.parametrize("by_id", [True, False])
def test_a_canceled_order_is_gone_once(rig: Rig, *, by_id: bool) -> None:
    request = rig.limit()
    placed = rig.plugin.execute_order(request)
    named = ref(request, placed.broker_order_id if by_id else "")
    assert [o.broker_order_id for o in rig.plugin.open_orders()] == [placed.broker_order_id]
    assert rig.plugin.cancel_order(named).outcome is Outcome.ACCEPTED
    assert rig.plugin.cancel_order(named).outcome is Outcome.REJECTED
    assert rig.plugin.open_orders() == []
    assert found(rig, request).status is VenueStatus.CANCELED


def test_a_cancel_that_crosses_a_fill_loses_nothing_of_it(rig: Rig) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)
    request = rig.limit()
    placed = rig.plugin.execute_order(request)
    named = ref(request, placed.broker_order_id)
    rig.fill_as_a_cancel_arrives(request, placed.broker_order_id)
    assert rig.plugin.cancel_order(named).outcome in {Outcome.ACCEPTED, Outcome.REJECTED}
    for _ in range(2):
        report = found(rig, request, placed.broker_order_id)
        assert (report.status, report.filled_quantity) == (VenueStatus.FILLED, rig.lot)
        assert sum(fill.quantity for fill in report.fills) == rig.lot
        assert list(rig.plugin.trades_since(rig.symbol, start)) == list(report.fills)
        assert rig.plugin.open_orders() == []
        assert rig.plugin.cancel_order(named).outcome is Outcome.REJECTED


def test_an_order_is_found_by_the_venues_id_alone_and_says_what_it_is(rig: Rig) -> None:
    request = rig.limit()
    placed = rig.plugin.execute_order(request)
    alone = OrderRef("", request.symbol, placed.broker_order_id, None)
    if isinstance(rig.plugin, BridgePlugin):
        with pytest.raises(NotSupportedError, match="by our id"):
            rig.plugin.fetch_order(alone)
        return
    report = rig.plugin.fetch_order(alone)
    assert report is not None
    assert (report.broker_order_id, report.symbol) == (placed.broker_order_id, request.symbol)
    assert (report.side, report.quantity) == (request.side, request.quantity)
    assert (report.status, report.filled_quantity) == (VenueStatus.OPEN, ZERO)
    rig.plugin.cancel_order(alone)
    after = rig.plugin.fetch_order(alone)
    assert after is not None
    assert after.status is VenueStatus.CANCELED


def test_an_order_that_is_not_ours_is_cancelled_by_the_venues_id(rig: Rig) -> None:
    placed = rig.plugin.execute_order(rig.limit())
    canceled = rig.plugin.cancel_order(OrderRef("", rig.symbol, placed.broker_order_id, None))
    if canceled.outcome is Outcome.NOT_SENT:
        assert canceled.code == "NOT_SUPPORTED", canceled
        assert [o.broker_order_id for o in rig.plugin.open_orders()] == [placed.broker_order_id]
        return
    assert canceled.outcome is Outcome.ACCEPTED, canceled
    assert rig.plugin.open_orders() == []


def test_an_identity_sent_twice_is_never_a_second_order_that_counts_as_new(rig: Rig) -> None:
    if not rig.plugin.capabilities.keeps_our_id:
        pytest.skip("this venue never hears of our id: our own row is the guard")
    request = rig.limit()
    first = rig.plugin.execute_order(request)
    second = rig.plugin.execute_order(request)
    assert rig.placed(request) == 1
    assert second.outcome in {Outcome.UNKNOWN, Outcome.ACCEPTED}
    if second.outcome is Outcome.ACCEPTED:
        assert second.broker_order_id == first.broker_order_id


def test_another_connection_and_a_closed_one_see_the_same(rig: Rig) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)
    filled, resting = rig.order(), rig.limit()
    results = [rig.plugin.execute_order(request) for request in (filled, resting)]
    before = [found(rig, filled), found(rig, resting)]
    rig.plugin.close()
    other = rig.connect()
    for plugin in (other, rig.plugin):
        assert [plugin.fetch_order(ref(request)) for request in (filled, resting)] == before
        assert [o.broker_order_id for o in plugin.open_orders()] == [results[1].broker_order_id]
        assert list(plugin.trades_since(rig.symbol, start)) == list(before[0].fills)


def test_a_restart_between_an_order_and_its_look_up_neither_loses_nor_doubles_it(rig: Rig) -> None:
    resting, unheard = rig.limit(), rig.order()
    rig.plugin.execute_order(resting)
    rig.lose_the_answer()
    assert rig.plugin.execute_order(unheard).outcome is Outcome.UNKNOWN
    rig.restart()
    assert found(rig, unheard).status is VenueStatus.FILLED
    assert found(rig, resting).status is VenueStatus.OPEN


def test_an_identity_sent_before_a_restart_is_no_second_order_after_it(rig: Rig) -> None:
    """Where a venue refuses only the ids of working orders, our own row guards what has ended."""
    rule = rig.plugin.capabilities.id_rule
    if rule is IdRule.NONE:
        pytest.skip("this venue never hears of our id: our own row is the guard")
    sent = [rig.limit()] if rule is IdRule.OPEN else [rig.limit(), rig.order()]
    for request in sent:
        rig.plugin.execute_order(request)
    rig.restart()
    for request in sent:
        assert rig.plugin.execute_order(request).outcome in {Outcome.UNKNOWN, Outcome.ACCEPTED}
        assert rig.placed(request) == 1
    assert len(rig.plugin.open_orders()) == 1


def test_a_request_that_was_lost_before_a_restart_is_absent_after_it(rig: Rig) -> None:
    request = rig.order()
    rig.lose_the_request()
    assert rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    rig.restart()
    assert rig.plugin.fetch_order(ref(request)) is None
    assert rig.placed(request) == 0


def test_trades_before_the_asked_time_are_left_out(rig: Rig) -> None:
    rig.plugin.execute_order(rig.order())
    assert list(rig.plugin.trades_since(rig.symbol, datetime.now(UTC) + timedelta(minutes=1))) == []


def test_an_identity_never_sent_is_not_there(rig: Rig) -> None:
    assert rig.plugin.fetch_order(ref(rig.order())) is None
    assert rig.plugin.cancel_order(ref(rig.order())).outcome is Outcome.REJECTED


def test_stops_wait(rig: Rig) -> None:
    rig.plugin.execute_order(rig.order())
    size, side = rig.lot / 2, Side.SELL
    stop = rig.order(side=side, type=OrderType.STOP, quantity=size, stop_price=Decimal(55000))
    both = rig.order(
        side=side,
        type=OrderType.STOP_LIMIT,
        quantity=size,
        stop_price=Decimal(55000),
        price=Decimal(54000),
    )
    known = rig.plugin.capabilities.order_types
    for request in (one for one in (stop, both) if one.type in known):
        assert rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
        report = found(rig, request)
        assert (report.status, report.filled_quantity) == (VenueStatus.OPEN, ZERO)


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("kind", [OrderType.STOP, OrderType.STOP_LIMIT])
def test_a_waiting_stop_is_cancelled_and_gone(rig: Rig, kind: OrderType, *, by_id: bool) -> None:
    if kind not in rig.plugin.capabilities.order_types:
        pytest.skip(f"this venue has no {kind.value} orders")
    rig.plugin.execute_order(rig.order())
    price = Decimal(54000) if kind is OrderType.STOP_LIMIT else None
    request = rig.order(side=Side.SELL, type=kind, stop_price=Decimal(55000), price=price)
    placed = rig.plugin.execute_order(request)
    assert placed.outcome is Outcome.ACCEPTED
    named = ref(request, placed.broker_order_id if by_id else "")
    assert rig.plugin.cancel_order(named).outcome is Outcome.ACCEPTED
    assert rig.plugin.cancel_order(named).outcome is Outcome.REJECTED
    assert rig.plugin.open_orders() == []
    report = found(rig, request, placed.broker_order_id)
    assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, ZERO)


def test_quotes_and_rules_are_usable_and_unknown_symbols_refused(rig: Rig) -> None:
    quote, rules = rig.plugin.fetch_data(rig.symbol), rig.plugin.instrument(rig.symbol)
    assert ZERO < quote.bid < quote.ask
    assert (rules.base, rules.quote) == tuple(rig.symbol.partition(":")[0].split("/"))
    assert rules.quantity_step > 0
    assert rules.price_tick > 0
    with pytest.raises(UnknownSymbolError):
        rig.plugin.instrument("nothing")
    with pytest.raises(UnknownSymbolError):
        rig.plugin.fetch_data("nothing")


def test_the_order_book_is_exact_or_said_to_be_missing(rig: Rig) -> None:
    depth = rig.plugin.capabilities.order_book
    if depth is BookDepth.NONE:
        with pytest.raises(NotSupportedError, match="no order book"):
            rig.plugin.order_book(rig.symbol)
        pytest.skip("this venue shows no order book")
    quote, book = rig.plugin.fetch_data(rig.symbol), rig.plugin.order_book(rig.symbol)
    assert book.symbol == rig.symbol
    assert (book.bids[0].price, book.asks[0].price) == (quote.bid, quote.ask)
    numbers = [n for one in book.bids + book.asks for n in (one.price, one.quantity)]
    assert all(type(number) is Decimal and number > 0 for number in numbers)
    assert depth is BookDepth.LEVELS or (len(book.bids), len(book.asks)) == (1, 1)
    assert abs(datetime.now(UTC) - book.at) < timedelta(seconds=10)
    with pytest.raises(UnknownSymbolError):
        rig.plugin.order_book("nothing")


def test_client_ids_are_distinct_and_short_enough_for_any_venue(rig: Rig) -> None:
    written = {rig.plugin.client_order_id(rig.order().identity) for _ in range(100)}
    assert len(written) == 100
    assert max(map(len, written)) <= 36


def test_what_it_declares_without_an_account_is_what_it_can(rig: Rig) -> None:
    """Options of an account may add to it, and change how long FKS waits."""
    cards = rig.plugin.cards()
    if not cards:
        pytest.skip("this plugin lists nothing of itself")
    own = rig.plugin.capabilities
    same = ("order_types", "id_rule", "attached_stop", "keeps_our_id", "order_book")
    assert any(
        all(getattr(card.capabilities, name) == getattr(own, name) for name in same)
        and card.capabilities.time_in_force >= own.time_in_force
        for card in cards
    )


def test_health_and_permissions(rig: Rig) -> None:
    health, permissions = rig.plugin.health_check(), rig.plugin.check_permissions()
    assert health.ok
    assert health.latency_ms is not None
    assert permissions.trade
    assert permissions.withdraw is (False if rig.tells_withdrawal else None)
