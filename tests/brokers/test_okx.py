"""OKX beyond the contract: the second list of stops, contracts, and the header of the sandbox."""

from __future__ import annotations

from decimal import Decimal

import pytest

from brokers import guarded_client
from brokers.errors import ConfigurationError, QueryFailedError
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import (
    AccountConfig,
    Environment,
    OrderRequest,
    OrderType,
    Outcome,
    PositionReport,
    Side,
    VenueStatus,
)
from tests.brokers.contract import KEYS, PERPETUAL, SYMBOL, SYMBOLS, ccxt_plugin, order, ref
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Fault, When

D = Decimal
KINDS = ["okx", "okx-swap"]


def stop(venue: str, **changes: object) -> OrderRequest:
    plain = {"side": Side.SELL, "type": OrderType.STOP, "stop_price": D(55000)}
    return order(**{"symbol": SYMBOLS[venue]} | plain | changes)


@pytest.mark.parametrize("exchange", KINDS)
def test_a_triggered_stop_is_followed_into_the_other_list(
    venue: RunningVenue, exchange: str
) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), stop(exchange)
    placed = plugin.execute_order(request)
    assert placed.broker_order_id.startswith("algo-")
    assert placed.evidence["request"]["path"] == "/api/v5/trade/order-algo"
    assert [o.broker_order_id for o in plugin.open_orders()] == [placed.broker_order_id]
    venue.control.set_price(exchange, SYMBOL, 54000, spread=0)
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert report == plugin.fetch_order(ref(request, placed.broker_order_id))
    assert (report.broker_order_id, report.client_order_id) == (
        placed.broker_order_id,
        plugin.client_order_id(request.identity),
    )
    assert (report.status, report.average_price) == (VenueStatus.FILLED, D(54000))
    assert sum(fill.quantity for fill in report.fills) == request.quantity


@pytest.mark.parametrize("price", [None, D(61500)], ids=["market", "limit"])
def test_a_stop_that_buys_coins_buys_the_quantity_asked_for(
    venue: RunningVenue, price: Decimal | None
) -> None:
    kind = OrderType.STOP if price is None else OrderType.STOP_LIMIT
    request = stop("okx", side=Side.BUY, type=kind, stop_price=D(61000), price=price)
    plugin = ccxt_plugin("okx", venue.base_url)
    placed = plugin.execute_order(request)
    assert placed.outcome is Outcome.ACCEPTED, placed
    venue.control.set_price("okx", SYMBOL, 61000, spread=0)
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.side, report.status) == (Side.BUY, VenueStatus.FILLED)
    assert report.filled_quantity == request.quantity


@pytest.mark.parametrize("exchange", KINDS)
@pytest.mark.parametrize("by_id", [True, False])
def test_a_waiting_stop_is_cancelled_in_its_own_list(
    venue: RunningVenue, exchange: str, *, by_id: bool
) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), stop(exchange)
    placed = plugin.execute_order(request)
    named = ref(request, placed.broker_order_id if by_id else "")
    assert plugin.cancel_order(named).outcome is Outcome.ACCEPTED
    assert plugin.open_orders() == []
    report = plugin.fetch_order(named)
    assert report is not None
    assert report.status is VenueStatus.CANCELED
    assert plugin.cancel_order(named).outcome is Outcome.REJECTED


def test_a_triggered_limit_that_rests_is_cancelled_as_the_order_it_became(
    venue: RunningVenue,
) -> None:
    plugin = ccxt_plugin("okx", venue.base_url)
    request = stop("okx", type=OrderType.STOP_LIMIT, price=D(56000))
    placed = plugin.execute_order(request)
    venue.control.set_price("okx", SYMBOL, 54000, spread=0)
    assert plugin.cancel_order(ref(request, placed.broker_order_id)).outcome is Outcome.ACCEPTED
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, D(0))


@pytest.mark.parametrize("exchange", KINDS)
def test_a_triggered_limit_that_rests_is_listed_as_the_stop_it_was(
    venue: RunningVenue, exchange: str
) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    request = stop(exchange, type=OrderType.STOP_LIMIT, price=D(56000))
    placed = plugin.execute_order(request)
    venue.control.set_price(exchange, SYMBOL, 54000, spread=0)
    [listed] = plugin.open_orders()
    assert (listed.status, listed.broker_order_id, listed.client_order_id) == (
        VenueStatus.OPEN,
        placed.broker_order_id,
        plugin.client_order_id(request.identity),
    )
    assert listed == plugin.fetch_order(ref(request, placed.broker_order_id))


@pytest.mark.parametrize("exchange", KINDS)
def test_a_stop_whose_answer_was_lost_is_found_by_its_own_id(
    venue: RunningVenue, exchange: str
) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), stop(exchange)
    venue.control.queue_faults(Fault(Action.DROP, When.AFTER))
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.OPEN


def test_quantities_are_coins_here_and_contracts_there(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("okx-swap", venue.base_url)
    venue.control.set_price("okx-swap", SYMBOL, 60000, spread=0)
    rules = plugin.instrument(PERPETUAL)
    assert (rules.quantity_step, rules.min_quantity) == (D("0.0001"), D("0.0001"))
    bought = order(symbol=PERPETUAL, quantity=D("0.05"))
    result = plugin.execute_order(bought)
    assert result.evidence["request"]["fields"]["sz"] == "5"
    report = plugin.fetch_order(ref(bought))
    assert report is not None
    assert (report.quantity, report.filled_quantity) == (D("0.05"), D("0.05"))
    assert [fill.quantity for fill in report.fills] == [D("0.05")]
    assert plugin.positions() == [PositionReport(PERPETUAL, D("0.05"), D(60000))]
    sold = order(symbol=PERPETUAL, quantity=D("0.07"), side=Side.SELL)
    plugin.execute_order(sold)
    assert plugin.positions() == [PositionReport(PERPETUAL, D("-0.02"), D(60000))]


def test_a_pair_of_hedged_positions_is_no_trustworthy_answer(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("okx-swap", venue.base_url)
    plugin.execute_order(order(symbol=PERPETUAL))
    venue.control.set_hedge_mode("okx-swap", hedged=True)
    with pytest.raises(QueryFailedError, match="hedge mode"):
        plugin.positions()


def test_the_sandbox_is_a_header_and_asserted(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = dict(zip(("api_key", "api_secret", "api_passphrase"), KEYS["okx"], strict=True))
    config = AccountConfig("1", "t", Environment.SANDBOX, {"exchange": "okx"}, secrets)
    plugin = CcxtPlugin()
    plugin.init(config)
    client = plugin._pool._connect(private=True)
    assert client.ccxt.headers == {"x-simulated-trading": "1"}
    stays = guarded_client.guarded_class("okx", increasing=False)
    monkeypatch.setattr(stays, "set_sandbox_mode", lambda self, enabled: None)
    with pytest.raises(ConfigurationError, match="set no header"):
        CcxtPlugin().init(config)
