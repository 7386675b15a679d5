"""Answers read by ccxt: an unverified exchange that speaks like Binance, at our Binance venue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from brokers.errors import CredentialError, NotShownError, QueryFailedError, UnknownSymbolError
from brokers.exchanges import PROFILES
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import (
    AccountConfig,
    BalanceReport,
    Environment,
    OrderType,
    Outcome,
    Side,
    VenueStatus,
)
from tests.brokers.contract import KEYS, SYMBOL, limit, order, ref
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Endpoint, Fault, When

D = Decimal


@pytest.fixture
def plugin(venue: RunningVenue) -> CcxtPlugin:
    venue.control.set_price("binance", SYMBOL, 60000, spread=0)
    options = {
        "exchange": "binanceus",
        "base_url": venue.base_url,
        "unverified_venue": True,
    }
    secrets = dict(zip(("api_key", "api_secret"), KEYS["binance"], strict=True))
    made = CcxtPlugin()
    made.init(AccountConfig("1", "t", Environment.SANDBOX, options, secrets))
    return made


def test_a_market_order_is_placed_and_read_back_exactly(
    venue: RunningVenue, plugin: CcxtPlugin
) -> None:
    request = order()
    result = plugin.execute_order(request)
    assert result.outcome is Outcome.ACCEPTED, result
    report = plugin.fetch_order(ref(request, result.broker_order_id))
    assert report is not None
    assert report == plugin.fetch_order(ref(request))
    assert (report.status, report.side, report.symbol) == (VenueStatus.FILLED, Side.BUY, SYMBOL)
    assert (report.quantity, report.filled_quantity) == (D("0.002"), D("0.002"))
    assert report.average_price == D(60000)
    (fill,) = report.fills
    assert (fill.quantity, fill.price, fill.fee, fill.fee_currency) == (
        D("0.002"),
        D(60000),
        D("0.000002"),
        "BTC",
    )
    since = datetime.now(UTC) - timedelta(minutes=1)
    assert list(plugin.trades_since(SYMBOL, since)) == [fill]


@pytest.mark.parametrize("by_id", [True, False])
def test_a_resting_order_is_listed_filled_in_part_and_cancelled(
    venue: RunningVenue, plugin: CcxtPlugin, *, by_id: bool
) -> None:
    request = limit()
    placed = plugin.execute_order(request)
    assert [one.broker_order_id for one in plugin.open_orders(SYMBOL)] == [placed.broker_order_id]
    venue.control.fill("binance", placed.broker_order_id, "0.001")
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.PARTIALLY_FILLED, D("0.001"))
    named = ref(request, placed.broker_order_id if by_id else "")
    assert plugin.cancel_order(named).outcome is Outcome.ACCEPTED
    after = plugin.fetch_order(ref(request))
    assert after is not None
    assert (after.status, after.filled_quantity) == (VenueStatus.CANCELED, D("0.001"))
    assert plugin.open_orders(SYMBOL) == []


def test_nothing_ever_proves_an_order_absent(venue: RunningVenue, plugin: CcxtPlugin) -> None:
    request = order()
    venue.control.queue_faults(Fault(Action.DROP, When.BEFORE))
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    with pytest.raises(NotShownError, match="cannot prove that the order is absent"):
        plugin.fetch_order(ref(request))
    with pytest.raises(QueryFailedError):
        plugin.fetch_order(ref(request, "999"))


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize(
    "fault",
    [
        Fault(Action.DROP),
        Fault(Action.STATUS, status=429),
        Fault(Action.STATUS, status=500),
        Fault(Action.CODE, code="-2010"),
        Fault(Action.CODE, code="-1007"),
    ],
    ids=str,
)
def test_whatever_goes_wrong_the_outcome_is_unknown(
    venue: RunningVenue, plugin: CcxtPlugin, fault: Fault, when: When
) -> None:
    request = order()
    plugin.instrument(SYMBOL)
    venue.control.queue_faults(Fault.from_json(fault.as_json() | {"when": when}))
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert len(venue.control.ledger("binance").by_client_id(request.identity)) == (
        1 if when is When.AFTER else 0
    )


@pytest.mark.parametrize("action", [Action.CUT_JSON, Action.EMPTY, Action.HTML, Action.TRUNCATE])
def test_an_unreadable_acceptance_is_no_acceptance(
    venue: RunningVenue, plugin: CcxtPlugin, action: Action
) -> None:
    request = order()
    venue.control.queue_faults(Fault(action, When.AFTER))
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.FILLED


@pytest.mark.parametrize("action", [Action.DROP, Action.CUT_JSON, Action.EMPTY, Action.HTML])
def test_an_unreadable_answer_is_never_empty(
    venue: RunningVenue, plugin: CcxtPlugin, action: Action
) -> None:
    plugin.execute_order(order())
    for question in (plugin.balances, lambda: plugin.open_orders(SYMBOL)):
        venue.control.queue_faults(Fault(action, endpoint=Endpoint.ANY))
        with pytest.raises(QueryFailedError):
            question()


def test_balances_and_rules_are_exact_decimals(venue: RunningVenue, plugin: CcxtPlugin) -> None:
    venue.control.set_balances("binance", {"USDT": "1234.56789012", "BTC": "0.12345678"})
    held = {report.currency: report for report in plugin.balances()}
    assert held["USDT"] == BalanceReport("USDT", D("1234.56789012"), D("1234.56789012"))
    assert held["BTC"].total == D("0.12345678")
    rules = plugin.instrument(SYMBOL)
    assert (rules.quantity_step, rules.price_tick) == (D("0.00001"), D("0.01"))
    assert (rules.min_quantity, rules.min_value) == (D("0.00001"), D(5))
    quote = plugin.fetch_data(SYMBOL)
    assert (quote.bid, quote.ask) == (D(60000), D(60000))
    with pytest.raises(UnknownSymbolError):
        plugin.instrument("nothing")
    told = plugin.check_permissions()
    assert (told.trade, told.withdraw) == (None, None)


def test_only_plain_orders_are_taken(venue: RunningVenue, plugin: CcxtPlugin) -> None:
    for changes in (
        {"type": OrderType.STOP, "stop_price": D(55000)},
        {"reduce_only": True},
        {"quantity": D("0.0000001")},
    ):
        result = plugin.execute_order(order(side=Side.SELL, **changes))
        assert (result.outcome, result.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    assert venue.control.ledger("binance").orders == []


@pytest.mark.parametrize(
    ("exchange", "market_type", "secret", "says"),
    [
        ("coinbase", "spot", "hello", "PEM"),
        ("krakenfutures", "swap", "hello!", "base64"),
        ("hyperliquid", "swap", "0x12", "64 hex digits"),
    ],
)
def test_a_secret_of_the_wrong_form_is_refused_before_anything_is_sent(
    exchange: str, market_type: str, secret: str, says: str
) -> None:
    assert PROFILES[exchange, market_type].key_form != "text"
    options = {"exchange": exchange, "market_type": market_type, "base_url": "http://127.0.0.1:9"}
    secrets = {"api_key": "k", "api_secret": secret}
    with pytest.raises(CredentialError, match=says):
        CcxtPlugin().init(AccountConfig("1", "t", Environment.SANDBOX, options, secrets))
