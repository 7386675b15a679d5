"""Bybit beyond the contract: perpetuals, their positions, and what a stop is on each market."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from brokers.errors import QueryFailedError
from brokers.types import OrderRequest, OrderType, Outcome, PositionReport, Side, VenueStatus
from brokers.venue_client import VenueClient
from tests.brokers.contract import PERPETUAL, ccxt_plugin, limit, order, ref
from tests.venues.client import RunningVenue

D = Decimal


def swap(**changes: object) -> OrderRequest:
    return order(**{"symbol": PERPETUAL, "quantity": D("0.01")} | changes)


def test_a_perpetual_is_held_long_reduced_and_turned_short(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("bybit-linear", venue.base_url)
    venue.control.set_price("bybit-linear", "BTC/USDT", 60000, spread=0)
    assert plugin.positions() == []
    plugin.execute_order(swap())
    assert plugin.positions() == [PositionReport(PERPETUAL, D("0.01"), D(60000))]
    plugin.execute_order(swap(side=Side.SELL, quantity=D("0.03")))
    assert plugin.positions() == [PositionReport(PERPETUAL, D("-0.02"), D(60000))]
    assert plugin.capabilities.short_selling


def test_reduce_only_never_opens(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("bybit-linear", venue.base_url)
    refused = plugin.execute_order(swap(side=Side.SELL, reduce_only=True))
    assert (refused.outcome, refused.code) == (Outcome.REJECTED, "VENUE_REJECTED")
    plugin.execute_order(swap())
    closing = swap(side=Side.SELL, reduce_only=True)
    assert plugin.execute_order(closing).outcome is Outcome.ACCEPTED
    assert plugin.positions() == []


def test_a_pair_of_hedged_positions_is_no_trustworthy_answer(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("bybit-linear", venue.base_url)
    plugin.execute_order(swap())
    venue.control.set_hedge_mode("bybit-linear", hedged=True)
    with pytest.raises(QueryFailedError, match="hedge mode"):
        plugin.positions()


def test_a_venue_that_looks_at_no_coin_lists_everything_once(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = ccxt_plugin("bybit-linear", venue.base_url)
    plugin.execute_order(swap())
    placed = plugin.execute_order(limit(symbol=PERPETUAL))
    whole = VenueClient.call

    def call(self: VenueClient, method: str, **params: object) -> Any:
        if "settleCoin" in params:
            params["settleCoin"] = "USDT"
        return whole(self, method, **params)

    monkeypatch.setattr(VenueClient, "call", call)
    assert [one.broker_order_id for one in plugin.open_orders()] == [placed.broker_order_id]
    assert [one.symbol for one in plugin.positions()] == [PERPETUAL]


@pytest.mark.parametrize("reduce_only", [True, False])
def test_a_stop_on_a_perpetual_reduces_only_when_asked(
    venue: RunningVenue, *, reduce_only: bool
) -> None:
    plugin = ccxt_plugin("bybit-linear", venue.base_url)
    plugin.execute_order(swap())
    stop = swap(side=Side.SELL, type=OrderType.STOP, stop_price=D(55000), reduce_only=reduce_only)
    result = plugin.execute_order(stop)
    fields = result.evidence["request"]["fields"]
    assert (fields["triggerPrice"], fields["triggerDirection"]) == ("55000", "2")
    assert ("reduceOnly" in fields) is reduce_only
    venue.control.set_price("bybit-linear", "BTC/USDT", 54000, spread=0)
    report = plugin.fetch_order(ref(stop))
    assert report is not None
    assert (report.status, report.average_price) == (VenueStatus.FILLED, D(54000))


def test_a_stop_limit_that_was_triggered_and_rests_is_cancelled(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("bybit", venue.base_url)
    request = order(side=Side.SELL, type=OrderType.STOP_LIMIT, stop_price=D(55000), price=D(56000))
    placed = plugin.execute_order(request)
    venue.control.set_price("bybit", "BTC/USDT", 54000, spread=0)
    assert plugin.cancel_order(ref(request, placed.broker_order_id)).outcome is Outcome.ACCEPTED
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.CANCELED, D(0))


def test_a_stop_that_buys_waits_below_its_price(venue: RunningVenue) -> None:
    plugin = ccxt_plugin("bybit-linear", venue.base_url)
    stop = swap(type=OrderType.STOP, stop_price=D(65000))
    result = plugin.execute_order(stop)
    assert result.evidence["request"]["fields"]["triggerDirection"] == "1"
    report = plugin.fetch_order(ref(stop))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.OPEN, D(0))
