"""What OANDA's answers come to, and what leaves for it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from brokers import oanda_answers
from brokers.capabilities import Balances
from brokers.errors import (
    ConfigurationError,
    CredentialError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.plugins import oanda
from brokers.plugins.oanda import OandaPlugin
from brokers.types import (
    AccountConfig,
    AttachedStop,
    BalanceReport,
    Environment,
    OrderRef,
    OrderRequest,
    OrderType,
    Outcome,
    PositionReport,
    Side,
    TimeInForce,
    VenueStatus,
)
from tests.brokers.contract import oanda_plugin, order, ref
from tests.venues.client import RunningVenue
from tests.venues.credentials import OANDA_TOKEN
from tests.venues.faults import Action, Endpoint, Fault, When
from tests.venues.oanda.rules import ACCOUNT

EURO, YEN = "EUR/USD", "USD/JPY"
D = Decimal
ACCEPTED, REJECTED = Outcome.ACCEPTED, Outcome.REJECTED
NOT_SENT, UNKNOWN = Outcome.NOT_SENT, Outcome.UNKNOWN


def euros(**changes: object) -> OrderRequest:
    return order(**{"symbol": EURO, "quantity": D(1000)} | changes)


def sent(venue: RunningVenue) -> list[dict[str, str]]:
    return [one.params for one in venue.control.requests() if one.endpoint == "order"]


def answered(venue: RunningVenue) -> list[dict[str, str]]:
    """As ``sent``, once the venue has let go of the request it holds."""
    deadline = time.monotonic() + 10
    while not sent(venue) and time.monotonic() < deadline:
        time.sleep(0.05)
    return sent(venue)


@pytest.mark.parametrize(
    ("fault", "outcome", "code", "placed"),
    [
        (
            Fault(Action.CODE, When.BEFORE, code="INSUFFICIENT_MARGIN"),
            REJECTED,
            "VENUE_REJECTED",
            0,
        ),
        (Fault(Action.CODE, When.BEFORE, code="MARKET_HALTED"), REJECTED, "VENUE_REJECTED", 0),
        (
            Fault(Action.CODE, code="CLIENT_ORDER_ID_ALREADY_EXISTS"),
            UNKNOWN,
            "VENUE_UNREACHABLE",
            1,
        ),
        (Fault(Action.STATUS, status=429), UNKNOWN, "RATE_LIMITED", 1),
        (Fault(Action.STATUS, status=400), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=502), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.STATUS, status=504), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.DROP), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.HANG, seconds=3), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.TRUNCATE), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.CUT_JSON), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.EMPTY), UNKNOWN, "VENUE_UNREACHABLE", 1),
        (Fault(Action.HTML), UNKNOWN, "VENUE_UNREACHABLE", 1),
    ],
    ids=lambda value: (
        f"{value.label}{value.code or value.status}" if isinstance(value, Fault) else str(value)
    ),
)
def test_only_evidence_ends_a_placement(
    venue: RunningVenue, fault: Fault, outcome: Outcome, code: str, placed: int
) -> None:
    plugin, request = oanda_plugin(venue.base_url, submit_timeout=1), euros()
    venue.control.queue_faults(fault)
    result = plugin.execute_order(request)
    assert (result.outcome, result.code) == (outcome, code)
    assert len(venue.control.ledger("oanda").orders) == placed
    assert len(answered(venue)) == 1
    assert (plugin.fetch_order(ref(request)) is not None) is bool(placed)
    assert OANDA_TOKEN not in repr(result)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"type": "MARKET", "timeInForce": "FOK", "units": "1000", "positionFill": "DEFAULT"}),
        ({"side": Side.SELL}, {"units": "-1000"}),
        ({"time_in_force": TimeInForce.IOC}, {"type": "MARKET", "timeInForce": "IOC"}),
        ({"time_in_force": TimeInForce.DAY}, {"type": "MARKET", "timeInForce": "FOK"}),
        (
            {"type": OrderType.LIMIT, "price": D("1.05")},
            {"type": "LIMIT", "timeInForce": "GTC", "price": "1.05"},
        ),
        (
            {"type": OrderType.LIMIT, "price": D("1.05"), "time_in_force": TimeInForce.DAY},
            {"type": "LIMIT", "timeInForce": "GFD", "price": "1.05"},
        ),
        (
            {"type": OrderType.LIMIT, "price": D("1.05"), "time_in_force": TimeInForce.IOC},
            {"type": "MARKET", "timeInForce": "IOC", "priceBound": "1.05"},
        ),
        (
            {"type": OrderType.LIMIT, "price": D("1.2"), "time_in_force": TimeInForce.FOK},
            {"type": "MARKET", "timeInForce": "FOK", "priceBound": "1.2"},
        ),
        (
            {"type": OrderType.STOP, "stop_price": D("1.2")},
            {"type": "STOP", "timeInForce": "GTC", "price": "1.2"},
        ),
    ],
    ids=str,
)
def test_each_intent_leaves_as_oanda_writes_it(
    venue: RunningVenue, changes: dict[str, object], wanted: dict[str, str]
) -> None:
    request = euros(**changes)
    result = oanda_plugin(venue.base_url).execute_order(request)
    assert result.outcome is ACCEPTED
    (fields,) = sent(venue)
    assert {name: fields[name] for name in wanted} == wanted
    assert set(fields) == {
        "type", "instrument", "units", "timeInForce", "positionFill", "clientExtensions",
        *({"price", "priceBound"} & set(wanted)),
    }  # fmt: skip
    assert fields["clientExtensions"] == str({"id": request.identity})


@pytest.mark.parametrize(
    "changes",
    [
        {"type": OrderType.STOP_LIMIT, "price": D(1), "stop_price": D(1)},
        {"type": OrderType.TRAILING_STOP, "trailing_percent": D(1)},
        {"type": OrderType.STOP, "stop_price": D(1), "time_in_force": TimeInForce.IOC},
        {"quantity": D("0.5")},
        {"type": OrderType.LIMIT, "price": D("1.000001")},
        {"symbol": "EUR"},
        {"symbol": "EUR/../x"},
        {"symbol": "XXX/USD"},
    ],
    ids=str,
)
def test_what_oanda_lacks_never_leaves(venue: RunningVenue, changes: dict[str, object]) -> None:
    result = oanda_plugin(venue.base_url).execute_order(euros(**changes))
    assert result.outcome is NOT_SENT
    assert result.code in {"NOT_SUPPORTED", "UNKNOWN_SYMBOL"}
    assert sent(venue) == []


def test_reduce_only_never_opens(venue: RunningVenue) -> None:
    plugin = oanda_plugin(venue.base_url)
    exit_ = euros(side=Side.SELL, reduce_only=True)
    assert plugin.execute_order(exit_).outcome is REJECTED
    plugin.execute_order(euros())
    exit_ = euros(side=Side.SELL, reduce_only=True)
    assert plugin.execute_order(exit_).outcome is ACCEPTED
    assert sent(venue)[-1]["positionFill"] == "REDUCE_ONLY"
    assert plugin.positions() == []


def test_an_order_taken_in_and_ended_at_once_says_why(venue: RunningVenue) -> None:
    """201 does not mean filled."""
    plugin = oanda_plugin(venue.base_url)
    request = euros(type=OrderType.LIMIT, price=D("1.05"), time_in_force=TimeInForce.FOK)
    assert plugin.execute_order(request).outcome is ACCEPTED
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, D(0))
    assert report.reason == "BOUNDS_VIOLATION"


def test_what_a_partial_fill_leaves_is_gone(venue: RunningVenue) -> None:
    plugin, request = oanda_plugin(venue.base_url), euros(time_in_force=TimeInForce.IOC)
    venue.control.set_depth("oanda", EURO, asks=[("1.1", 400)])
    plugin.execute_order(request)
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, D(400))
    assert [one.quantity for one in report.fills] == [D(400)]
    assert "in part" in report.reason


def test_shorts_and_longs_net(venue: RunningVenue) -> None:
    plugin = oanda_plugin(venue.base_url)
    plugin.execute_order(euros(side=Side.SELL))
    assert plugin.positions() == [PositionReport(EURO, D(-1000), D("1.09999"))]
    plugin.execute_order(euros(quantity=D(1500)))
    assert [one.quantity for one in plugin.positions()] == [D(500)]


def test_a_summary_that_says_nothing_of_hedging_stops_no_account(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = oanda_plugin(venue.base_url)
    summary = {name: one for name, one in plugin._summary().items() if name != "hedgingEnabled"}
    monkeypatch.setattr(plugin, "_summary", lambda: summary)
    assert plugin.check_permissions().trade is True
    assert plugin.execute_order(euros()).outcome is ACCEPTED


def test_a_hedging_account_is_refused(venue: RunningVenue) -> None:
    venue.control.set_hedge_mode("oanda", hedged=True)
    plugin = oanda_plugin(venue.base_url)
    assert plugin.check_permissions().trade is False
    result = plugin.execute_order(euros())
    assert (result.outcome, result.code, sent(venue)) == (NOT_SENT, "ACCOUNT_MISCONFIGURED", [])


def test_both_sides_of_a_position_are_no_position() -> None:
    held = {"units": "5", "averagePrice": "1.1"}
    with pytest.raises(QueryFailedError, match="long and short"):
        oanda_answers.position({"instrument": "EUR_USD", "long": held, "short": held})


FILL = {
    "id": "7", "time": "2026-11-20T10:00:00.123456789Z", "instrument": "EUR_USD", "units": "-100",
    "price": "1.2", "commission": "0.5", "guaranteedExecutionFee": "0.1",
}  # fmt: skip


@pytest.mark.parametrize("currency", ["USD", "EUR"])
def test_a_fee_is_told_in_the_accounts_currency(currency: str) -> None:
    fill = oanda_answers.fill(FILL, currency)
    assert (fill.fee, fill.fee_currency, fill.quantity) == (D("0.6"), currency, D(100))
    assert fill.at == datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)


def test_an_order_our_id_no_longer_names_is_found_among_all(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oanda, "PAGE", 2)
    plugin, request = oanda_plugin(venue.base_url), euros()
    plugin.execute_order(request)
    for _ in range(5):
        plugin.execute_order(euros())
    submitted = datetime.now(UTC) - timedelta(seconds=30)
    venue.control.queue_faults(
        Fault(Action.CODE, endpoint=Endpoint.QUERY, code="ignored"),
    )
    with pytest.raises(QueryFailedError):
        plugin.fetch_order(ref(request))
    found = plugin._look_through(OrderRef(request.identity, EURO, "", submitted))
    assert found is not None
    nobody = OrderRef(order().identity, EURO, "", submitted)
    assert plugin._look_through(nobody) is None
    monkeypatch.setattr(oanda, "MOST_PAGES", 2)
    with pytest.raises(QueryFailedError, match="more than"):
        plugin._look_through(nobody)


def test_every_trade_is_found_on_every_page(venue: RunningVenue) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)
    plugin = oanda_plugin(venue.base_url)
    for _ in range(5):
        plugin.execute_order(euros())
    plugin.execute_order(euros(symbol=YEN))
    assert len({one.trade_id for one in plugin.trades_since(EURO, start)}) == 5
    assert len(plugin.trades_since(YEN, start)) == 1


QUERIES: dict[str, Callable[[OandaPlugin], Any]] = {
    "fetch_order": lambda plugin: plugin.fetch_order(ref(euros())),
    "open_orders": lambda plugin: plugin.open_orders(),
    "trades_since": lambda plugin: plugin.trades_since(EURO, datetime.now(UTC)),
    "balances": lambda plugin: plugin.balances(),
    "positions": lambda plugin: plugin.positions(),
    "check_permissions": lambda plugin: plugin.check_permissions(),
    "fetch_data": lambda plugin: plugin.fetch_data(EURO),
    "candles": lambda plugin: plugin.candles(EURO, 3),
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_bad_answer_is_no_answer_and_a_bad_moment_is_asked_again(
    venue: RunningVenue, query: str
) -> None:
    plugin = oanda_plugin(venue.base_url)
    for action in (Action.CUT_JSON, Action.EMPTY, Action.HTML):
        venue.control.queue_faults(Fault(action, endpoint=Endpoint.ANY))
        with pytest.raises(QueryFailedError):
            QUERIES[query](plugin)
    venue.control.queue_faults(
        Fault(Action.DROP, endpoint=Endpoint.ANY),
        Fault(Action.STATUS, endpoint=Endpoint.ANY, status=503),
    )
    QUERIES[query](plugin)
    assert venue.control.pending_faults() == []
    venue.control.queue_faults(*[Fault(Action.DROP, endpoint=Endpoint.ANY)] * 3)
    with pytest.raises(QueryFailedError):
        QUERIES[query](plugin)


def test_money_prices_and_candles(venue: RunningVenue) -> None:
    plugin = oanda_plugin(venue.base_url)
    assert plugin.balances() == [BalanceReport("USD", D(100_000), D(100_000))]
    assert plugin.capabilities.balances is Balances.WORTH
    rules = plugin.instrument(YEN)
    assert (rules.price_tick, rules.quantity_step, rules.market_type) == (D("0.001"), D(1), "forex")
    candles = plugin.candles(EURO, 3)
    assert [(one.high, one.low, one.close) for one in candles] == [
        (D("2.1"), D("0.1"), D("1.1"))
    ] * 3
    assert [later.at - one.at for one, later in pairwise(candles)] == [timedelta(hours=1)] * 2
    venue.control.set_depth("oanda", EURO, bids=[], asks=[])
    with pytest.raises(QuoteUnavailableError):
        plugin.fetch_data(EURO)
    with pytest.raises(UnknownSymbolError):
        plugin.fetch_data("XXX/USD")


def test_a_cancel_is_never_repeated_and_never_guessed(venue: RunningVenue) -> None:
    plugin, request = oanda_plugin(venue.base_url), euros(type=OrderType.LIMIT, price=D(1))
    placed = plugin.execute_order(request)
    venue.control.queue_faults(Fault(Action.DROP, When.BEFORE, Endpoint.CANCEL))
    result = plugin.cancel_order(ref(request, placed.broker_order_id))
    assert (result.outcome, result.evidence["sent"]) == (UNKNOWN, True)
    assert len([one for one in venue.control.requests() if one.method == "PUT"]) == 1
    (waiting,) = plugin.open_orders()
    assert waiting.client_order_id == request.identity


def test_only_the_live_environment_reaches_the_live_host() -> None:
    hosts = {}
    for environment in Environment:
        plugin = OandaPlugin()
        plugin.init(
            AccountConfig("1", "o", environment, {"account": ACCOUNT}, {"api_key": OANDA_TOKEN})
        )
        hosts[environment.value] = plugin._account
    practice = f"https://api-fxpractice.oanda.com/v3/accounts/{ACCOUNT}"
    live = f"https://api-fxtrade.oanda.com/v3/accounts/{ACCOUNT}"
    assert hosts == {"dry_run": practice, "sandbox": practice, "live": live}


def test_a_dry_run_reads_and_places_nothing(venue: RunningVenue) -> None:
    plugin = oanda_plugin(venue.base_url, Environment.DRY_RUN)
    assert plugin.fetch_data(EURO).bid == D("1.09999")
    result = plugin.execute_order(euros())
    assert (result.outcome, result.code, sent(venue)) == (NOT_SENT, "NOT_SUPPORTED", [])


def test_a_dry_run_cancels_nothing(venue: RunningVenue) -> None:
    real, request = oanda_plugin(venue.base_url), euros(type=OrderType.LIMIT, price=D(1))
    placed = real.execute_order(request)
    rehearsing = oanda_plugin(venue.base_url, Environment.DRY_RUN)
    canceled = rehearsing.cancel_order(ref(request, placed.broker_order_id))
    assert (canceled.outcome, canceled.code) == (NOT_SENT, "NOT_SUPPORTED")
    assert [one.broker_order_id for one in real.open_orders()] == [placed.broker_order_id]


def test_a_wrong_token_is_named(venue: RunningVenue) -> None:
    plugin = OandaPlugin()
    options = {"base_url": venue.base_url, "account": ACCOUNT}
    plugin.init(AccountConfig("1", "o", Environment.SANDBOX, options, {"api_key": "another"}))
    with pytest.raises(CredentialError):
        plugin.check_permissions()
    assert plugin.health_check().ok is False


@pytest.mark.parametrize("account", ["", "me", "101/../accounts"])
def test_the_account_is_a_number(account: str) -> None:
    with pytest.raises(ConfigurationError, match="v20 number"):
        oanda_plugin("http://127.0.0.1:9", account=account)


def test_evidence_is_json(venue: RunningVenue) -> None:
    evidence = oanda_plugin(venue.base_url).execute_order(euros()).evidence
    assert json.loads(json.dumps(evidence)) == evidence
    assert evidence["request"]["fields"]["order"]["units"] == "1000"


def carrying(stop: str = "1.05", **changes: object) -> OrderRequest:
    return euros(attached_stop=AttachedStop(uuid.uuid4().hex, D(stop)), **changes)


def stop_of(request: OrderRequest) -> OrderRef:
    assert request.attached_stop is not None
    return OrderRef(request.attached_stop.identity, request.symbol, "", None)


def test_an_entry_takes_its_stop_along(venue: RunningVenue) -> None:
    plugin, request = oanda_plugin(venue.base_url), carrying()
    assert plugin.execute_order(request).outcome is ACCEPTED
    stop = {
        "price": "1.05",
        "timeInForce": "GTC",
        "clientExtensions": {"id": stop_of(request).identity},
    }
    assert sent(venue)[0]["stopLossOnFill"] == str(stop)
    report = plugin.fetch_order(stop_of(request))
    assert report is not None
    assert (report.symbol, report.side, report.status) == (EURO, Side.SELL, VenueStatus.OPEN)
    assert (report.quantity, report.filled_quantity) == (D(1000), D(0))


def test_the_stop_of_an_entry_that_waits_is_not_there_yet(venue: RunningVenue) -> None:
    plugin = oanda_plugin(venue.base_url)
    request = carrying("1.01", type=OrderType.LIMIT, price=D("1.05"))
    assert plugin.execute_order(request).outcome is ACCEPTED
    assert plugin.fetch_order(stop_of(request)) is None


def test_the_stop_shrinks_and_ends_with_its_trade(venue: RunningVenue) -> None:
    plugin, request = oanda_plugin(venue.base_url), carrying()
    plugin.execute_order(request)
    plugin.execute_order(euros(side=Side.SELL, quantity=D(400), reduce_only=True))
    smaller = plugin.fetch_order(stop_of(request))
    assert smaller is not None
    assert (smaller.status, smaller.quantity) == (VenueStatus.OPEN, D(600))
    plugin.execute_order(euros(side=Side.SELL, quantity=D(600), reduce_only=True))
    gone = plugin.fetch_order(stop_of(request))
    assert gone is not None
    assert (gone.status, gone.filled_quantity) == (VenueStatus.CANCELED, D(0))


def test_the_stop_is_cancelled_by_our_id_and_fills_as_our_order(venue: RunningVenue) -> None:
    plugin, first, second = oanda_plugin(venue.base_url), carrying(), carrying(symbol=YEN)
    second = replace(second, attached_stop=AttachedStop(uuid.uuid4().hex, D(149)))
    plugin.execute_order(first)
    plugin.execute_order(second)
    assert plugin.cancel_order(stop_of(first)).outcome is ACCEPTED
    canceled = plugin.fetch_order(stop_of(first))
    assert canceled is not None
    assert canceled.status is VenueStatus.CANCELED
    venue.control.set_price("oanda", YEN, "148.9")
    done = plugin.fetch_order(stop_of(second))
    assert done is not None
    assert (done.status, done.filled_quantity, done.side) == (
        VenueStatus.FILLED,
        D(1000),
        Side.SELL,
    )
    assert [one.quantity for one in plugin.positions()] == [D(1000)]
